"""What a campaign reports: machine, date, commit, counts and findings, as JSON kept up to date."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import mmsearch

RESULTS = Path(__file__).with_name("results")
_EVERY = 20.0  # seconds between two writings
_MOST = 50  # findings kept word for word; all are counted


class Report:
    """Counts and findings of one campaign; `path` None keeps them in memory.

    With `resume` the counts that stand in the file are gone on from, and `done` tells how far
    they go: a campaign of the same seed begins there.
    """

    def __init__(
        self, name: str, seed: int, path: Path | None = None, *, resume: bool = False, **facts: Any
    ) -> None:
        self.path = path
        self.counts: Counter[str] = Counter()
        self.findings: list[dict[str, str]] = []
        self.done = 0
        self._facts = {"campaign": name, "seed": seed} | facts
        self.cpu_before = 0.0  # seconds of runs that this one goes on from
        self._began = _cpu_seconds()
        self._writer = os.getpid()  # Ctrl-C stops those that it forks, too
        self._written = time.monotonic()
        if resume and path and path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))
            if (before["campaign"], before["seed"]) == (name, seed):
                self.counts.update(before["counts"])
                self.findings = before["findings"]
                self.done, self.cpu_before = before["size"], before["cpu_seconds"]

    def fact(self, **facts: Any) -> None:
        """Note what is neither a count nor a finding."""
        self._facts |= facts

    def count(self, *names: str) -> None:
        """One more of each of these."""
        self.counts.update(names)

    def found(self, case: str, what: str) -> None:
        """Something that must not be."""
        self.counts["findings"] += 1
        if len(self.findings) < _MOST:
            self.findings.append({"case": case, "what": " ".join(what.split())[:600]})

    def step(self, done: int) -> None:
        """So far it is: written now and then."""
        self.done = done
        if time.monotonic() - self._written > _EVERY:
            self.write()

    @property
    def cpu_seconds(self) -> float:
        """Of this run, its children and the runs before it."""
        return self.cpu_before + _cpu_seconds() - self._began

    def as_dict(self) -> dict[str, Any]:
        """The whole of it."""
        return self._facts | {
            "size": self.done,
            "findings": self.findings,
            "counts": {name: self.counts[name] for name in sorted(self.counts)},
            "cpu_seconds": round(self.cpu_seconds, 1),
            "machine": machine(),
            "date": date.today().isoformat(),
            "commit": commit(),
            "mmsearch": mmsearch.__version__,
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
        }

    def write(self) -> None:
        """Put it into its file, whole or not at all."""
        self._written = time.monotonic()
        if self.path is not None and self._writer == os.getpid():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new = self.path.with_suffix(".new")
            new.write_text(json.dumps(self.as_dict(), indent=2) + "\n", encoding="utf-8")
            new.replace(self.path)


def arguments(about: str | None, file: str, size: int) -> argparse.ArgumentParser:
    """What each campaign can be told; `about` is its module's text, `file` its report's name."""
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=size)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, default=RESULTS / file)
    parser.add_argument("--resume", action="store_true", help="go on from what the report has")
    return parser


@contextmanager
def reported(name: str, given: argparse.Namespace, **facts: Any) -> Iterator[tuple[Report, Path]]:
    """A report that is written however the campaign ends, if it came to anything, and a folder in
    memory meanwhile.
    """
    stoppable()
    scratch = in_memory()
    resume = getattr(given, "resume", None)  # None: this campaign is all of one piece
    report = Report(name, given.seed, given.report, resume=bool(resume), **facts)
    try:
        yield report, scratch
    except KeyboardInterrupt:
        print("stopped" if resume is None else "stopped; --resume goes on", file=sys.stderr)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if report.done:
            report.write()


def in_memory() -> Path:
    """A new folder, in memory where there is one of that kind: a million files go through it."""
    there = os.path.isdir("/dev/shm") and os.access("/dev/shm", os.W_OK)
    return Path(mkdtemp(prefix="mmsearch-", dir="/dev/shm" if there else None))


def stoppable() -> None:
    """Have Ctrl-C and SIGTERM end a campaign with what it has, in the background as well."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def machine() -> str:
    """The processor and how many of its cores are here."""
    name = platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            name = next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        pass
    return f"{name}, {os.cpu_count()} cores"


def commit() -> str:
    """The commit of this checkout, "+" behind it where files differ from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    # a campaign writes its own results: they alone make no difference
    changed = git(
        "status", "--porcelain", "--", ":/mmsearch", ":/tests/faults", ":/tests/campaigns/*.py"
    )
    return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
