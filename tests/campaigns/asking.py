"""Readers that ask a library without pause, and hold each answer against what it may show.

Who changes the library writes down, phase by phase, what may be found: by path the score before
and after. An answer then has each file once, with its score of before or of after, and never that
of before when an earlier answer of the phase had the other. Nothing may be refused, but in a phase
in which the library is damaged. random_kills.py starts them, each a process:

    PYTHONPATH=tests python -m campaigns.asking FOLDER SEED
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from campaigns import oracle, stand_ins
from campaigns.report import Report
from campaigns.two_writers import SETTINGS, Clock, Player

import mmsearch
from mmsearch.library import Library
from mmsearch.records import Modality

Answer = dict[str, float]  # scores by path

_WHEN = ("before", "after")
_FOUND = """
select folders.path || x'2f' || files.name, vectors.data from items
join files on files.id = items.file_id join folders on folders.id = files.folder_id
join vectors on vectors.content_id = files.content_id and vectors.part = items.part
where files.gone_at is null
"""


def expected(library: Path, scratch: Path) -> Answer:
    """The score that arithmetic gives each file that "red" can find."""
    query = stand_ins.encoder().encode(Modality.TEXT, ["red"])[0]
    with closing(oracle.copied(library, scratch)) as database:
        rows = database.execute(_FOUND).fetchall()
    return {
        os.fsdecode(path): float(np.frombuffer(data, "<f2").astype(np.float32) @ query)
        for path, data in rows
    }


class Phases:
    """What may be found in the library of a folder, for others to read."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._clock = folder, Clock(folder / "clock")
        self._number = 0

    def begin(self, before: Answer, after: Answer | None = None, *, damaged: bool = False) -> None:
        """From now on this, and nothing else when there is no `after`."""
        self._number += 1
        told = {"before": before, "after": before if after is None else after, "damaged": damaged}
        new = self._folder / "phase.new"
        new.write_text(json.dumps(told), encoding="utf-8")
        new.replace(self._folder / f"phase-{self._number}")
        self._clock.begin(self._number)

    @contextmanager
    def asked(self, count: int, report: Report, case: str) -> Iterator[None]:
        """Have so many readers ask meanwhile; what they saw goes to the report."""
        command = [sys.executable, "-m", "campaigns.asking", str(self._folder)]
        readers: list[subprocess.Popen[str]] = []
        try:
            for seed in range(count):
                readers.append(
                    subprocess.Popen(
                        [*command, str(seed)], env=os.environ | SETTINGS | _HERE,
                        text=True, stdout=subprocess.PIPE, start_new_session=True,
                    )
                )  # fmt: skip
            for reader in readers:
                assert reader.stdout and reader.stdout.readline() == "ready\n"
            yield
        finally:
            for reader in readers:
                reader.terminate()
            told = [json.loads(reader.communicate(timeout=300)[0] or "{}") for reader in readers]
            for one in told:
                counts = one.get("counts", {})
                counts.pop("findings", None)  # counted again below
                report.counts.update(counts)
                for what in one.get("findings", ["it said nothing"]):
                    report.found(f"{case}, a reader", what)


_HERE = {"PYTHONPATH": os.pathsep.join(map(str, Path(__file__).resolve().parents[1:3]))}


class Reader(Player):
    """One of them."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(folder, seed)
        self.kept = self.open()
        self._turned: tuple[int, set[str]] = (0, set())  # a phase, and what was new in it

    def turn(self) -> None:
        """One question; the phase may end while it is asked."""
        first = self.clock.begun
        try:
            if self.random.random() < 0.1:
                with self.open() as library:
                    answer = _ask(library)
                self.counts["libraries opened"] += 1
            else:
                answer = _ask(self.kept)
        except mmsearch.MmsearchError as error:
            if not any(phase["damaged"] for phase in self._since(first)):
                raise
            assert "repair" in str(error), error
            self.counts["refused for damage"] += 1
        else:
            self._hold(answer, first)
            self.counts["answers"] += 1
        time.sleep(self.random.uniform(0, 0.3))

    def _since(self, first: int) -> list[dict[str, Any]]:
        """The phases from this one on."""
        return [
            json.loads((self.index.parent / f"phase-{number}").read_text(encoding="utf-8"))
            for number in range(first, self.clock.begun + 1)
        ]

    def _hold(self, answer: Answer, first: int) -> None:
        phases = self._since(first)
        if any(phase["damaged"] for phase in phases):
            return
        turned = self._turned[1] if self._turned[0] == first and len(phases) == 1 else set()
        for path in set(answer).union(*(phase[when] for phase in phases for when in _WHEN)):
            score = answer.get(path)
            old, new = (
                any(_alike(score, phase[when].get(path)) for phase in phases) for when in _WHEN
            )
            assert old or new, f"{path}: {score}, not {[_of(phase, path) for phase in phases]}"
            assert new or path not in turned, f"{path} is again what it was"
            if new and not old:
                turned.add(path)
        self._turned = first, turned


def _ask(library: Library) -> Answer:
    hits = library.query("red", k=10_000, all=True, hybrid="off")
    answer = {str(hit.path): hit.score or 0.0 for hit in hits}
    assert len(answer) == len(hits), "a file twice in one answer"
    return answer


def _of(phase: dict[str, Any], path: str) -> list[float | None]:
    return [phase[when].get(path) for when in _WHEN]


def _alike(one: float | None, other: float | None) -> bool:
    return one is other if one is None or other is None else abs(one - other) < 1e-5


if __name__ == "__main__":
    stand_ins.install()
    reader = Reader(Path(sys.argv[1]), int(sys.argv[2]))
    print("ready", flush=True)
    reader.play(reader.turn)
