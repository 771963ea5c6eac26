"""The preloaded library itself, proved on small programs whose right answer is known."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from .harness import NEED_ROOM, SYNCS, WRITES, Outcome, Preload, for_each, sample

EVERY_CALL = """
import os, sys
d = sys.argv[1]
os.mkdir(d + "/m")
f = os.open(d + "/f", os.O_RDWR | os.O_CREAT, 0o600)
os.write(f, b"0123456789")
os.pwrite(f, b"ab", 2)
os.writev(f, [b"xy", b"z"])
os.pwritev(f, [b"uv", b"w"], 5)
os.ftruncate(f, 12)
os.truncate(d + "/f", 11)
os.posix_fallocate(f, 0, 16)
os.fsync(f)
os.fdatasync(f)
os.fchmod(f, 0o640)
os.chmod(d + "/f", 0o600)
g = os.open(d + "/g", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
os.lseek(f, 0, 0)
os.sendfile(g, f, 0, 4)
os.copy_file_range(f, g, 4)
os.close(os.open(d + "/g", os.O_WRONLY | os.O_CREAT))
os.close(os.open(d + "/g", os.O_WRONLY | os.O_TRUNC))
os.link(d + "/f", d + "/l")
os.symlink("f", d + "/s")
os.rename(d + "/l", d + "/k")
folder = os.open(d, os.O_RDONLY)
os.replace("k", "j", src_dir_fd=folder, dst_dir_fd=folder)
os.unlink("j", dir_fd=folder)
os.unlink(d + "/s")
os.rmdir(d + "/m")
os.chdir(d)
os.mkdir("n", dir_fd=folder)
open("h", "wb").write(b"1")
os.write(2, b"said\\n")
"""

LOGGED = """
mkdir /m; open-creat /f; write /f; pwrite /f; writev /f; pwritev /f; ftruncate /f; truncate /f;
fallocate /f; fsync /f; fdatasync /f; chmod /f; chmod /f; open-creat /g; sendfile /g;
copy_file_range /g; open-trunc /g; link /l; symlink /s; rename /k; rename /j; unlink /j;
unlink /s; rmdir /m; mkdir /n; open-creat /h; write /h
"""

COMMITS = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1] + "/t.db", isolation_level=None)
db.execute("pragma journal_mode = wal")
db.execute("pragma synchronous = full")
db.execute("create table if not exists t (n integer primary key, filling)")
for n in range(3):
    db.execute("insert or ignore into t values (?, ?)", (n, "x" * 5000))
    print(n, flush=True)
"""


def python(program: str, folder: Path) -> list[str]:
    return [sys.executable, "-I", "-c", program, str(folder)]


def empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def stored(folder: Path) -> list[int]:
    """The rows that the database holds once SQLite has recovered it."""
    database = sqlite3.connect(folder / "t.db")
    try:
        assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
        if not database.execute("select 1 from sqlite_master where name = 't'").fetchall():
            return []
        return [n for (n,) in database.execute("select n from t order by n")]
    finally:
        database.close()


def test_every_changing_call_is_counted_once(preload: Preload, tmp_path: Path) -> None:
    """Each kind of change below the folder is logged, in order; standard error is not."""
    outcome = preload.run(python(EVERY_CALL, tmp_path), empty(tmp_path / "d"))
    assert (outcome.code, outcome.changes) == (0, []), "a folder beside it counts nothing"
    outcome = preload.run(python(EVERY_CALL, tmp_path / "d"), tmp_path / "d")
    assert (outcome.code, outcome.err) == (0, "said\n")
    expected = [entry.strip() for entry in LOGGED.split(";")]
    assert expected == [f"{change.call} {change.path}" for change in outcome.changes]
    assert list(range(1, len(expected) + 1)) == [change.n for change in outcome.changes]
    assert (tmp_path / "d/f").read_bytes() == b"01ab4uvw89x" + bytes(5)


def test_each_mode_does_what_it_says(preload: Preload, tmp_path: Path) -> None:
    """kill comes before the change, torn leaves half of it, errors come once or for ever."""
    program = """
import os, sys
f = os.open(sys.argv[1] + "/f", os.O_WRONLY | os.O_CREAT)
for word in (b"abcd", b"efgh", b"ijkl"):
    try:
        os.write(f, word)
        os.fsync(f)
    except OSError as error:
        print(error.errno)
"""

    folder = tmp_path / "d"

    def run(mode: str, at: int) -> tuple[int, str, bytes]:
        empty(folder)
        outcome = preload.run(python(program, folder), folder, mode, at)
        written = (folder / "f").read_bytes() if (folder / "f").exists() else b"absent"
        return outcome.code, outcome.out, written

    assert run("count", 1) == (0, "", b"abcdefghijkl")
    assert run("kill", 1) == (-9, "", b"absent")
    assert run("kill", 2) == (-9, "", b"")
    assert run("kill", 4) == (-9, "", b"abcd")
    assert run("torn", 2) == (-9, "", b"ab")
    assert run("torn", 3) == (-9, "", b"abcdef"), "the third is a sync: the next write is torn"
    assert run("eio-once", 4) == (0, "5\n", b"abcdijkl")
    assert run("eio-forever", 4) == (0, "5\n5\n", b"abcd")
    assert run("enospc-forever", 3) == (0, "28\n28\n", b"abcd"), "a sync needs no room"
    assert run("fsync-once", 4) == (0, "5\n", b"abcdefghijkl")
    assert run("kill", 8) == (0, "", b"abcdefghijkl")

    process = preload.start(python(program, empty(folder)), folder, "stop", 4)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    assert (folder / "f").read_bytes() == b"abcd", "the fourth change waits"
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=60)
    assert (process.returncode, (folder / "f").read_bytes()) == (0, b"abcdefghijkl")


def test_opening_a_denied_path_fails(preload: Preload, tmp_path: Path) -> None:
    """FAULT_DENY holds for exactly the files and folders it names, even for root."""
    (tmp_path / "a").write_text("a")
    (tmp_path / "ab").write_text("ab")
    (tmp_path / "sub").mkdir()
    program = """
import os, sys
os.chdir(sys.argv[1])
for name in ("a", "./ab", "ab", os.path.abspath("a")):
    try:
        print(open(name).read())
    except OSError as error:
        print(error.errno)
for name in ("sub", "."):
    try:
        print(len(os.listdir(os.path.abspath(name))))
    except OSError as error:
        print(error.errno)
"""
    deny = [("EACCES", tmp_path / "a"), ("EIO", tmp_path / "sub")]
    ended = subprocess.run(
        python(program, tmp_path),
        env=preload.environment(deny=deny),
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.split() == ["13", "ab", "ab", "13", "5", "3"]


def test_sqlite_keeps_what_it_committed(preload: Preload, tmp_path: Path) -> None:
    """rows 1 to 4 on SQLite alone: the oracle finds no fault with a store known to be sound."""
    folder = empty(tmp_path / "count")
    counted = preload.run(python(COMMITS, folder), folder)
    assert (counted.code, stored(folder)) == (0, [0, 1, 2])
    calls = {change.call for change in counted.changes}
    assert calls & WRITES and calls & SYNCS and calls & NEED_ROOM

    def trial(case: tuple[str, int]) -> None:
        mode, at = case
        folder = empty(tmp_path / f"{mode}-{at}")
        outcome = preload.run(python(COMMITS, folder), folder, mode, at)
        assert outcome.struck, "nothing was struck"
        promised = [int(line) for line in outcome.out.split()]
        if mode in {"kill", "torn"}:
            assert outcome.code == -9
        after = stored(folder)
        assert after[: len(promised)] == promised
        assert len(after) <= len(promised) + 1
        again: Outcome = preload.run(python(COMMITS, folder), folder)
        assert (again.code, stored(folder)) == (0, [0, 1, 2])

    last = {"kill": lambda _: True, "torn": lambda c: c.call in WRITES}
    last |= {"eio-once": last["kill"], "enospc-forever": lambda c: c.call in NEED_ROOM}
    for_each(
        [
            (mode, n)
            for salt, (mode, fits) in enumerate(last.items())
            for n in sample([change.n for change in counted.changes if fits(change)], 4, salt)
        ],
        trial,
    )
