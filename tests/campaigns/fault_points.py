"""Every write point of every command, with the disk failing there: nothing acknowledged is lost.

    PYTHONPATH=tests python -m campaigns.fault_points --size 10000

Rows 1 to 6 of the table of failures, for whatever writes to a library. A scenario (scenarios.py) is
run undisturbed once: its changes to the disk are numbered, and the states of the library that it
commits are known from a replay of them. Then it is run again for every change and every fault that
fits it: killed before it, killed after half of a write, an error once, an error from then on, a
full disk from then on. After each

- the library is in one of those states, whole, no older than what was reported;
- the program ended as it should: killed, or with 1 and one line that names the place, or well,
  when what failed did not matter;
- `check` finds nothing that the next run does not mend, and answers are those of arithmetic;
- the same command, given again, and `mmsearch index` after it, leave what they leave undisturbed.

The runs are the real command line, with its imports shared by fork and stand_ins.py in the place of
the model. Batches, pictures and words differ from seed to seed, and so do the points.
"""

from __future__ import annotations

import copy
import gc
import random
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from campaigns import oracle, stand_ins
from campaigns.disk import Disk, Model, read_trace
from campaigns.power_cuts import Promise, write
from campaigns.report import Report, arguments, reported
from campaigns.scenarios import INDEX, SCENARIOS, Place, Scenario
from faults.campaign import Zygote, acknowledged, complaints
from faults.harness import NEED_ROOM, SYNCS, WRITES, Change, Outcome, build

import mmsearch

MODES = ("kill", "torn", "eio-once", "eio-forever", "enospc-forever", "fsync-once")
FITS = {"torn": WRITES, "enospc-forever": NEED_ROOM, "fsync-once": SYNCS}


@dataclass
class Bench:
    """One scenario, prepared: a library to begin from, and what becomes of it undisturbed."""

    scenario: Scenario
    place: Place
    scratch: Path
    states: list[oracle.Contents] = field(default_factory=list)  # committed, in order
    promised: dict[Promise, int] = field(default_factory=dict)  # the state that a report is of
    changes: list[Change] = field(default_factory=list)
    code: int = 0
    notes: list[str] = field(default_factory=list)  # what is said undisturbed, too
    last: oracle.Contents = field(default_factory=dict)  # after all, and `mmsearch index`
    files: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scenario.prepare(self.place)
        self.start = self.place.folder / "start"
        shutil.copytree(self.place.disk, self.start)
        before = Disk([], self.place.disk)
        trace = self.place.folder / "trace"
        command = self.scenario.commands[0]
        outcome = self.place.run(*command, FAULT_TRACE=str(trace))
        self.code, self.changes = outcome.code, outcome.changes
        assert outcome.code in (0, 3), outcome
        self.notes = complaints(outcome)
        disk = copy.deepcopy(before)
        disk.ops = read_trace(trace)
        self._replay(disk)
        assert self.again() == []
        self.last = self._stored()
        self.files = oracle.names(self.library)

    @property
    def library(self) -> Path:
        """The one that is written to."""
        return self.place.disk / self.scenario.judged

    def _replay(self, disk: Disk) -> None:
        """Find the states that were committed, and which one each report is of."""
        seen: dict[bytes, oracle.Contents] = {}
        after: list[int] = []
        for count in range(len(disk.ops) + 1):
            disk.run(count)
            state = disk.lost(Model.POSIX).everything()
            if (key := state.key()) not in seen:
                write(state, disk, self.scratch / "replay")
                library = self.scratch / "replay" / self.scenario.judged
                seen[key] = oracle.stored(library, self.scratch / "copy")
            if not self.states or seen[key] != self.states[-1]:
                self.states.append(seen[key])
            after.append(len(self.states) - 1)
        for number, op in enumerate(disk.ops, start=1):
            if op.call == "out":
                self.promised.setdefault(("done", 0, 0), after[number])
            if op.call == "err":
                for count in acknowledged(Outcome(0, "", op.data.decode(), [], 0)):
                    self.promised.setdefault(("so far", 0, count), after[number])

    def points(self) -> Iterator[tuple[str, int]]:
        """Every fault at every change that it fits."""
        for change in self.changes:
            for mode in MODES:
                if change.call in FITS.get(mode, (change.call,)):
                    yield mode, change.n

    def reset(self) -> None:
        """The library as it was before."""
        shutil.rmtree(self.place.disk)
        shutil.copytree(self.start, self.place.disk)

    def again(self) -> list[str]:
        """Give the command again, and then index; what was wrong with that."""
        found = []
        for command in dict.fromkeys((self.scenario.last, INDEX)):
            outcome = self.place.run(*command)
            said = self._said(outcome)
            # what is forgotten already cannot be forgotten again
            known = command is not INDEX and outcome.code == 2 and "not in the library" in said[0]
            if (said or outcome.code not in (0, 3)) and not known:
                found.append(f"again: {outcome.code} {outcome.err} {outcome.out[:200]}")
        return found

    def _stored(self) -> oracle.Contents:
        return oracle.stored(self.library, self.scratch / "copy")

    def trial(self, mode: str, at: int) -> list[str]:
        """One run with one fault; what is wrong afterwards."""
        self.reset()
        outcome = self.place.run(*self.scenario.commands[0], mode=mode, at=at)
        if not outcome.struck:
            return [f"nothing was struck: {outcome.code} {outcome.err}"]
        try:
            found = [*self._ended(mode, outcome), *self._state(outcome), *self._searched()]
            found += self.again()
            after = self._stored()
        except (AssertionError, mmsearch.MmsearchError) as error:
            return [f"{type(error).__name__}: {error}"]
        if after != self.last:
            found.append("the next run gives another library than an undisturbed one")
        if (left := oracle.names(self.library)) != self.files and not self.scenario.damaged:
            found.append(f"files left: {left}, not {self.files}")
        return [*found, *self._searched(sound=True)]

    def _ended(self, mode: str, outcome: Outcome) -> Iterator[str]:
        if "Traceback" in outcome.err:
            yield f"a traceback: {outcome.err[-300:]}"
        if mode in ("kill", "torn"):
            if outcome.code != -9:
                yield f"ended with {outcome.code}"
        elif outcome.code == 1:
            said = self._said(outcome)
            if len(said) != 1 or str(self.place.disk) not in said[0]:
                yield f"says {said}"
            elif mode == "enospc-forever" and not {"full", "space"} & set(said[0].split()):
                yield f"says nothing of a full disk: {said}"
        elif outcome.code != self.code or self._said(outcome):
            yield f"ended with {outcome.code} and {self._said(outcome)}"

    def _said(self, outcome: Outcome) -> list[str]:
        """What it complains of besides the notes of an undisturbed run."""
        return [line for line in complaints(outcome) if line not in self.notes]

    def _state(self, outcome: Outcome) -> Iterator[str]:
        have = self._stored()
        if have not in self.states:
            yield "a state that was never committed: half of something"
            return
        at = len(self.states) - 1 - self.states[::-1].index(have)
        said = [self.promised.get(("so far", 0, count), 0) for count in acknowledged(outcome)]
        if outcome.code == self.code and outcome.code >= 0:
            said.append(self.promised[("done", 0, 0)])
        if said and at < max(said):
            yield f"state {at} of {len(self.states)}, though {max(said)} had been reported"

    def _searched(self, *, sound: bool = False) -> Iterator[str]:
        """Answers against arithmetic; `sound`: nothing at all is to be wrong."""
        if not (self.library / "library.db").exists():
            return
        with closing(oracle.copied(self.library, self.scratch / "copy")) as database:
            if self.scenario.damaged and not sound:
                return
            if database.execute("select 1 from spaces").fetchone():
                with mmsearch.open_library(self.library) as library:
                    yield from oracle.complaints(library, database, cached=sound)


def campaign(size: int, seed: int, report: Report, scratch: Path, only: str | None = None) -> None:
    """Run all points of all scenarios, for one seed after another, until there were enough."""
    zygote = Zygote(build(scratch), scratch, ["campaigns.stand_ins:warmed"], 3600)
    gc.freeze()  # a tenth of a trial was looking through what was imported
    try:
        number = 0
        for turn in range(seed, seed + size):
            benches = {}
            for name in [only] if only else SCENARIOS:
                place = Place(scratch / name, zygote, random.Random(f"{name} {turn}"))
                benches[name] = Bench(SCENARIOS[name], place, scratch)
            for name, mode, at in shuffled(benches, turn):
                number += 1
                if number <= report.done:
                    continue
                for what in benches[name].trial(mode, at):
                    report.found(f"{name}, seed {turn}, {mode} at change {at}", what)
                report.count(mode, name)
                report.step(number)
                if number >= size:
                    return
    finally:
        zygote.close()


def shuffled(benches: dict[str, Bench], seed: int) -> list[tuple[str, str, int]]:
    """All points in another order, so that a run that is stopped has seen of everything."""
    found = [(name, *point) for name, bench in benches.items() for point in bench.points()]
    random.Random(seed).shuffle(found)
    return found


def main() -> int:
    """Run it from a command line."""
    parser = arguments(__doc__, "fault_points.json", 10_000)
    parser.add_argument("--scenario", choices=SCENARIOS)
    given = parser.parse_args()
    stand_ins.install()
    with reported("fault points", given) as (report, scratch):
        campaign(given.size, given.seed, report, scratch, given.scenario)
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
