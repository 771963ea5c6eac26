"""Ten thousand files, one in twenty of them hostile: the good are indexed, the bad are named.

    PYTHONPATH=tests python -m campaigns.poison_folder --size 10000

Rows 29 to 53 of the table of failures. A folder of small pictures, texts and sounds gets hostile
files of all kinds of poisons/ spread over it, and is indexed by the real command line with the
built-in model. A finding is

- a good file that is not indexed, or that has another vector than without the hostile ones;
- a bad file that is not named, named for another reason than its kind has, or said more of than
  one line; anything else that is named; wrong counts;
- another exit code than 3, a traceback, something from outside of the folder;
- a run that takes over a tenth more CPU time than one over the good files alone. Both runs are
  made in turns, and the sums compared; by the clock as well, which other programs disturb.

The pictures are as small as can be, so that no decoding hides what the bad ones cost. A file may
take two seconds: a decoder that spins takes twice whatever is allowed, by design. A last turn with
the limit that users have, thirty seconds, says what that comes to; it has no bar.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from campaigns import poisons
from campaigns.report import RESULTS, Report, reported
from hostile import (
    EVIL,
    FAILED,
    INDEXED,
    SKIPPED,
    UNSEEN,
    Maker,
    as_a_person,
    exact_path,
    package_environment,
)

from mmsearch.settings import Settings

SHARE = 20  # one file in as many is hostile
SLOWER = 10.0  # percent of CPU time that the hostile ones may cost
_PER_FOLDER = 100
_TIMEOUT = 2.0  # seconds that a file may take
_USUAL = Settings().timeout

_ROWS = """
select cast(folders.path || x'2f' || files.name as blob), files.reason, vectors.data from files
join folders on folders.id = files.folder_id
left join vectors on vectors.content_id = files.content_id and vectors.part = 0
"""


@dataclass
class Run:
    """One `mmsearch index`: what it said, and what it took."""

    code: int
    report: dict[str, Any]
    errors: str
    cpu: float
    wall: float
    rows: dict[bytes, tuple[str | None, bytes | None]]  # by path: reason, first vector


@dataclass
class Folders:
    """The good files alone and, as further names of the same files, among the hostile ones."""

    base: Path
    size: int
    seed: int
    expected: dict[bytes, str] = field(default_factory=dict)  # below `mixed`
    good: list[bytes] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)

    @property
    def alone(self) -> Path:
        """Where the good ones are by themselves."""
        return self.base / "alone"

    @property
    def mixed(self) -> Path:
        """Where all are."""
        return self.base / "mixed"

    def make(self) -> None:
        """Write all files."""
        plan = self._plan()
        maker = Maker(os.fsencode(self.mixed), random.Random(self.seed))
        folders = max(1, self.size // _PER_FOLDER)
        (self.base / "secret.jpg").write_bytes(b"not below the folder")
        for number in range(self.size - len(plan)):
            poisons.good(maker, f"{number % folders:03}", number)
        self.good = list(maker.expected)
        for name in self.good:
            path = self.alone / os.fsdecode(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(maker.path(name), path)
        for number, kind in enumerate(plan):
            poisons.KINDS[kind](maker, f"{number * 7 % folders:03}", number)
        self.expected = maker.expected

    def _plan(self) -> list[str]:
        """The kinds of the hostile files, each as often as any other but for the costly ones."""
        others = [kind for kind in poisons.KINDS if kind not in poisons.COSTLY]
        left = max(self.size // SHARE - len(poisons.COSTLY), len(others))
        plan = [*poisons.COSTLY, *(others[number % len(others)] for number in range(left))]
        self.kinds = Counter(plan)
        random.Random(self.seed).shuffle(plan)
        return plan

    def renew(self) -> None:
        """Write anew what a run has changed or removed."""
        maker = Maker(os.fsencode(self.mixed), random.Random(self.seed))
        for name in list(self.expected):
            kind, _, number = os.path.splitext(os.path.basename(name))[0].rpartition(b"-")
            if kind.decode("latin-1") in poisons.MOVING:
                folder = os.path.dirname(name).decode()
                with suppress(FileNotFoundError):
                    os.unlink(maker.path(name))
                poisons.KINDS[kind.decode()](maker, folder, int(number))


def indexed(folder: Path, library: Path, home: Path, timeout: float) -> Run:
    """Index a folder into a new library, as a person who is not root."""
    shutil.rmtree(library, ignore_errors=True)
    environment = package_environment()
    environment = {k: v for k, v in environment.items() if not k.startswith("MMSEARCH_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(EVIL), environment["PYTHONPATH"]])
    environment |= {"MMSEARCH_TIMEOUT": f"{timeout:g}", "HOME": str(home)}
    command = [sys.executable, "-m", "mmsearch", "index", str(folder), "--json"]
    began = time.monotonic()
    with open(home / "out", "wb+") as out, open(home / "err", "wb+") as err:
        process = subprocess.Popen(
            [*command, "--index", str(library)], env=environment, cwd=home,
            stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            preexec_fn=as_a_person,  # noqa: PLW1509 - no thread runs here
        )  # fmt: skip
        _, status, used = os.wait4(process.pid, 0)  # with all that it waited for
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        said, errors = out.read(), err.read().decode(errors="replace")
    wall, cpu = time.monotonic() - began, used.ru_utime + used.ru_stime
    with closing(sqlite3.connect(library / "library.db")) as database:
        rows = {path: (reason, data) for path, reason, data in database.execute(_ROWS)}
    return Run(process.returncode, json.loads(said or b"{}"), errors, cpu, wall, rows)


def judge(folders: Folders, alone: Run, mixed: Run, report: Report) -> None:
    """Hold a run over all files against what must become of each, and against the other run."""
    if alone.code != 0 or mixed.code != 3:
        report.found("exit codes", f"{alone.code} and {mixed.code}, not 0 and 3")
    for run in (alone, mixed):
        if "Traceback" in run.errors or not run.report:
            report.found("stderr", run.errors[-500:])
    failed = {exact_path(row): row for row in mixed.report.get("failed", ())}
    root = os.fsencode(folders.mixed)
    fates = Counter(folders.expected.values())
    for name, becomes in folders.expected.items():
        path = os.path.join(root, name)
        row = failed.pop(path, None)
        reason, data = mixed.rows.get(path, (None, None))
        found = INDEXED if data else str(row["reason"]) if row else SKIPPED if reason else UNSEEN
        # what is no file is counted, but not remembered
        same = {found, FAILED} if row else {found, SKIPPED} if found == UNSEEN else {found}
        report.count(f"became {becomes}")
        if becomes not in same:
            report.found(repr(name), f"{found}, not {becomes}: {row and row['message']}")
        if row and (not row["message"] or "\n" in row["message"]):
            report.found(repr(name), f"named as {row['message']!r}")
    for path, row in failed.items():
        report.found(repr(path), f"{row['reason']}, though nobody expects it")
    for path in mixed.rows:
        if not path.startswith(root + b"/"):
            report.found(repr(path), "is not below the folder")
    counts = mixed.report["added"] + mixed.report["copied"], mixed.report["skipped"]
    if counts != (fates[INDEXED], fates[SKIPPED]):
        report.found("counts", f"{counts}, not {fates[INDEXED]} and {fates[SKIPPED]}")
    for name in folders.good:
        one = mixed.rows.get(os.path.join(root, name), (None, None))[1]
        other = alone.rows.get(os.path.join(os.fsencode(folders.alone), name), (None, None))[1]
        if not one or not other or _cosine(one, other) < 0.999:
            report.found(repr(name), "has another vector than without the hostile files")


def _cosine(one: bytes, other: bytes) -> float:
    a, b = (np.frombuffer(data, "<f2").astype(np.float32) for data in (one, other))
    return float(a @ b)


def campaign(
    size: int, seed: int, report: Report, scratch: Path, limits: Sequence[float] = (_TIMEOUT,)
) -> None:
    """Make the folders, and index them in turns, one for each limit of seconds that a file may
    take; each pair of runs is judged.
    """
    folders = Folders(scratch, size, seed)
    folders.make()
    report.fact(
        good=len(folders.good), hostile=len(folders.expected) - len(folders.good),
        kinds=dict(sorted(folders.kinds.items())),
    )  # fmt: skip
    took: dict[float, dict[str, list[float]]] = {limit: {} for limit in limits}
    for limit in limits:
        runs = []
        for name, folder in (("alone", folders.alone), ("mixed", folders.mixed)):
            folders.renew()
            run = indexed(folder, scratch / f"library-{name}", scratch, limit)
            took[limit].setdefault(f"{name}_cpu", []).append(round(run.cpu, 2))
            took[limit].setdefault(f"{name}_wall", []).append(round(run.wall, 2))
            runs.append(run)
        judge(folders, *runs, report)
    report.fact(
        limits={
            f"{limit:g} seconds": {"seconds": seconds, "slower_percent": _slower(seconds)}
            for limit, seconds in took.items()
        }
    )
    report.step(size)


def _slower(took: dict[str, list[float]]) -> dict[str, float]:
    return {
        clock: round(100 * sum(took[f"mixed_{clock}"]) / sum(took[f"alone_{clock}"]) - 100, 1)
        for clock in ("cpu", "wall")
    }


def main() -> int:
    """Run it from a command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--report", type=Path, default=RESULTS / "poison_folder.json")
    given = parser.parse_args()
    with reported("poison folder", given) as (report, scratch):
        campaign(given.size, given.seed, report, scratch, [_TIMEOUT] * given.turns + [_USUAL])
        slower = report.as_dict()["limits"][f"{_TIMEOUT:g} seconds"]["slower_percent"]["cpu"]
        if slower > SLOWER:
            report.found("CPU time", f"{slower} % more than without the hostile files")
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
