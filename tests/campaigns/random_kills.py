"""kill -9 at random moments, one after another, while readers ask: nothing acknowledged is lost.

    PYTHONPATH=tests python -m campaigns.random_kills --size 2000

Rows 1, 8 and 13 of the table of failures. A library lives through one command after another
(index, forget, label, repair, backup, check), and its pictures and texts change in between. Each
command first runs undisturbed on a copy, which tells how long it takes and what it leaves; then it
is killed on the library itself, up to four times in a row, each time at a moment drawn over that
length, and at last run to its end. After each kill

- every file is in the library once and whole, as it was before or as the undisturbed run has it,
  with words, vectors and labels of the same moment; `forget` and `repair` are done or not done;
- what was reported, a number of files or the end, is there; a backup is the earlier one or this;

and after the last run the library holds what the copy holds, in the same files, `check` finds it
sound and answers are those of arithmetic. All the while readers ask, with a library that stays
open or one opened for the question (asking.py): an answer has each file once, as it was before or
as it will be, with the right score, never one that had been replaced in an earlier answer; no error
at all, but where the library is damaged before `repair`.

Every tenth run is a program of its own with a worker process, killed soon after it has the lock:
the whole group of processes, or the program alone, whose worker has to end by itself. The others
are forked from one process that has paid for the imports, and decode in place. stand_ins.py is in
the place of the model.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from campaigns import asking, oracle, stand_ins
from campaigns.asking import Answer, Phases
from campaigns.report import Report, arguments, reported
from campaigns.scenarios import INDEX, Place
from campaigns.two_writers import SETTINGS
from faults.campaign import ROOT, Zygote, acknowledged, complaints
from faults.harness import Outcome, build

import mmsearch
from mmsearch.records import Modality

CHAIN = 40  # kills of one library
OWN = 10  # one kill in so many hits a program of its own
PROGRAM = (
    "from campaigns import stand_ins; stand_ins.install(in_place=False);"
    " from mmsearch.__main__ import main; main()"
)


@dataclass(frozen=True)
class Step:
    """A command, and what it may leave when it is cut off: one file changed and another not
    (`piecemeal`), or all of it or nothing. `damaged`: a library that is none before.
    """

    name: str
    command: tuple[str, ...]
    piecemeal: bool = False
    damaged: bool = False


@dataclass(frozen=True)
class Undisturbed:
    """What a command made of a copy: how it ended, the library before and after, and the backup
    of before.
    """

    outcome: Outcome
    before: oracle.Contents
    after: oracle.Contents
    saved: oracle.Contents


class Chain:
    """The life of one library."""

    def __init__(self, scratch: Path, zygote: Zygote, seed: str, report: Report) -> None:
        self.random = random.Random(seed)
        self.scratch, self.report, self.case = scratch, report, seed
        self.place = Place(scratch / "place", zygote, self.random)
        self.disk, self.twin = self.place.disk, self.place.folder / "twin"
        self.place.fill()
        assert self.place.run(*INDEX).code == 3
        assert self.place.run("backup", "{disk}/copy", "--index", "{index}").code == 0
        self.phases = Phases(self.disk)
        self.phases.begin(self._answer(self.disk))
        self.kills = self._runs = 0
        self._same = 0  # files that a change has written again as they were: nothing comes of these
        self._scores: dict[bytes, float] = {}

    # -- what is done ------------------------------------------------------------------

    def turn(self, most: int) -> Iterator[None]:
        """One command, undisturbed on a copy and killed, `most` times at most, on the library."""
        step = self._step()
        before, old = self._stored(self.disk), self._answer(self.disk)
        saved = oracle.stored(self.disk / "copy", self.scratch / "look")
        whole = self._tried(step)
        model = Undisturbed(whole, before, self._stored(self.twin), saved)
        new = self._answer(self.twin)
        self._embedded(new)
        self.phases.begin(old, new, damaged=step.damaged)
        for _ in range(min(most, self.random.randint(1, 4))):
            here = self._stored(self.disk)
            outcome = self._killed(step, whole.seconds)
            self._count(step, outcome, whole)
            for what in self._judged(step, outcome, model, here):
                self._found(step, what)
            yield
        last = self._run(step, self.disk)
        if not self._fits(last, whole):
            self._found(step, f"the last run: {last.code} {last.err}")
        if self._stored(self.disk) != model.after:
            self._found(step, "the next run gives another library than an undisturbed one")
        # where all was forgotten already, no one has tidied up
        if last.code != 2 and self._files(self.disk) != self._files(self.twin):
            self._found(step, f"files {self._files(self.disk)}, not {self._files(self.twin)}")
        self.phases.begin(new)
        with (
            closing(oracle.copied(self.place.index, self.scratch / "look")) as database,
            mmsearch.open_library(self.place.index) as library,
        ):
            for what in oracle.complaints(library, database):
                self._found(step, what)

    def _step(self) -> Step:
        """Change some files, and choose what is done about it."""
        chance = self.random
        self._same = 0
        index = Step("index", INDEX, piecemeal=True)
        kind = chance.choice(
            ["index"] * 8 + ["forget", "forget gone", "label", "repair", "backup", "cache", "check"]
        )
        if kind == "index":
            self._change()
            return index
        if kind == "forget":
            path = chance.choice(sorted(self._answer(self.disk)))
            return Step(kind, ("forget", path, "--index", "{index}"))
        if kind == "forget gone":
            old = self._answer(self.disk)
            away = [path for path in chance.sample(sorted(old), 2) if os.path.exists(path)]
            for path in away:
                os.unlink(path)
            self._tried(index)  # a caption whose picture is gone is a text of its own
            self.phases.begin(old, self._answer(self.twin))
            assert self.place.run(*INDEX).code in (0, 3)
            self.phases.begin(self._answer(self.disk))
            return Step(kind, ("forget", "--gone", "--index", "{index}"))
        if kind == "label":
            words = ",".join(chance.sample(("cat", "dog", "red", "lake"), 3))
            return Step(kind, ("label", "--vocab", words, "--index", "{index}"), piecemeal=True)
        if kind == "repair":
            self.phases.begin(self._answer(self.disk), damaged=True)
            with closing(sqlite3.connect(self.place.index / "library.db")) as database:
                ids = [id for (id,) in database.execute("select id from vectors order by id")]
                database.execute("update vectors set crc = crc + 1 where id = ?", ids[:1])
                database.commit()
            repair = ("repair", "--yes", "--index", "{index}")
            return Step(kind, repair, damaged=True)
        if kind == "backup":
            return Step(kind, ("backup", "{disk}/copy", "--force", "--index", "{index}"))
        if kind == "cache":
            shutil.rmtree(self.place.index / "cache", ignore_errors=True)
            return Step(kind, INDEX, piecemeal=True)
        return Step(kind, ("check", "--index", "{index}"))

    def _change(self) -> None:
        """New, changed, moved, copied and absent pictures; texts and captions."""
        chance, photos = self.random, self.place.photos
        before = self._on_disk()
        for _ in range(chance.randint(1, 5)):
            there = sorted(path.name for path in photos.glob("*.png"))
            number = chance.randint(0, 12)
            what = chance.choice(("new", "new", "new", "words", "caption", "away", "move", "copy"))
            if what == "new" or len(there) < 4:
                self.place.picture(f"n{number}.png")
            elif what == "words":
                self.place.words(f"t{number}.txt")
            elif what == "caption":
                self.place.words(f"{Path(chance.choice(there)).stem}.txt")
            elif what == "away":
                os.unlink(photos / chance.choice(there))
            elif what == "move":
                os.rename(photos / chance.choice(there), photos / f"m{number}.png")
            else:
                data = (photos / chance.choice(there)).read_bytes()
                (photos / f"c{number}.png").write_bytes(data)
        after = self._on_disk().items()
        self._same = sum(
            name in before and before[name][0] == data and before[name] != (data, *rest)
            for name, (data, *rest) in after
        )

    def _on_disk(self) -> dict[str, tuple[bytes, int, int]]:
        """By name the content of each file, when it was written, and its inode."""
        found = [(path, path.stat()) for path in self.place.photos.iterdir() if path.is_file()]
        return {p.name: (p.read_bytes(), at.st_mtime_ns, at.st_ino) for p, at in found}

    def _tried(self, step: Step) -> Outcome:
        """A run to the end on a copy of the library."""
        shutil.rmtree(self.twin, ignore_errors=True)
        shutil.copytree(self.disk, self.twin)
        whole = self._run(step, self.twin)
        assert whole.code in (0, 3), whole
        return whole

    def _killed(self, step: Step, seconds: float) -> Outcome:
        """A run that is killed, unless it has ended before."""
        self._runs += 1
        if self._runs % OWN or step.name in ("backup", "check"):  # these do not take the lock
            return self._run(step, self.disk, self.random.uniform(0, 1.1) * seconds)
        return self._killed_alone(self._given(step, self.disk))

    def _run(self, step: Step, disk: Path, kill_after: float | None = None) -> Outcome:
        given = self._given(step, disk)
        return self.place.zygote.run(given, disk, "count", 0, kill_after=kill_after, **self._)

    def _killed_alone(self, given: list[str]) -> Outcome:
        """The same of a program of its own, by its own clock."""
        environment = os.environ | SETTINGS | self._ | {"MMSEARCH_WORKERS": "1"}
        environment |= {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
        out, err = self.scratch / "out", self.scratch / "err"
        began = time.monotonic()
        with open(out, "wb") as to, open(err, "wb") as notes:
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *given], env=environment, cwd=ROOT,
                stdin=subprocess.DEVNULL, stdout=to, stderr=notes, start_new_session=True,
            )  # fmt: skip
        # until it has the lock it does nothing to the library
        while process.poll() is None and not _locked(self.place.index / "LOCK", process.pid):
            time.sleep(0.01)
        with suppress(subprocess.TimeoutExpired):
            process.wait(self.random.uniform(0, 0.6))
        group = self.random.random() < 0.5
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL) if group else process.kill()
        code = process.wait()
        if code == -signal.SIGKILL:
            self.report.count("programs killed " + ("with their workers" if group else "alone"))
        limit = time.monotonic() + 120
        while _alive(process.pid):
            if time.monotonic() > limit:
                os.killpg(process.pid, signal.SIGKILL)
                self.report.found(self.case, "a worker outlives its parent")
            time.sleep(0.01)
        seconds = time.monotonic() - began
        return Outcome(code, out.read_text(), err.read_text(errors="replace"), [], seconds)

    # -- how it is judged --------------------------------------------------------------

    def _judged(
        self, step: Step, outcome: Outcome, model: Undisturbed, here: oracle.Contents
    ) -> Iterator[str]:
        """What is wrong after a kill; `here` is what was there before that run."""
        before, after = model.before, model.after
        try:
            have = self._stored(self.disk)
            saved = oracle.stored(self.disk / "copy", self.scratch / "look")
        except AssertionError as error:
            yield f"not whole: {error}"
            return
        if step.piecemeal:
            for path in before.keys() | after.keys() | have.keys():
                right = have.get(path) in (before.get(path), after.get(path))
                if not right and not _found_elsewhere(path, before, have):
                    yield f"{path!r} is {have.get(path)}, was {before.get(path)}"
        elif have not in (before, after):
            yield "half of a command"
        if outcome.code >= 0:
            if not self._fits(outcome, model.outcome):
                yield f"ended with {outcome.code}: {outcome.err}"
            if have != after:
                yield "it ended, and not all of it is there"
        if step.command is INDEX:
            came = sum(have.get(path) == file != here.get(path) for path, file in after.items())
            if came + self._same < (promised := max(acknowledged(outcome), default=0)):
                yield f"{came} files came, though {promised} had been reported"
        if saved not in (model.saved, *([before] if step.name == "backup" else [])):
            yield "the backup is neither the earlier one nor this one"

    def _fits(self, outcome: Outcome, whole: Outcome) -> bool:
        """Whether it ended as the undisturbed run, or found that run's work done."""
        if outcome.code == 2 and "not in the library" in outcome.err:
            return True  # it is forgotten already
        said = [line for line in complaints(outcome) if line not in complaints(whole)]
        return outcome.code in (0, whole.code) and not said

    def _embedded(self, answer: Answer) -> None:
        """Hold the undisturbed run against what each picture's own embedding scores."""
        red = stand_ins.encoder().encode(Modality.TEXT, ["red"])[0]
        for name in filter(os.path.exists, answer):
            if name.endswith(".png"):
                digest = hashlib.sha256(Path(name).read_bytes()).digest()
                if digest not in self._scores:
                    self._scores[digest] = float(mmsearch.embed([name], modality="image")[0] @ red)
                wanted = self._scores[digest]
                assert abs(answer[name] - wanted) < 2e-3, f"{name}: {answer[name]}, not {wanted}"

    def _count(self, step: Step, outcome: Outcome, whole: Outcome) -> None:
        if outcome.code == -signal.SIGKILL:
            self.kills += 1
            self.report.count("kills", f"kills of {step.name}")
            if 0 < len(outcome.changes) < len(whole.changes):
                self.report.count("kills between two changes of the disk")
        else:
            self.report.count("ended before the kill")

    def _found(self, step: Step, what: str) -> None:
        self.report.found(f"chain {self.case}, kill {self.kills}, {step.name}", what)

    # -- what is there -----------------------------------------------------------------

    @property
    def _(self) -> dict[str, str]:
        return {"MMSEARCH_BATCH": str(self.place.batch)}

    def _given(self, step: Step, disk: Path) -> list[str]:
        paths = {"index": disk / "library", "photos": self.place.photos, "disk": disk}
        return [argument.format(**paths) for argument in step.command]

    def _stored(self, disk: Path) -> oracle.Contents:
        return oracle.stored(disk / "library", self.scratch / "look")

    def _answer(self, disk: Path) -> Answer:
        return asking.expected(disk / "library", self.scratch / "look")

    def _files(self, disk: Path) -> list[str]:
        """Those that last, but for what a repair has kept: each that comes to it keeps its own."""
        return [n for n in oracle.names(disk / "library") if not n.startswith("before-")]


def _found_elsewhere(path: bytes, before: oracle.Contents, have: oracle.Contents) -> bool:
    """Whether a file that was gone is known by another path now, where its content was found; a
    new file may take its old one later in the same run.
    """
    if path in have or path not in before or not before[path][3]:
        return False
    digest = before[path][1]
    return any(
        file[1] == digest and not file[3] and other not in before for other, file in have.items()
    )


def _locked(lock: Path, pid: int) -> bool:
    with suppress(OSError):
        return lock.read_text().startswith(f"pid {pid} ")
    return False


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def campaign(size: int, seed: int, report: Report, scratch: Path, readers: int = 2) -> None:
    """One chain after another, until there were enough kills."""
    zygote = Zygote(build(scratch), scratch, ["campaigns.stand_ins:warmed"], 3600)
    try:
        while report.done < size:
            begun = report.done
            chain = Chain(scratch, zygote, f"{seed} {begun}", report)
            with chain.phases.asked(readers, report, f"chain {chain.case}"):
                while (left := min(CHAIN, size - begun) - chain.kills) > 0:
                    for _ in chain.turn(left):
                        report.step(begun + chain.kills)
    finally:
        zygote.close()


def main() -> int:
    """Run it from a command line."""
    parser = arguments(__doc__, "random_kills.json", 2000)
    parser.add_argument("--readers", type=int, default=2)
    given = parser.parse_args()
    stand_ins.install()
    with reported("random kills", given, readers=given.readers) as (report, scratch):
        campaign(given.size, given.seed, report, scratch, given.readers)
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
