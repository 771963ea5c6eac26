"""A million power cuts: what was acknowledged is there, and nothing is half there.

    PYTHONPATH=tests python -m campaigns.power_cuts --size 1000000

Row 7 of the table of failures. Every scenario (scenarios.py) is run once by the real command line
with each write, sync and rename traced, and then its power is cut: before any of its changes, with
what was not synced lost, torn at 512 bytes or reordered (disk.py has the two models of a file
system). What is left is opened:

- SQLite finds it sound, and in one of the states that the run had committed, whole, no older than
  what had been reported when the power went, no newer than what had been done;
- `check` finds nothing, answers are those of arithmetic, and, in a share of the cases, the next
  `mmsearch index` gives what it gives anywhere else;
- where a repair of the file system then damaged a file of the cache, `check` says so, and the
  answers are right all the same.

A commit whose sync fails is reported as failed, and nobody knows whether the disk has it: it may
come back at any later power cut, but whole.

Most draws give a state that was seen before: each distinct one is judged once, by its bytes. The
same with a failing sync, after which the same command is run again, and with eight bugs put in on
purpose (bugs.py), which must all be found.
"""

from __future__ import annotations

import copy
import hashlib
import os
import random
import re
import shutil
import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from campaigns import bugs, oracle, stand_ins
from campaigns.disk import Disk, Model, Op, State, read_trace
from campaigns.report import Report, arguments, reported
from campaigns.scenarios import SCENARIOS, Place, Scenario
from faults.campaign import Zygote
from faults.harness import SYNCS, Preload, build

import mmsearch
from mmsearch import engines, space

_PROGRESS = re.compile(rb"^indexed (\d+) of ", re.MULTILINE)
_DAMAGE = 0.02  # of the draws: a repaired file system has damaged a cache
_RESUMED = 0.05  # of the states that mmsearch judges: indexed again

Promise = tuple[str, int, int]  # what was reported: how, by which command, how many


@dataclass
class Recording:
    """One traced history."""

    scenario: Scenario
    name: str
    place: Place
    disk: Disk  # as it was before
    ops: list[Op]
    ends: list[int]  # operations made when each command had ended
    codes: list[int]
    digests: list[bytes] = field(default_factory=list)  # of every state, in order; b"" for none
    known: dict[bytes, oracle.Contents] = field(default_factory=dict)
    newest: list[int] = field(default_factory=list)  # after how many operations which state
    oldest: list[int] = field(default_factory=list)  # and which is promised

    def promises(self) -> dict[Promise, int]:
        """What was reported, and after how many operations."""
        found: dict[Promise, int] = {}
        command = 0
        for number, op in enumerate(self.ops, start=1):
            while number > self.ends[command]:
                command += 1
            if op.call == "out":
                found.setdefault(("done", command, 0), number)
            for count in _PROGRESS.findall(op.data) if op.call == "err" else ():
                found.setdefault(("so far", command, int(count)), number)
        return found


def record(
    scenario: Scenario, seed: int, folder: Path, zygote: Zygote, *,
    calls: tuple[str, ...] = (), fault: tuple[str, int] = ("count", 0),
) -> Recording:  # fmt: skip
    """Run a scenario and keep every change that it makes to the disk."""
    place = Place(folder, zygote, random.Random(seed))
    scenario.prepare(place)
    before = Disk([], place.disk)
    trace = folder / "trace"
    ends, codes = [], []
    # a command that a failing disk has ended is given once more
    again = scenario.commands if fault[1] else ()
    for number, command in enumerate((*scenario.commands, *again)):
        mode, at = fault if number == 0 else ("count", 0)
        batch = {"MMSEARCH_BATCH": str(place.batch), "FAULT_TRACE": str(trace)}
        outcome = zygote.run(place.arguments(command), place.disk, mode, at, calls, **batch)
        if "Traceback" in outcome.err:  # of a bug that was put in, too: it proves nothing then
            raise RuntimeError(outcome.err)
        codes.append(outcome.code)
        ends.append(len(read_trace(trace)))
    ops = read_trace(trace)
    return Recording(scenario, scenario.name, place, before, ops, ends, codes)


class Judge:
    """Looks at what a power cut has left, as SQLite, as mmsearch and as the next run."""

    def __init__(self, recording: Recording, scratch: Path, report: Report) -> None:
        self.recording = recording
        self._name = recording.scenario.judged
        self._library = scratch / "disk" / self._name
        self._copy = scratch / "copy"
        self._disk = scratch / "disk"
        self._report = report
        self._seen: dict[bytes, bytes | str] = {}
        self._judged: dict[bytes, str | None] = {}
        self._fresh: oracle.Contents | None = None
        self._random = random.Random(7)

    def look(self, state: State, disk: Disk) -> bytes | str:
        """The digest of the state of the library, or what is wrong with it."""
        key = state.key()
        if key not in self._seen:
            self._report.count("distinct states")
            self._seen[key] = self._looked(state, disk)
        return self._seen[key]

    def _looked(self, state: State, disk: Disk) -> bytes | str:
        path = f"/{self._name}/library.db"
        own = [file for file in state.files if file[0] in (path, f"{path}-wal", f"{path}-journal")]
        if not own or own[0][0] != path:
            return b""
        # SQLite would change what it opens: it has a copy, of what it looks at alone
        write(replace(state, files=tuple(own), folders=(f"/{self._name}",)), disk, self._copy)
        try:
            with closing(sqlite3.connect(self._copy / self._name / "library.db")) as database:
                (found,) = database.execute("pragma integrity_check").fetchone()
                if found != "ok":
                    return f"SQLite says {found}"
                digest = oracle.whole(database)
                if digest not in self.recording.known:
                    self.recording.known[digest] = oracle.contents(database)
                rest = [
                    (path, size, bytes(sectors.tobytes()))
                    for path, _, sectors, size in state.files
                    if not path.startswith(f"/{self._name}/library.db")
                ]
                told = digest + repr((rest, state.folders, state.damaged)).encode()
                deep = hashlib.blake2b(told, digest_size=16).digest()
                if deep not in self._judged:
                    self._report.count("distinct libraries")
                    write(state, disk, self._disk)
                    bad = self.recording.scenario.damaged and digest in self._first(digest)
                    self._judged[deep] = None if bad else self._wrong(state, database)
        except Exception as error:  # whatever it is, it is what this looks for
            return f"{type(error).__name__}: {error}"
        return self._judged[deep] or digest

    def _first(self, digest: bytes) -> list[bytes]:
        return self.recording.digests[:1] or [digest]

    def _wrong(self, state: State, database: Any) -> str | None:
        """What mmsearch does wrong with a library, or None."""
        inodes = {os.path.basename(path): node.inode for path, node, *_ in state.files}
        recorded = {
            file: {"inode": inode, "mtime_ns": mtime, "ctime_ns": ctime}
            for file, inode, mtime, ctime in database.execute(
                "select file, inode, mtime_ns, ctime_ns from caches where sha256 <> ''"
            )
        }

        def figures(path: str) -> dict[str, int]:
            """As the disk had them: what a reader trusts a file by. A repair changes the last."""
            name = os.path.basename(path)
            real = {"size": os.stat(path).st_size, "inode": inodes.get(name, 0)}
            dates = recorded.get(name, {"mtime_ns": 0, "ctime_ns": 0})
            changed = name == state.damaged
            return dates | real | ({"ctime_ns": dates["ctime_ns"] + 1} if changed else {})

        usual, engines.figures = engines.figures, figures
        try:
            if not database.execute("select 1 from spaces").fetchone():
                return None  # a run had only begun; the next one goes on
            with mmsearch.open_library(self._library) as library:
                used = state.damaged in recorded
                found = oracle.complaints(library, database, sound=not used)
                if used and library.check() == []:
                    found.append(f"{state.damaged} is damaged, and check does not say so")
                engines.figures = usual
                if not found and self._random.random() < _RESUMED:
                    self._report.count("indexed again")
                    found += self._resumed(library)
        finally:
            engines.figures = usual
        return "; ".join(found) or None

    def _resumed(self, library: mmsearch.library.Library) -> list[str]:
        """What is wrong after the next `mmsearch index`."""
        library.index(self.recording.place.photos)
        after = oracle.indexed(oracle.stored(self._library, self._copy))
        if self._fresh is None:
            elsewhere = mmsearch.open_library(self._disk / "fresh")
            elsewhere.index(self.recording.place.photos)
            self._fresh = oracle.indexed(oracle.stored(self._disk / "fresh", self._copy))
        found = library.check()
        if _unlabelled(after) != _unlabelled(self._fresh):
            found.append("the next run gives another library")
        return found


def write(state: State, disk: Disk, folder: Path) -> None:
    """Make the files of a state, in the place of what is there."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("", *state.folders):
        os.makedirs(f"{folder}{name}", exist_ok=True)
    for path, _, sectors, size in state.files:
        with open(f"{folder}{path}", "wb") as file:
            file.write(disk.sectors.bytes_of(sectors, size))


def _unlabelled(known: oracle.Contents) -> oracle.Contents:
    return {path: (*file[:6], *file[7:]) for path, file in known.items()}


def measure(recording: Recording, judge: Judge, required: dict[Promise, oracle.Contents]) -> None:
    """Find the states that the run committed, and which of them were promised from when on.

    `required` is what each report promises, as an undisturbed run of the right program has it.
    """
    disk = copy.deepcopy(recording.disk)
    disk.ops = recording.ops
    for count in range(len(recording.ops) + 1):
        disk.run(count)
        seen = judge.look(disk.lost(Model.POSIX).everything(), disk)
        if isinstance(seen, str):
            raise AssertionError(f"{recording.name}: {seen} without any loss")
        recording.known.setdefault(seen, {})
        if seen not in recording.digests:
            recording.digests.append(seen)
        newest = recording.digests.index(seen)
        if any(op.failed for op in recording.ops[:count]):
            newest = max(newest, recording.newest[-1])
        recording.newest.append(newest)
    promised = {number: promise for promise, number in recording.promises().items()}
    least = recording.newest[0]
    for count in range(len(recording.ops) + 1):
        if (promise := promised.get(count)) in required:
            least = max(least, _first(recording, required[promise], promise[0] == "done"))
        recording.oldest.append(least)


def _first(recording: Recording, needed: oracle.Contents, exactly: bool) -> int:
    """The first state with all that is needed in it; one that never was when there is none."""
    for number, digest in enumerate(recording.digests):
        have = recording.known[digest]
        if have == needed if exactly else needed.items() <= have.items():
            return number
    return len(recording.digests)


def required(recording: Recording) -> dict[Promise, oracle.Contents]:
    """What each report of this run promises: what had been done when it came."""
    return {
        promise: recording.known[recording.digests[recording.newest[number]]]
        for promise, number in recording.promises().items()
    }


def cut(
    recording: Recording, judge: Judge, report: Report, draws: int, seed: int, *,
    first_only: bool = False,
) -> None:  # fmt: skip
    """Cut the power about `draws` times, as evenly as may be over all moments and both models."""
    chance = random.Random(seed)
    moments = len(recording.ops) + 1
    each = max(1, round(draws / (2 * moments)))
    disk = copy.deepcopy(recording.disk)
    disk.ops = recording.ops
    for count in range(moments):
        disk.run(count)
        for model in Model:
            lost = disk.lost(model)
            for _ in range(1 if lost.certain else each):
                state = _damaged(lost.some(chance), chance)
                case = f"{recording.name}, {model.value}, after {count} of {moments - 1} changes"
                report.count("states", f"states: {model.value}", f"states: {recording.name}")
                seen = judge.look(state, disk)
                wrong = seen if isinstance(seen, str) else _misplaced(recording, seen, count)
                if wrong:
                    report.found(case, wrong)
                    if first_only:
                        return
        report.step(report.counts["states"])


def _misplaced(recording: Recording, digest: bytes, count: int) -> str | None:
    """What is wrong with finding this state after so many changes."""
    oldest, newest = recording.oldest[count], recording.newest[count]
    if digest not in recording.digests:
        return "a state that the run never had: half of something"
    at = recording.digests.index(digest)
    if at < oldest:
        return f"state {at} of {len(recording.digests)}, though {oldest} had been reported"
    return f"state {at}, before it was made" if at > newest else None


def _damaged(state: State, chance: random.Random) -> State:
    """Now and then with a sector of a cache zeroed, as a repair of the file system may do."""
    caches = [number for number, file in enumerate(state.files) if "/cache/" in file[0]]
    if not caches or chance.random() >= _DAMAGE:
        return state
    files = list(state.files)
    which = chance.choice(caches)
    path, node, sectors, size = files[which]
    used = np.flatnonzero(sectors)
    if not len(used):
        return state
    sectors = sectors.copy()
    sectors[chance.choice(used.tolist())] = 0
    files[which] = (path, node, sectors, size)
    return replace(state, files=tuple(files), damaged=os.path.basename(path))


class Campaign:
    """All scenarios, undisturbed and with failing syncs, and the eight bugs."""

    def __init__(self, report: Report, seed: int, scratch: Path) -> None:
        self.report = report
        self._seed = seed
        self._scratch = scratch
        self._required: dict[str, dict[Promise, oracle.Contents]] = {}
        self._preload: Preload = build(scratch)
        self.zygote = Zygote(self._preload, scratch, ["campaigns.stand_ins:warmed"], 3600)

    def histories(self) -> list[tuple[Scenario, tuple[str, int]]]:
        """Every scenario, and every one of its syncs that may fail."""
        found: list[tuple[Scenario, tuple[str, int]]] = []
        for scenario in SCENARIOS.values():
            place = Place(self._scratch / "syncs", self.zygote, random.Random(self._seed))
            scenario.prepare(place)
            outcome = place.run(*scenario.commands[0])
            syncs = [change.n for change in outcome.changes if change.call in SYNCS]
            found += [(scenario, ("count", 0))] + [(scenario, ("fsync-once", n)) for n in syncs]
        return sorted(found, key=lambda one: one[1][1] > 0)  # the undisturbed ones first

    def run(self, size: int) -> None:
        """Cut the power `size` times in all; what an earlier run has done is passed over."""
        histories = self.histories()
        plain = len(SCENARIOS)
        # half of the cuts are of undisturbed runs, half of those with a failing sync
        share = {True: size / 2 / plain, False: size / 2 / max(1, len(histories) - plain)}
        for number, (scenario, fault) in enumerate(histories):
            if number < self.report.counts["histories"]:
                continue
            recording, judge = self.prepared(scenario, fault)
            draws = max(1, round(share[fault[1] == 0]))
            done = self.report.counts["states"]
            while (left := draws - (self.report.counts["states"] - done)) > draws // 20:
                cut(recording, judge, self.report, left, self._seed * 1000 + left)
            self.report.count("histories")
            self.report.write()

    def prepared(
        self, scenario: Scenario, fault: tuple[str, int], calls: tuple[str, ...] = ()
    ) -> tuple[Recording, Judge]:
        """A history, recorded and measured against an undisturbed one."""
        if scenario.name not in self._required:
            clean = record(scenario, self._seed, self._scratch / "clean", self.zygote)
            measure(clean, Judge(clean, self._scratch / "judged", Report("", 0)), {})
            self._required[scenario.name] = required(clean)
        needed = dict(self._required[scenario.name])
        # a command that is given again promises what it would have the first time
        if fault[1]:
            needed |= {
                (how, 1 + at, n): what for (how, at, n), what in needed.items() if how == "done"
            }
        other = record(
            scenario, self._seed, self._scratch / "clean", self.zygote, calls=calls, fault=fault
        )
        other.name += f", sync at change {fault[1]} failed" if fault[1] else ""
        judge = Judge(other, self._scratch / "judged", self.report)
        measure(other, judge, needed)
        return other, judge

    def bug(self, name: str, draws: int) -> dict[str, Any]:
        """Whether a bug was found, after how many states, and as what."""
        tried = Report(name, self._seed)
        for scenario in bugs.BUGS[name].scenarios:
            self._with(SCENARIOS[scenario], bugs.BUGS[name], tried, draws)
            if tried.findings:
                break
        first = tried.findings[0] if tried.findings else None
        return {"caught": bool(first), "states": tried.counts["states"], "as": first}

    def _with(self, scenario: Scenario, bug: bugs.Bug, tried: Report, draws: int) -> None:
        calls = () if bug.reader else (f"campaigns.bugs:{bug.patch}",)
        fault = ("count", 0)
        if bug.mode != "count":
            place = Place(self._scratch / "syncs", self.zygote, random.Random(self._seed))
            scenario.prepare(place)
            changes = place.run(*scenario.commands[0]).changes
            at = next(c.n for c in changes if c.call in SYNCS and "matrix" in c.path)
            fault = (bug.mode, at)
        usual, self.report = self.report, tried
        kept = space.hash_file
        try:
            recording, judge = self.prepared(scenario, fault, calls)
            if bug.reader:
                getattr(bugs, bug.patch)()
            for turn in range(draws // (2 * len(recording.ops))):
                cut(recording, judge, tried, 1, turn, first_only=True)
                if tried.findings:
                    break
        except AssertionError as error:
            tried.found(scenario.name, str(error))
        finally:
            self.report, space.hash_file = usual, kept

    def close(self) -> None:
        """End the processes, and remove what was made."""
        self.zygote.close()
        shutil.rmtree(self._scratch, ignore_errors=True)


def main() -> int:
    """Run it from a command line."""
    given = arguments(__doc__, "power_cuts.json", 1_000_000).parse_args()
    stand_ins.install()
    with reported("power cuts", given) as (report, scratch):
        campaign = Campaign(report, given.seed, scratch)
        try:
            report.fact(bugs={name: campaign.bug(name, 4000) for name in bugs.BUGS})
            campaign.run(given.size)
        finally:
            campaign.close()
            report.step(report.counts["states"])
    missed = [name for name, one in report.as_dict()["bugs"].items() if not one["caught"]]
    return 1 if report.findings or missed else 0


if __name__ == "__main__":
    sys.exit(main())
