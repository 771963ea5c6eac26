"""Walk folders, read files safely, know them by digest. Paths are bytes throughout.

A path is bytes because a POSIX file name is: not every name is UTF-8, and every one
must be found again exactly.
"""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

from mmsearch.errors import LoadError
from mmsearch.records import Reason

# Folders that hold machines' files, not people's: Synology thumbnails, packages, history.
SKIPPED_FOLDERS = frozenset({b"@eaDir", b"node_modules", b".git"})
_BLOCK = 1 << 24  # bytes hashed at a time


@dataclass(frozen=True, slots=True)
class Stat:
    """What tells one state of a file from another without reading it.

    Signed 64 bits each, as SQLite stores them: an inode or a date beyond that wraps,
    which still tells two states apart.
    """

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stat:
        """The three figures of an os.stat_result."""
        figures = status.st_size, status.st_mtime_ns, status.st_ino
        return cls(*map(_signed64, figures))

    @property
    def figures(self) -> tuple[int, int, int]:
        """(size, mtime_ns, inode)."""
        return self.size, self.mtime_ns, self.inode


def _signed64(value: int) -> int:
    return (value + 2**63) % 2**64 - 2**63


@dataclass(slots=True)
class Folder:
    """One folder's files as the walk found them; `error` when it could not be listed."""

    path: bytes
    files: list[tuple[bytes, Stat]] = field(default_factory=list)
    odd: list[tuple[bytes, Stat, Reason]] = field(default_factory=list)  # links, FIFOs, devices
    error: str | None = None


@dataclass(frozen=True, slots=True)
class WalkRules:
    """What a walk leaves out. `exclude` are globs on names or on paths below the root."""

    exclude: tuple[bytes, ...] = ()
    include_hidden: bool = False
    without: frozenset[bytes] = frozenset()  # absolute folders, such as the library's own

    def leaves_out(self, name: bytes, relative: bytes) -> bool:
        """True when a glob names this entry by its name or by its path below the root."""
        hidden = name.startswith(b".") and not self.include_hidden
        return hidden or any(
            fnmatch.fnmatchcase(name, glob) or fnmatch.fnmatchcase(relative, glob)
            for glob in self.exclude
        )


def walk(root: bytes, rules: WalkRules) -> Iterator[Folder]:
    """Every folder below `root` with its files, one stat a file, links never followed.

    Iterative, so that ten thousand levels are no deeper than one. A folder that cannot
    be listed comes with `error` set, and the walk goes on. Names come sorted: two walks
    of the same tree give the same order. A folder that is deleted, or swapped for a link,
    after the one above it was listed is left out. `root` has no links in it.
    """
    waiting: list[tuple[bytes, os.stat_result | None]] = [(root, None)]
    while waiting:
        path, listed = waiting.pop()
        folder = Folder(path)
        below: list[tuple[bytes, os.stat_result | None]] = []
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    _sort_in(entry, root, rules, folder, below)
            # a mount may take a folder's place, too: where its path leads settles it
            other = listed is not None and not os.path.samestat(listed, os.stat(path))
            if other and os.path.realpath(path) != path:
                continue
        except OSError as error:
            if listed and vanished(error):
                continue
            folder.error = describe(error)
        folder.files.sort()
        yield folder
        waiting.extend(sorted(below, key=lambda pair: pair[0], reverse=True))


def _sort_in(
    entry: os.DirEntry[bytes],
    root: bytes,
    rules: WalkRules,
    folder: Folder,
    below: list[tuple[bytes, os.stat_result | None]],
) -> None:
    name = entry.name
    if rules.leaves_out(name, entry.path[len(root) :].lstrip(b"/")):
        return
    folder_like = entry.is_dir(follow_symlinks=False)
    if folder_like and (name in SKIPPED_FOLDERS or entry.path in rules.without):
        return
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        if folder_like:
            below.append((entry.path, None))  # listing it will say what is wrong
        elif not vanished(error):  # one file of many: the others go on
            folder.error = f"{display(name)}: {describe(error)}"
        return
    if folder_like:
        below.append((entry.path, status))
    elif stat.S_ISREG(status.st_mode):
        folder.files.append((name, Stat.of(status)))
    else:
        reason = Reason.SYMLINK if stat.S_ISLNK(status.st_mode) else Reason.NOT_REGULAR
        folder.odd.append((name, Stat.of(status), reason))


def one_file(path: bytes) -> Folder:
    """The walk of a root that is a single file."""
    head, name = os.path.split(path)
    return Folder(head, files=[(name, Stat.of(os.lstat(path)))])


@contextmanager
def opened(path: bytes) -> Iterator[tuple[BinaryIO, os.stat_result]]:
    """A regular file, open for reading, and its status before anything was read.

    Opened without blocking and without following a link, so that a FIFO, a device or a
    swapped link cannot hang or mislead us. Raises LoadError with UNREADABLE, NOT_REGULAR or,
    at the end, CHANGED, which goes before any other fault found in the file.
    """
    try:
        with open(path, "rb", opener=_cautious) as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise LoadError(Reason.NOT_REGULAR, "not a regular file")
            try:
                yield file, before
            finally:
                if Stat.of(before) != Stat.of(os.fstat(file.fileno())):
                    raise LoadError(Reason.CHANGED, "the file changed while it was read")
    except OSError as error:
        raise LoadError(Reason.UNREADABLE, describe(error)) from error


def check_size(status: os.stat_result, max_bytes: float) -> None:
    """Raise LoadError with TOO_LARGE for a file of more bytes."""
    if status.st_size > max_bytes:
        size, limit = status.st_size / 1e6, max_bytes / 1e6
        raise LoadError(Reason.TOO_LARGE, f"{size:,.0f} MB is over the limit of {limit:,.0f} MB")


def read_all(file: BinaryIO, status: os.stat_result) -> bytes:
    """The bytes of an open file, as many as its status says. Raises LoadError with CHANGED."""
    file.seek(0)
    data = file.read(status.st_size + 1)  # one byte more: sees it grow
    if len(data) != status.st_size:
        raise LoadError(Reason.CHANGED, "the file changed while it was read")
    return data


def read_regular(
    path: bytes, max_bytes: float, judge: Callable[[bytes], None]
) -> tuple[bytes, Stat]:
    """The whole of a regular file, and its state while it was read.

    `judge` sees the first 64 bytes and raises LoadError when the rest is of no use. Raises
    what `opened`, `check_size` and `read_all` raise, and whatever `judge` raises.
    """
    with opened(path) as (file, status):
        judge(file.read(64))
        check_size(status, max_bytes)
        return read_all(file, status), Stat.of(status)


def _cautious(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))


def digest(data: bytes) -> bytes:
    """The 32 bytes content is known by: SHA-256, which processors have in hardware."""
    return hashlib.sha256(data).digest()


def digest_of(file: BinaryIO, alive: Callable[[], object]) -> bytes:
    """The digest of a file that need not fit into memory; `alive` is called as it goes on."""
    file.seek(0)
    sha256 = hashlib.sha256()
    while block := file.read(_BLOCK):
        sha256.update(block)
        alive()
    return sha256.digest()


def describe(error: OSError) -> str:
    """What the system said, in its own words, without the path."""
    return os.strerror(error.errno) if error.errno else str(error)


def vanished(error: OSError) -> bool:
    """True when the error says that the file is not there, rather than not readable."""
    return error.errno in (errno.ENOENT, errno.ENOTDIR)


def display(path: bytes | str) -> str:
    """A path as a person may safely see it: control and bidirectional marks are escaped."""
    raw = path if isinstance(path, bytes) else path.encode("utf-8", "surrogateescape")
    text = raw.decode("utf-8", "surrogateescape")  # whatever the locale says
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def well_formed(text: str) -> str:
    """A string that is valid Unicode: bytes smuggled in as surrogates are read as UTF-8.

    Under a locale that is not UTF-8 every argument and file name comes with such surrogates.
    """
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return text.encode("utf-8", "replace").decode("utf-8")


def _escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as os.fsdecode smuggles it
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")
