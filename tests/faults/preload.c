/* A disk that fails on demand: preload this into a program and its n-th change to the
 * files below one folder goes wrong.
 *
 *     cc -shared -fPIC -O1 -o preload.so preload.c
 *     FAULT_DIR=/tmp/lib FAULT_MODE=torn FAULT_AT=17 LD_PRELOAD=./preload.so program ...
 *
 * Counted, each as one change: write pwrite writev pwritev sendfile copy_file_range
 * fallocate ftruncate truncate fsync fdatasync rename unlink rmdir link symlink mkdir
 * chmod, and an open that creates or truncates a file; each with its 64, -at and
 * fortified variants. Not seen: stores through a mapping (SQLite's -shm), and what the
 * C library writes on its own behalf (fwrite). Calls whose file lies elsewhere are
 * passed on uncounted: standard error, pipes, the log. The count is one process's own:
 * a child starts again at zero.
 *
 * FAULT_DIR   the folder, an absolute path without symbolic links; unset: count nothing
 * FAULT_AT    n, from 1: the change that goes wrong
 * FAULT_MODE  count           nothing goes wrong (the default)
 *             kill            SIGKILL before the change
 *             torn            half the bytes of a write, then SIGKILL
 *             eio-once        the change fails with EIO
 *             eio-forever     so do all later ones
 *             enospc-forever  it and all later ones that need room fail with ENOSPC
 *             fsync-once      one fsync or fdatasync fails with EIO
 *             stop            SIGSTOP before the change, which is made after SIGCONT: so
 *                             that a test can act at that moment without a clock
 *             A mode that does not fit the n-th change (torn: not a write, fsync-once:
 *             not a sync, enospc: needs no room) waits for the next it fits.
 *             A process that has forked and changed these variables calls fault_configure().
 * FAULT_LOG   a file outside FAULT_DIR to which each change is appended before it is
 *             made: "n pid call fault path", fault being "-" or the mode; so what was
 *             tried is known even after a SIGKILL, and its last line gives the count
 * FAULT_TRACE a file outside FAULT_DIR to which each change is appended after it was made,
 *             with its bytes, so that it can be made again elsewhere, or be lost in a power
 *             cut: a line "call inode offset size path" and behind it size bytes. For
 *             rename the bytes are the new name, for a sync and a name they are none; a call
 *             that failed has a "!" before its name. What the program writes on its standard
 *             output and error is in there, too, as calls "out" and "err".
 * FAULT_DENY  lines "EACCES:/path" or "EIO:/path" (other errors: a number): opening
 *             exactly that file, or listing that folder, fails so. It works without
 *             FAULT_DIR, and is how a test run as root meets an unreadable file.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* glibc may define these as macros onto the 64-bit names; here both are defined. */
#undef open
#undef open64
#undef openat
#undef openat64
#undef creat
#undef creat64

enum mode { COUNT, KILL, TORN, EIO_ONCE, EIO_FOREVER, ENOSPC_FOREVER, FSYNC_ONCE, STOP };
enum kind { WRITE, SYNC, MAKE, OTHER }; /* what decides which modes fit a call */

static const char *mode_names[] = {"count",       "kill",           "torn",      "eio-once",
                                   "eio-forever", "enospc-forever", "fsync-once", "stop"};

static const char *fault_dir, *fault_log, *fault_trace, *fault_deny;
static size_t fault_dir_length;
static enum mode fault_mode;
static long fault_at;
static atomic_long counted;
static atomic_int spent; /* a mode that strikes once has struck */

__attribute__((constructor)) void fault_configure(void)
{
    const char *mode = getenv("FAULT_MODE"), *at = getenv("FAULT_AT");
    fault_dir = getenv("FAULT_DIR");
    fault_log = getenv("FAULT_LOG");
    fault_trace = getenv("FAULT_TRACE");
    fault_deny = getenv("FAULT_DENY");
    fault_dir_length = fault_dir ? strlen(fault_dir) : 0;
    fault_at = at ? atol(at) : LONG_MAX;
    fault_mode = COUNT;
    counted = spent = 0;
    for (size_t i = 0; mode && i < sizeof mode_names / sizeof *mode_names; i++)
        if (strcmp(mode, mode_names[i]) == 0)
            fault_mode = (enum mode)i;
}

/* ---- which file ---- */

static int path_of_fd(int fd, char *out)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, out, PATH_MAX - 1);
    if (length < 0)
        return 0;
    out[length] = 0;
    return 1;
}

static int path_of_name(int dirfd, const char *name, char *out)
{
    if (!name)
        return 0;
    if (name[0] == '/') {
        snprintf(out, PATH_MAX, "%s", name);
        return 1;
    }
    if (dirfd == AT_FDCWD) {
        if (syscall(SYS_getcwd, out, PATH_MAX) < 0)
            return 0;
    } else if (!path_of_fd(dirfd, out)) {
        return 0;
    }
    size_t length = strlen(out);
    snprintf(out + length, PATH_MAX - length, "/%s", name);
    return 1;
}

static int below(const char *path)
{
    return fault_dir_length && strncmp(path, fault_dir, fault_dir_length) == 0 &&
           (path[fault_dir_length] == '/' || path[fault_dir_length] == 0);
}

/* ---- what happens to it ---- */

static void die(void)
{
    for (;;)
        syscall(SYS_kill, (long)getpid(), SIGKILL);
}

/* A trace with a hole would prove nothing. */
static void die_loudly(void)
{
    static const char said[] = "preload.c: this call cannot be traced\n";
    syscall(SYS_write, 2, said, sizeof said - 1);
    die();
}

static void record(long n, const char *call, int struck, const char *path)
{
    char line[PATH_MAX + 128];
    if (!fault_log)
        return;
    int length = snprintf(line, sizeof line, "%ld %d %s %s %s\n", n, (int)getpid(), call,
                          struck ? mode_names[fault_mode] : "-", path + fault_dir_length);
    long log = syscall(SYS_openat, AT_FDCWD, fault_log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (log < 0)
        return;
    syscall(SYS_write, log, line, (long)length);
    syscall(SYS_close, log);
}

/* ---- what was done, with its bytes ---- */

static size_t total(const struct iovec *parts, int count)
{
    size_t sum = 0;
    for (int i = 0; i < count; i++)
        sum += parts[i].iov_len;
    return sum;
}

/* One record, written at once: threads may change files at the same time. */
static void trace(const char *call, int failed, long inode, off_t offset, const struct iovec *parts,
                  int count, const char *path)
{
    char line[PATH_MAX + 128];
    struct iovec all[64];
    size_t size = total(parts, count);
    int length = snprintf(line, sizeof line, "%s%s %ld %lld %zu %s\n", failed ? "!" : "", call,
                          inode, (long long)offset, size, path);
    long out = syscall(SYS_openat, AT_FDCWD, fault_trace, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (out < 0 || count > 63)
        die_loudly();
    all[0] = (struct iovec){line, (size_t)length};
    for (int i = 0; i < count; i++)
        all[i + 1] = parts[i];
    if (syscall(SYS_writev, out, all, (long)count + 1) != length + (long)size)
        die_loudly();
    syscall(SYS_close, out);
}

static long inode_of(int fd)
{
    struct stat status;
    return syscall(SYS_fstat, fd, &status) == 0 ? (long)status.st_ino : 0;
}

/* Before a write at the file's own position, where that is; -1 when nothing is traced. */
static off_t position(int fd)
{
    struct stat status;
    if (!fault_trace)
        return -1;
    int saved = errno;
    off_t at = syscall(SYS_lseek, fd, 0L, SEEK_CUR);
    if (syscall(SYS_fcntl, fd, F_GETFL) & O_APPEND && syscall(SYS_fstat, fd, &status) == 0)
        at = status.st_size;
    errno = saved;
    return at;
}

/* After a call on an open file. `done` is its result; of a write, as many bytes were. */
static void trace_fd(const char *call, int fd, long done, off_t offset, const struct iovec *parts,
                     int count)
{
    char path[PATH_MAX];
    int saved = errno;
    if (fault_trace && (fd == 1 || fd == 2) && done > 0 && count)
        trace(fd == 1 ? "out" : "err", 0, 0, 0, parts, count, "-");
    else if (fault_trace && fault_dir_length && path_of_fd(fd, path) && below(path)) {
        if (count && done >= 0 && (size_t)done != total(parts, count))
            die_loudly(); /* a short write: never seen on a local disk */
        trace(call, done < 0, inode_of(fd), offset, parts, done < 0 ? 0 : count,
              path + fault_dir_length);
    }
    errno = saved;
}

/* After a call that changes names. */
static void trace_names(const char *call, int done, int from, const char *name, int to,
                        const char *other)
{
    char path[PATH_MAX], second[PATH_MAX];
    int saved = errno;
    if (fault_trace && fault_dir_length && path_of_name(from, name, path) && below(path)) {
        struct iovec part = {NULL, 0};
        struct stat status;
        const char *there = path;
        if (other && path_of_name(to, other, second)) {
            if (!below(second))
                die_loudly();
            part = (struct iovec){second + fault_dir_length, strlen(second + fault_dir_length)};
            there = second;
        }
        long inode = syscall(SYS_newfstatat, AT_FDCWD, there, &status, AT_SYMLINK_NOFOLLOW) == 0
                         ? (long)status.st_ino
                         : 0;
        trace(call, done < 0, inode, 0, &part, other ? 1 : 0, path + fault_dir_length);
    }
    errno = saved;
}

static int fits(enum kind kind)
{
    switch (fault_mode) {
    case TORN:
        return kind == WRITE;
    case FSYNC_ONCE:
        return kind == SYNC;
    case ENOSPC_FOREVER:
        return kind == WRITE || kind == MAKE;
    default:
        return fault_mode != COUNT;
    }
}

enum verdict { PASS, FAIL, TEAR };

/* Counts the change and says what becomes of it; on FAIL errno is set. */
static enum verdict judge(enum kind kind, const char *call, const char *path)
{
    int saved = errno;
    long n = atomic_fetch_add(&counted, 1) + 1;
    int struck = n >= fault_at && fits(kind);
    if (struck && fault_mode != EIO_FOREVER && fault_mode != ENOSPC_FOREVER)
        struck = !atomic_exchange(&spent, 1);
    record(n, call, struck, path);
    errno = saved;
    if (!struck)
        return PASS;
    if (fault_mode == KILL)
        die();
    if (fault_mode == TORN)
        return TEAR;
    if (fault_mode == STOP) {
        syscall(SYS_kill, (long)getpid(), SIGSTOP);
        return PASS;
    }
    errno = fault_mode == ENOSPC_FOREVER ? ENOSPC : EIO;
    return FAIL;
}

static enum verdict judge_fd(enum kind kind, const char *call, int fd)
{
    char path[PATH_MAX];
    int saved = errno;
    int ours = fault_dir_length && path_of_fd(fd, path) && below(path);
    errno = saved;
    return ours ? judge(kind, call, path) : PASS;
}

static enum verdict judge_name(enum kind kind, const char *call, int dirfd, const char *name)
{
    char path[PATH_MAX];
    int saved = errno;
    int ours = fault_dir_length && path_of_name(dirfd, name, path) && below(path);
    errno = saved;
    return ours ? judge(kind, call, path) : PASS;
}

/* Below: `dirfd, name` belongs to the folder if either of two names does. */
static enum verdict judge_names(const char *call, int from, const char *name, int to,
                                const char *other, enum kind kind)
{
    char path[PATH_MAX];
    int saved = errno;
    int ours = fault_dir_length && ((path_of_name(to, other, path) && below(path)) ||
                                    (path_of_name(from, name, path) && below(path)));
    errno = saved;
    return ours ? judge(kind, call, path) : PASS;
}

/* ---- writes ---- */

/* Half the bytes reach the file, then the process is gone. offset < 0: at its position. */
static void tear(int fd, const struct iovec *parts, int count, off_t offset)
{
    size_t half = total(parts, count) / 2;
    for (int i = 0; i < count && half > 0; i++) {
        size_t size = parts[i].iov_len < half ? parts[i].iov_len : half;
        if (offset < 0) {
            syscall(SYS_write, fd, parts[i].iov_base, size);
        } else {
            syscall(SYS_pwrite64, fd, parts[i].iov_base, size, offset);
            offset += (off_t)size;
        }
        half -= size;
    }
    die();
}

static ssize_t do_write(int fd, const void *data, size_t size)
{
    struct iovec part = {(void *)data, size};
    enum verdict verdict = judge_fd(WRITE, "write", fd);
    if (verdict == TEAR)
        tear(fd, &part, 1, -1);
    off_t at = position(fd);
    ssize_t done = verdict == FAIL ? -1 : syscall(SYS_write, fd, data, size);
    trace_fd("write", fd, done, at, &part, 1);
    return done;
}

static ssize_t do_pwrite(int fd, const void *data, size_t size, off_t offset)
{
    struct iovec part = {(void *)data, size};
    enum verdict verdict = judge_fd(WRITE, "pwrite", fd);
    if (verdict == TEAR)
        tear(fd, &part, 1, offset);
    ssize_t done = verdict == FAIL ? -1 : syscall(SYS_pwrite64, fd, data, size, offset);
    trace_fd("write", fd, done, offset, &part, 1);
    return done;
}

static ssize_t do_pwritev(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
    enum verdict verdict = judge_fd(WRITE, "pwritev", fd);
    if (verdict == TEAR)
        tear(fd, parts, count, offset);
    /* the offset is one 64-bit word here; the kernel ignores the high half */
    ssize_t done = verdict == FAIL ? -1 : syscall(SYS_pwritev2, fd, parts, (long)count, offset, 0L,
                                                  (long)flags);
    trace_fd("write", fd, done, offset, parts, count);
    return done;
}

ssize_t write(int fd, const void *data, size_t size) { return do_write(fd, data, size); }
ssize_t __write(int fd, const void *data, size_t size) { return do_write(fd, data, size); }
ssize_t pwrite(int fd, const void *d, size_t n, off_t at) { return do_pwrite(fd, d, n, at); }
ssize_t pwrite64(int fd, const void *d, size_t n, off64_t at) { return do_pwrite(fd, d, n, at); }
ssize_t __pwrite64(int fd, const void *d, size_t n, off64_t at) { return do_pwrite(fd, d, n, at); }

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    enum verdict verdict = judge_fd(WRITE, "writev", fd);
    if (verdict == TEAR)
        tear(fd, parts, count, -1);
    off_t at = position(fd);
    ssize_t done = verdict == FAIL ? -1 : syscall(SYS_writev, fd, parts, (long)count);
    trace_fd("write", fd, done, at, parts, count);
    return done;
}

ssize_t pwritev(int fd, const struct iovec *p, int n, off_t at) { return do_pwritev(fd, p, n, at, 0); }
ssize_t pwritev64(int fd, const struct iovec *p, int n, off64_t at) { return do_pwritev(fd, p, n, at, 0); }
ssize_t pwritev2(int fd, const struct iovec *p, int n, off_t at, int f) { return do_pwritev(fd, p, n, at, f); }
ssize_t pwritev64v2(int fd, const struct iovec *p, int n, off64_t at, int f) { return do_pwritev(fd, p, n, at, f); }

/* After a copy inside the kernel: what arrived is read back. */
static void trace_copied(int fd, ssize_t done, off_t offset)
{
    char link[64];
    int saved = errno;
    struct iovec part = {NULL, done > 0 ? (size_t)done : 0};
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (!fault_trace || done <= 0)
        return;
    long in = syscall(SYS_openat, AT_FDCWD, link, O_RDONLY, 0);
    part.iov_base = malloc(part.iov_len);
    if (in < 0 || !part.iov_base ||
        syscall(SYS_pread64, in, part.iov_base, part.iov_len, offset) != done)
        die_loudly();
    syscall(SYS_close, in);
    errno = saved;
    trace_fd("write", fd, done, offset, &part, 1);
    free(part.iov_base);
}

/* Copies inside the kernel: torn means half the length was asked for. */
static ssize_t do_sendfile(int out, int in, off_t *offset, size_t size)
{
    enum verdict verdict = judge_fd(WRITE, "sendfile", out);
    if (verdict == TEAR) {
        syscall(SYS_sendfile, out, in, offset, size / 2);
        die();
    }
    off_t at = position(out);
    ssize_t done = verdict == FAIL ? -1 : syscall(SYS_sendfile, out, in, offset, size);
    trace_copied(out, done, at);
    return done;
}

ssize_t sendfile(int out, int in, off_t *offset, size_t n) { return do_sendfile(out, in, offset, n); }
ssize_t sendfile64(int out, int in, off64_t *offset, size_t n) { return do_sendfile(out, in, offset, n); }

ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags)
{
    enum verdict verdict = judge_fd(WRITE, "copy_file_range", out);
    if (verdict == TEAR) {
        syscall(SYS_copy_file_range, in, from, out, to, size / 2, flags);
        die();
    }
    off_t at = to ? *to : position(out);
    ssize_t done =
        verdict == FAIL ? -1 : syscall(SYS_copy_file_range, in, from, out, to, size, flags);
    trace_copied(out, done, at);
    return done;
}

/* ---- room, sizes, syncs ---- */

/* The offset of a "size" is the new one. */
static void trace_size(int fd, int done)
{
    struct stat status;
    int saved = errno;
    if (fault_trace && syscall(SYS_fstat, fd, &status) == 0)
        trace_fd("size", fd, done, status.st_size, NULL, 0);
    errno = saved;
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
    int done = judge_fd(MAKE, "fallocate", fd) == FAIL
                   ? -1
                   : (int)syscall(SYS_fallocate, fd, (long)mode, offset, length);
    trace_size(fd, done);
    return done;
}
int fallocate64(int fd, int mode, off64_t at, off64_t n) { return fallocate(fd, mode, at, n); }

/* posix_fallocate returns the error instead of setting errno */
int posix_fallocate(int fd, off_t offset, off_t length)
{
    return fallocate(fd, 0, offset, length) == 0 ? 0 : errno;
}
int posix_fallocate64(int fd, off64_t at, off64_t n) { return posix_fallocate(fd, at, n); }

int ftruncate(int fd, off_t size)
{
    int done =
        judge_fd(OTHER, "ftruncate", fd) == FAIL ? -1 : (int)syscall(SYS_ftruncate, fd, size);
    trace_size(fd, done);
    return done;
}
int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }

int truncate(const char *name, off_t size)
{
    int fd = fault_trace ? (int)syscall(SYS_openat, AT_FDCWD, name, O_WRONLY, 0) : -1;
    if (fd >= 0) {
        int done = ftruncate(fd, size);
        syscall(SYS_close, fd);
        return done;
    }
    return judge_name(OTHER, "truncate", AT_FDCWD, name) == FAIL
               ? -1
               : (int)syscall(SYS_truncate, name, size);
}
int truncate64(const char *name, off64_t size) { return truncate(name, size); }

int fsync(int fd)
{
    int done = judge_fd(SYNC, "fsync", fd) == FAIL ? -1 : (int)syscall(SYS_fsync, fd);
    trace_fd("sync", fd, done, 0, NULL, 0);
    return done;
}

int fdatasync(int fd)
{
    int done = judge_fd(SYNC, "fdatasync", fd) == FAIL ? -1 : (int)syscall(SYS_fdatasync, fd);
    trace_fd("sync", fd, done, 0, NULL, 0);
    return done;
}

/* ---- names ---- */

static int do_rename(int from, const char *name, int to, const char *other, unsigned flags)
{
    if (judge_names("rename", from, name, to, other, OTHER) == FAIL)
        return -1;
    int done = (int)syscall(SYS_renameat2, from, name, to, other, flags);
    trace_names("rename", done, from, name, to, other);
    return done;
}

int rename(const char *name, const char *other)
{
    return do_rename(AT_FDCWD, name, AT_FDCWD, other, 0);
}
int renameat(int from, const char *name, int to, const char *other)
{
    return do_rename(from, name, to, other, 0);
}
int renameat2(int from, const char *name, int to, const char *other, unsigned flags)
{
    return do_rename(from, name, to, other, flags);
}

static int do_unlink(int dirfd, const char *name, int flags)
{
    const char *call = flags & AT_REMOVEDIR ? "rmdir" : "unlink";
    int done = judge_name(OTHER, call, dirfd, name) == FAIL
                   ? -1
                   : (int)syscall(SYS_unlinkat, dirfd, name, (long)flags);
    trace_names(call, done, dirfd, name, 0, NULL);
    return done;
}

int unlink(const char *name) { return do_unlink(AT_FDCWD, name, 0); }
int unlinkat(int dirfd, const char *name, int flags) { return do_unlink(dirfd, name, flags); }
int rmdir(const char *name) { return do_unlink(AT_FDCWD, name, AT_REMOVEDIR); }

int linkat(int from, const char *name, int to, const char *other, int flags)
{
    if (judge_names("link", from, name, to, other, MAKE) == FAIL)
        return -1;
    int done = (int)syscall(SYS_linkat, from, name, to, other, (long)flags);
    trace_names("link", done, from, name, to, other);
    return done;
}
int link(const char *name, const char *other)
{
    return linkat(AT_FDCWD, name, AT_FDCWD, other, 0);
}

int symlinkat(const char *target, int dirfd, const char *name)
{
    return judge_name(MAKE, "symlink", dirfd, name) == FAIL
               ? -1
               : (int)syscall(SYS_symlinkat, target, dirfd, name);
}
int symlink(const char *target, const char *name) { return symlinkat(target, AT_FDCWD, name); }

int mkdirat(int dirfd, const char *name, mode_t mode)
{
    int done = judge_name(MAKE, "mkdir", dirfd, name) == FAIL
                   ? -1
                   : (int)syscall(SYS_mkdirat, dirfd, name, mode);
    trace_names("mkdir", done, dirfd, name, 0, NULL);
    return done;
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

int fchmod(int fd, mode_t mode)
{
    return judge_fd(OTHER, "chmod", fd) == FAIL ? -1 : (int)syscall(SYS_fchmod, fd, mode);
}
int chmod(const char *name, mode_t mode)
{
    return judge_name(OTHER, "chmod", AT_FDCWD, name) == FAIL
               ? -1
               : (int)syscall(SYS_fchmodat, AT_FDCWD, name, mode);
}

/* ---- opens ---- */

static int denied(int dirfd, const char *name)
{
    char path[PATH_MAX];
    int saved = errno, error = 0;
    if (!fault_deny || !path_of_name(dirfd, name, path)) {
        errno = saved;
        return 0;
    }
    size_t length = strlen(path);
    for (const char *line = fault_deny; *line && !error;) {
        const char *end = strchrnul(line, '\n'), *colon = strchr(line, ':');
        if (colon && colon < end && (size_t)(end - colon - 1) == length &&
            memcmp(colon + 1, path, length) == 0)
            error = strncmp(line, "EACCES:", 7) == 0 ? EACCES
                    : strncmp(line, "EIO:", 4) == 0  ? EIO
                                                     : atoi(line);
        line = *end ? end + 1 : end;
    }
    errno = error ? error : saved;
    return error;
}

static int do_open(int dirfd, const char *name, int flags, mode_t mode)
{
    int there = 0;
    if (denied(dirfd, name))
        return -1;
    if (fault_dir_length && (flags & (O_CREAT | O_TRUNC))) {
        int saved = errno;
        there = syscall(SYS_faccessat, dirfd, name, F_OK) == 0;
        errno = saved;
        if (there ? flags & O_TRUNC : flags & O_CREAT)
            if (judge_name(there ? OTHER : MAKE, there ? "open-trunc" : "open-creat", dirfd,
                           name) == FAIL)
                return -1;
    }
    int fd = (int)syscall(SYS_openat, dirfd, name, (long)flags, mode);
    if (fault_trace && fd >= 0 && !there && flags & O_CREAT)
        trace_names("create", 0, dirfd, name, 0, NULL);
    else if (fault_trace && fd >= 0 && flags & O_TRUNC)
        trace_size(fd, 0);
    return fd;
}

#define WITH_MODE(flags, mode)                               \
    mode_t mode = 0;                                         \
    if ((flags) & O_CREAT || ((flags) & O_TMPFILE) == O_TMPFILE) { \
        va_list rest;                                        \
        va_start(rest, flags);                               \
        mode = va_arg(rest, mode_t);                         \
        va_end(rest);                                        \
    }

int open(const char *name, int flags, ...)
{
    WITH_MODE(flags, mode)
    return do_open(AT_FDCWD, name, flags, mode);
}
int open64(const char *name, int flags, ...)
{
    WITH_MODE(flags, mode)
    return do_open(AT_FDCWD, name, flags | O_LARGEFILE, mode);
}
int openat(int dirfd, const char *name, int flags, ...)
{
    WITH_MODE(flags, mode)
    return do_open(dirfd, name, flags, mode);
}
int openat64(int dirfd, const char *name, int flags, ...)
{
    WITH_MODE(flags, mode)
    return do_open(dirfd, name, flags | O_LARGEFILE, mode);
}
int __open_2(const char *name, int flags) { return do_open(AT_FDCWD, name, flags, 0); }
int __open64_2(const char *name, int flags) { return do_open(AT_FDCWD, name, flags, 0); }
int __openat_2(int dirfd, const char *name, int flags) { return do_open(dirfd, name, flags, 0); }
int __openat64_2(int dirfd, const char *name, int flags) { return do_open(dirfd, name, flags, 0); }
int creat(const char *name, mode_t mode)
{
    return do_open(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode);
}
int creat64(const char *name, mode_t mode) { return creat(name, mode); }

DIR *opendir(const char *name)
{
    static DIR *(*next)(const char *);
    if (!next)
        next = (DIR * (*)(const char *)) dlsym(RTLD_NEXT, "opendir");
    return denied(AT_FDCWD, name) ? NULL : next(name);
}
