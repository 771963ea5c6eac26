"""Running a program on a disk that fails on demand, and reading what it left behind."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

WRITES = frozenset({"write", "pwrite", "writev", "pwritev", "sendfile", "copy_file_range"})
SYNCS = frozenset({"fsync", "fdatasync"})
NEED_ROOM = WRITES | {"mkdir", "link", "symlink", "open-creat", "fallocate"}
ALL = os.environ.get("MMSEARCH_FAULTS") == "all"
SEED = 20240229


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the preloaded library's log: the n-th change, and the fault it met."""

    n: int
    pid: int
    call: str
    fault: str  # "-" for none
    path: str  # below the folder, "/library.db"; "" for the folder itself


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended, and what it had tried to change."""

    code: int
    out: str
    err: str
    changes: list[Change]
    seconds: float

    @property
    def slow(self) -> bool:
        """True when commits may have come by the clock (after 5 s) and not by the batch."""
        return self.seconds > 4.5

    @property
    def struck(self) -> list[Change]:
        """The changes that went wrong."""
        return [change for change in self.changes if change.fault != "-"]


@dataclass(frozen=True, slots=True)
class Preload:
    """The compiled library; see preload.c for the variables."""

    library: Path
    own: dict[str, str] = field(default_factory=dict)

    def environment(
        self,
        folder: Path | None = None,
        mode: str = "count",
        at: int = 0,
        log: Path | None = None,
        deny: Iterable[tuple[str, Path]] = (),
    ) -> dict[str, str]:
        """What to add to a program's environment; `at` counts from 1, 0 is never."""
        own = {"LD_PRELOAD": str(self.library), "FAULT_MODE": mode}
        if folder is not None:
            own["FAULT_DIR"] = os.path.realpath(folder)
        if at:
            own["FAULT_AT"] = str(at)
        if log is not None:
            own["FAULT_LOG"] = str(log)
        if deny:
            own["FAULT_DENY"] = "\n".join(f"{error}:{path}" for error, path in deny)
        return own

    def start(
        self,
        command: Sequence[str],
        folder: Path,
        mode: str = "count",
        at: int = 0,
        **environment: str,
    ) -> subprocess.Popen[str]:
        """Starts the command with the changes below `folder` counted and `mode` at the n-th."""
        faults = self.environment(folder, mode, at, _fresh_log(folder))
        return subprocess.Popen(
            command,
            env=os.environ | environment | faults,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self,
        command: Sequence[str],
        folder: Path,
        mode: str = "count",
        at: int = 0,
        **environment: str,
    ) -> Outcome:
        """`start`, and how it ended."""
        began = time.monotonic()
        process = self.start(command, folder, mode, at, **environment)
        try:
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
        seconds = time.monotonic() - began
        return Outcome(process.returncode, out, err, read_log(log_of(folder)), seconds)


def compiler() -> str | None:
    """The C compiler, if there is one."""
    return shutil.which(os.environ.get("CC", "cc"))


def build(folder: Path) -> Preload:
    """preload.c, compiled for this machine."""
    library = folder / "preload.so"
    source = Path(__file__).with_name("preload.c")
    command = [compiler() or "cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source)]
    made = subprocess.run([*command, "-ldl"], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return Preload(library)


def log_of(folder: Path) -> Path:
    """Where the changes to a folder are logged: beside it."""
    return folder.with_name(f"{folder.name}.log")


def _fresh_log(folder: Path) -> Path:
    log = log_of(folder)
    log.unlink(missing_ok=True)
    return log


def read_log(log: Path) -> list[Change]:
    """The changes a run made or tried, in order."""
    if not log.exists():
        return []
    changes = []
    for line in log.read_text(errors="surrogateescape").splitlines():
        n, pid, call, fault, path = line.split(" ", 4)
        changes.append(Change(int(n), int(pid), call, fault, path))
    return changes


def sample(numbers: Sequence[int], stride: int, salt: int) -> list[int]:
    """Every `stride`-th of the numbers from a seeded offset; all with MMSEARCH_FAULTS=all."""
    if ALL or stride <= 1:
        return list(numbers)
    return list(numbers[random.Random(SEED + salt).randrange(stride) :: stride])


Case = TypeVar("Case")


def for_each(cases: Iterable[Case], trial: Callable[[Case], None]) -> None:
    """Runs the trials two at a time; fails with every case that failed, not the first."""

    def attempt(case: Case) -> str | None:
        try:
            trial(case)
        except Exception as error:  # an assertion, or the trial's own breaking
            where = traceback.extract_tb(error.__traceback__)[-1]
            return f"{case}: {type(error).__name__} (line {where.lineno}): {error}"
        return None

    with ThreadPoolExecutor(2) as pool:
        failed = [said for said in pool.map(attempt, cases) if said is not None]
    assert not failed, f"{len(failed)} cases failed\n" + "\n".join(failed)
