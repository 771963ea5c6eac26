"""What the parts of `indexing.py` share: the bars, photos, a library of them, and a row each."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import kept
from measuring import CLI, Cost, run


@dataclass(frozen=True, slots=True)
class Bars:
    """What this project asks of itself."""

    cpu_a_photo: float = 0.010  # seconds, every process counted
    memory: float = 1000.0  # MB, all processes together
    again_a_file: float = 20.0  # microseconds
    again: float = 1.0  # seconds, the whole process over 8,091 files
    query_cpu: float = 0.6  # seconds, the whole process
    help_cpu: float = 0.15
    warm_query: float = 15.0  # milliseconds


BARS = Bars()


@dataclass(slots=True)
class Row:
    """A line of the table. `met` None: a figure without a bar."""

    bar: str
    measured: str
    beside: str
    met: bool | None = None


@dataclass
class Bench:
    """Where things are, how often to measure, and what was found: a part a key of `raw`."""

    photos: Path
    work: Path  # empty, removed at the end
    out: Path
    repeat: int
    rounds: int
    rows: int
    scale: int
    raw: dict[str, Any]
    table: list[Row] = field(default_factory=list)  # of the part that is being measured
    problems: list[str] = field(default_factory=list)

    @property
    def place(self) -> Path:
        """Where the library of all photos is."""
        return self.work / "library"

    def library(self) -> Path:
        """The library of all photos, made where no part has made it."""
        if not self.place.exists():
            index(self.photos, self.place)
        return self.place

    def names(self) -> list[Path]:
        """The photos, in order."""
        return sorted(path for path in self.photos.iterdir() if path.is_file())

    def part(self, name: str, measure: Callable[[Bench], dict[str, Any]]) -> None:
        """Measure a part and write it, with its rows; one that was measured stays.

        An error in it is a line of the report, and the others still run.
        """
        if name in self.raw:
            self.problems += self.raw[name]["problems"]
            return
        print(f"{name} ...", file=sys.stderr, flush=True)
        self.table = []
        before, known = kept.moment(), len(self.problems)
        try:
            found = measure(self)
        except Exception as error:
            self.problems.append(f"{name}: {type(error).__name__}: {error}")
            return
        rows = [list(astuple(row)) for row in self.table]
        self.raw[name] = {**before, **found, "table": rows, "problems": self.problems[known:]}
        kept.write(self.out, self.raw)


def index(photos: Path, library: Path, *, watch: bool = False) -> Cost:
    """`mmsearch index`; 3 is its code for files that cannot be read, which count as well."""
    command = [*CLI, "index", str(photos), "--index", str(library), "--json"]
    return run(command, watch=watch, allowed=(0, 3))


def counts(report: dict[str, Any]) -> dict[str, int]:
    """A run's report in numbers alone: no results file names anybody's folders."""
    return {
        name: len(value) if isinstance(value, list) else int(value)
        for name, value in report.items()
        if isinstance(value, int | list)
    }


def per_item(work: Callable[[], Any], count: int) -> dict[str, float]:
    """CPU and wall seconds of this process, all its threads, an item."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {
        "cpu": (time.process_time() - cpu) / count,
        "wall": (time.perf_counter() - wall) / count,
    }
