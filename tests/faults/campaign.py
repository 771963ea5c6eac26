"""What an indexing run must have left behind, whatever happened to it: the oracle.

The pictures are five: four of their own, a copy, and a sixth file that is cut short and
so can never be indexed. Batches are of two files, so that a run has several commits.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

import mmsearch

from .harness import SYNCS, Change, Outcome, Preload, log_of, read_log

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"MMSEARCH_WORKERS": "1", "MMSEARCH_BATCH": "2", "OPENBLAS_NUM_THREADS": "1"}
BATCH = 2
BROKEN = b"z-cut.png"
_ACKNOWLEDGED = re.compile(r"^indexed (\d+) of (\d+)", re.MULTILINE)


def make_pictures(folder: Path) -> Path:
    """Five pictures and one that is cut short, each a few hundred bytes."""
    folder.mkdir(parents=True)
    colours = {"a-red": (200, 30, 30), "b-green": (30, 180, 40), "c-blue": (30, 40, 200)}
    for size, (name, colour) in enumerate(colours.items(), start=64):
        picture = Image.new("RGB", (size, 64), colour)
        picture.paste((250, 250, 250), (8 * (size - 60), 10, 40, 50))
        picture.save(folder / f"{name}.png")
    Image.linear_gradient("L").resize((80, 80)).save(folder / "d-grey.jpg")
    shutil.copy(folder / "a-red.png", folder / "e-copy-of-a.png")
    whole = (folder / "c-blue.png").read_bytes()
    (folder / os.fsdecode(BROKEN)).write_bytes(whole[: len(whole) * 2 // 3])
    return folder


@dataclass(frozen=True)
class Stored:
    """One file as the catalog has it."""

    size: int
    digest: bytes
    vector: tuple[float, ...]

    def like(self, other: Stored) -> bool:
        """The same bytes, and the same vector by value."""
        same = (self.size, self.digest) == (other.size, other.digest)
        return same and np.allclose(self.vector, other.vector, rtol=0, atol=2e-3)


def stored(index: Path) -> dict[bytes, Stored]:
    """What SQLite itself finds in a copy of library.db and its log, by file name."""
    rows: list[tuple[bytes, int, bytes, bytes]] = []
    with tempfile.TemporaryDirectory() as copy:
        for name in ("library.db", "library.db-wal", "library.db-journal"):
            if (index / name).exists():
                shutil.copy(index / name, copy)
        if not (Path(copy) / "library.db").exists():
            return {}
        with closing(sqlite3.connect(Path(copy) / "library.db")) as database:
            assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
            assert database.execute("pragma foreign_key_check").fetchall() == []
            rows = database.execute(
                "select files.name, files.size, contents.digest, vectors.data from items"
                " join files on files.id = items.file_id"
                " join contents on contents.id = files.content_id"
                " left join vectors on vectors.content_id = contents.id"
                " where files.gone_at is null"
            ).fetchall()
            indexed = "select count(*) from files where content_id is not null and gone_at is null"
            assert database.execute(indexed).fetchone() == (len(rows),), "a file without its item"
            alone = "select count(*) from contents where id not in (select content_id from files)"
            assert database.execute(alone).fetchone() == (0,), "half of a batch: content, no file"
    names = [name for name, *_ in rows]
    assert len(names) == len(set(names)), f"a file is there twice: {names}"
    for name, _, _, vector in rows:
        assert vector is not None, f"{name!r} has no vector"
    return {
        name: Stored(size, digest, tuple(np.frombuffer(vector, "<f2").astype(float).tolist()))
        for name, size, digest, vector in rows
    }


def acknowledged(outcome: Outcome) -> list[int]:
    """How many files were reported as indexed, line by line."""
    return [int(count) for count, _ in _ACKNOWLEDGED.findall(outcome.err)]


def complaints(outcome: Outcome) -> list[str]:
    """What was said on standard error besides progress."""
    return [line for line in outcome.err.splitlines() if not _ACKNOWLEDGED.match(line)]


@dataclass
class Campaign:
    """Indexing the pictures on a disk that fails, and judging what is left."""

    preload: Preload
    folder: Path
    pictures: Path
    clean: dict[bytes, Stored] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)  # of an undisturbed run, in order
    files: set[str] = field(default_factory=set)  # what it leaves in the library's folder
    commits: list[int] = field(default_factory=list)  # files indexed after each commit, from 0

    def __post_init__(self) -> None:
        self._idle: deque[Zygote] = deque()
        self._new = threading.Lock()
        self._began: dict[int, float] = {}

    def measure(self) -> None:
        """The undisturbed run that all others are held against."""
        for _ in range(5):
            index = self.fresh("clean")
            outcome = self.index(index)
            if not outcome.slow:
                break
        assert outcome.code == 3, f"the broken picture makes it 3: {outcome}"
        assert complaints(outcome) == []
        self.clean, self.changes = stored(index), outcome.changes
        assert set(self.clean) | {BROKEN} == {os.fsencode(p.name) for p in self.pictures.iterdir()}
        self.files = _files(index)
        self.commits = [0, *acknowledged(outcome)]
        assert self.commits == [0, 2, 4, 5]

    # -- running -----------------------------------------------------------------------

    def fresh(self, name: str) -> Path:
        """A place for a library that is not there yet."""
        index = self.folder / name
        shutil.rmtree(index, ignore_errors=True)
        return index

    def arguments(self, index: Path, *photos: Path) -> list[str]:
        """Of `mmsearch`, to index the pictures, or others."""
        folders = [str(folder) for folder in photos or [self.pictures]]
        return ["index", *folders, "--index", str(index), "--json"]

    def command(self, index: Path, *photos: Path) -> list[str]:
        """The same as a program of its own."""
        return [sys.executable, "-m", "mmsearch", *self.arguments(index, *photos)]

    def index(self, index: Path, mode: str = "count", at: int = 0) -> Outcome:
        """One indexing run whose `at`-th change below the library's folder goes wrong."""
        return self.run(self.arguments(index), index, mode, at)

    def run(self, arguments: Sequence[str], index: Path, mode: str, at: int) -> Outcome:
        """One run of any command."""
        with self._zygote() as zygote:
            return zygote.run(arguments, index, mode, at)

    def stopped(
        self, index: Path, at: int, *photos: Path, **settings: str
    ) -> subprocess.Popen[str]:
        """An indexing run as a program of its own, waiting before its `at`-th change."""
        command, began = self.command(index, *photos), time.monotonic()
        process = self.preload.start(command, index, "stop", at, **SETTINGS | settings)
        self._began[process.pid] = began
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), f"it ended before its change {at}"
        return process

    def ended(self, index: Path, process: subprocess.Popen[str]) -> Outcome:
        """How such a run ended."""
        try:
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
        seconds = time.monotonic() - self._began.pop(process.pid)
        return Outcome(process.returncode, out, err, read_log(log_of(index)), seconds)

    def first(self, call: str, path: str) -> int:
        """The number of the first such change of an undisturbed run."""
        return next(c.n for c in self.changes if (c.call, c.path) == (call, path))

    @property
    def commits_at(self) -> list[int]:
        """The syncs that commit a batch: the last three of the log before those that keep the
        pictures' hubness and make the cache.
        """
        before = self.first("mkdir", "/cache")
        syncs = [c.n for c in self.changes if c.call == "fdatasync" and c.path == "/library.db-wal"]
        return [n for n in syncs if n < before][-len(self.commits) : -1]

    @contextmanager
    def _zygote(self) -> Iterator[Zygote]:
        with self._new:
            calls = ["campaigns.stand_ins:remembering"]
            zygote = self._idle.pop() if self._idle else Zygote(self.preload, self.folder, calls)
        yield zygote  # one whose run failed to end is not handed out again
        self._idle.append(zygote)

    def close(self) -> None:
        """End the processes."""
        while self._idle:
            self._idle.pop().close()

    @property
    def last_commit(self) -> int:
        """The sync that commits the record of the cache; what follows is SQLite closing."""
        cached = max(c.n for c in self.changes if c.path.startswith("/cache"))
        return next(c.n for c in self.changes if c.n > cached and c.call in SYNCS)

    # -- judging -----------------------------------------------------------------------

    def judge(self, index: Path, outcome: Outcome) -> dict[bytes, Stored]:
        """Acknowledged files are there once with their vectors; a batch is there or not."""
        have = stored(index)
        promised = max(acknowledged(outcome), default=0)
        following = [count for count in self.commits if count > promised][:1]
        if outcome.slow:
            following = list(range(promised, promised + BATCH + 1))
        assert len(have) in {promised, *following}, f"{promised} promised, {len(have)} there"
        for name, file in have.items():
            assert file.like(self.clean[name]), f"{name!r} is not what it was"
        return have

    def judge_refused(self, index: Path, outcome: Outcome, says: str) -> None:
        """It ended with 1 and one line that names the place; or nothing that matters failed.

        SQLite keeps to itself what it can make good: a folder that cannot be synced, and the
        copying of the log into the file when it closes, which leaves the log in place. So
        does mmsearch about files that it need not remove.
        """
        assert outcome.struck, "nothing was struck"
        assert "Traceback" not in outcome.err
        if outcome.code == 1:
            assert len(complaints(outcome)) == 1
            assert says in complaints(outcome)[0] and str(index) in complaints(outcome)[0]
            self.judge(index, outcome)
            return
        assert outcome.code == 3 and complaints(outcome) == []
        struck = outcome.struck[0]
        closing = struck.n > self.last_commit
        assert closing or struck.path == "" or struck.call == "unlink", struck
        assert set(stored(index)) == set(self.clean)

    def judge_searchable(self, index: Path, have: dict[bytes, Stored]) -> None:
        """The library says that it is sound and finds exactly what it has; or is not there."""
        with mmsearch.open_library(index) as library:
            if not (index / "library.db").exists() or not _has_space(index):
                refusal = "nothing is indexed"
            else:
                assert library.check() == []
                found = [os.fsencode(hit.path.name) for hit in library.query("red", k=50, all=True)]
                assert sorted(found) == sorted(have)
                return
            try:
                library.query("red")
            except mmsearch.MmsearchError as error:
                assert refusal in str(error)
            else:
                raise AssertionError("a library that holds nothing answered")

    def judge_resumed(self, index: Path) -> None:
        """Indexing again, undisturbed, gives what an undisturbed run gives, and no more files."""
        outcome = self.index(index)
        # 3 in the run that tries the broken picture; it is not tried again in a later one
        assert outcome.code in {0, 3} and complaints(outcome) == [], outcome
        have = stored(index)
        assert set(have) == set(self.clean)
        assert all(file.like(self.clean[name]) for name, file in have.items())
        self.judge_searchable(index, have)
        problems = _refused(index)
        assert [name for name, _ in problems] == [BROKEN]
        assert _lasting(_files(index)) == _lasting(self.files)
        shutil.rmtree(index)


class Zygote:
    """One process of zygote.py; `calls` name functions that it calls first."""

    def __init__(
        self, preload: Preload, folder: Path, calls: Sequence[str] = (), patience: float = 120
    ) -> None:
        self._patience = patience
        self._scratch = Path(tempfile.mkdtemp(dir=folder))
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.zygote", *calls],
            cwd=ROOT,
            env=os.environ
            | SETTINGS
            | preload.environment()
            | {"REMEMBERED": str(folder / "remembered")}
            | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(_package_parent())])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._preload = preload
        assert self._answer() == "ready"

    def run(
        self,
        arguments: Sequence[str],
        folder: Path,
        mode: str,
        at: int,
        calls: Sequence[str] = (),
        kill_after: float | None = None,
        **settings: str,
    ) -> Outcome:
        """One run of the command line; `calls` name functions that its process calls first, and
        after `kill_after` seconds it is killed.
        """
        log = log_of(folder)
        log.unlink(missing_ok=True)
        out, err = self._scratch / "out", self._scratch / "err"
        for said in (out, err):  # one that is killed at once leaves what the run before it said
            said.write_bytes(b"")
        faults = self._preload.environment(folder, mode, at, log)
        question = {
            "arguments": list(arguments),
            "environment": faults | settings,
            "calls": list(calls),
            "out": str(out),
            "err": str(err),
        } | ({} if kill_after is None else {"kill_after": kill_after})
        began = time.monotonic()
        assert self._process.stdin
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()
        code = int(self._answer())
        seconds = time.monotonic() - began
        return Outcome(code, out.read_text(), err.read_text(), read_log(log), seconds)

    def _answer(self) -> str:
        # a run that hangs is ended, with all of its workers, and fails its test
        watch = threading.Timer(
            self._patience, lambda: os.killpg(self._process.pid, signal.SIGKILL)
        )
        watch.start()
        try:
            assert self._process.stdout
            answer = self._process.stdout.readline().decode().strip()
        finally:
            watch.cancel()
        assert answer, f"the run did not end within {self._patience:g} seconds"
        return answer

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def _package_parent() -> Path:
    depth = len((__package__ or "").split("."))
    return Path(__file__).resolve().parents[depth]


def _files(index: Path) -> set[str]:
    return {str(path.relative_to(index)) for path in index.rglob("*") if path.is_file()}


def _lasting(names: set[str]) -> list[str]:
    """Without the two files that SQLite keeps while, and a reader leaves when, it is open.

    Names of caches carry a generation, which counts how often they were written.
    """
    passing = {"library.db-wal", "library.db-shm"}
    return sorted(re.sub(r"-\d+\.matrix$", "-N.matrix", name) for name in names - passing)


def _has_space(index: Path) -> bool:
    with tempfile.TemporaryDirectory() as copy:
        for name in ("library.db", "library.db-wal", "library.db-journal"):
            if (index / name).exists():
                shutil.copy(index / name, copy)
        with closing(sqlite3.connect(Path(copy) / "library.db")) as database:
            return bool(database.execute("select 1 from spaces").fetchall())


def _refused(index: Path) -> list[tuple[bytes, str]]:
    with mmsearch.open_library(index) as library:
        return [(os.fsencode(f.path.name), str(f.reason)) for f in library.errors()]
