"""An hour of two writers, many readers and compaction: every answer is one state, none is mixed.

    PYTHONPATH=tests python -m campaigns.two_writers --seconds 3600

Rows 11 and 13 of the table of failures. One process moves a window over a row of pictures, one
picture a command: `index` takes the next one in, `forget` drops the last, writes the cache anew and
compacts the database. So every state of the library has a set of pictures of its own. Readers ask
without pause, with a library that stays open or one opened for the question: an answer has to be
one of the states between the last that was acknowledged before it was asked for and the last that
was begun when it came, never older than the reader's last, with the right score beside each
picture. A second writer tries the same library all the time: it is refused within a second with the
pid of the one who has the lock, or, when nobody has it, finds nothing to do.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import re
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from campaigns import stand_ins
from campaigns.report import RESULTS, Report, reported
from PIL import Image

import mmsearch
from mmsearch.errors import LibraryLocked
from mmsearch.records import Modality

PICTURES = 40
WIDTH = 5
KEPT = "kept.png"  # is in the library all the time
SETTINGS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_LOCKED = re.compile(r"is locked by pid (\d+) since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


def name_of(number: int) -> str:
    """The picture that stands at this place of the endless row."""
    return f"{number % PICTURES:02}.png"


def state(number: int) -> frozenset[str]:
    """What the library holds: at an even number a window, at an odd one the next one too."""
    first = number // 2
    window = (name_of(n) for n in range(first, first + WIDTH + number % 2))
    return frozenset([KEPT, *window])


class Clock:
    """How far the writer is, for all to see: the last state begun and the last acknowledged."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(16))
        with open(path, "r+b") as file:
            self._pages = mmap.mmap(file.fileno(), 16)

    def _get(self, at: int) -> int:
        return int(struct.unpack_from("<q", self._pages, at)[0])

    @property
    def begun(self) -> int:
        """The state that is being made."""
        return self._get(0)

    @property
    def done(self) -> int:
        """The state that was reported."""
        return self._get(8)

    def begin(self, number: int) -> None:
        """The writer's: what it does next."""
        struct.pack_into("<q", self._pages, 0, number)

    def end(self, number: int) -> None:
        """The writer's: it is done."""
        struct.pack_into("<q", self._pages, 8, number)


class Player:
    """One of the processes: it plays until it is told to stop, and then says what it has seen."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.photos, self.index = folder / "photos", folder / "library"
        self.clock = Clock(folder / "clock")
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.findings: list[str] = []
        self.slowest = 0.0
        self.stopped = False

    def open(self) -> mmsearch.library.Library:
        """The library, opened anew."""
        return mmsearch.open_library(self.index, workers=1)

    def play(self, turn: Callable[[], None]) -> None:
        """One turn after another."""
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "stopped", True))
        while not self.stopped:
            try:
                turn()
            except Exception as error:  # whatever it is, it is what this looks for
                self.findings.append(f"{type(error).__name__}: {error}")
                self.counts["findings"] += 1
                time.sleep(0.2)
        told = {"counts": self.counts, "findings": self.findings[:20], "slowest": self.slowest}
        print(json.dumps(told), flush=True)


class Writer(Player):
    """Moves the window."""

    def turn(self) -> None:
        """One command, tried again when the second writer has the lock."""
        number = self.clock.done + 1
        self.clock.begin(number)
        while not self.stopped:
            try:
                with self.open() as library:
                    if number % 2:
                        library.index(self.photos / name_of(number // 2 + WIDTH))
                    else:
                        library.forget(self.photos / name_of(number // 2 - 1))
                break
            except LibraryLocked as error:
                assert _LOCKED.search(str(error)), str(error)
                self.counts["writer waited for the second"] += 1
                time.sleep(0.05)
        else:
            return
        self.clock.end(number)
        self.counts["states"] += 1
        self.counts["compactions"] += 1 - number % 2
        time.sleep(self.random.uniform(0, 0.2))


class Second(Player):
    """Tries to write what is there already."""

    holder = 0  # the writer's pid

    def turn(self) -> None:
        """One attempt."""
        began = time.monotonic()
        try:
            with self.open() as library:
                library.index(self.photos / KEPT)
            self.counts["second writer found the lock free"] += 1
        except LibraryLocked as error:
            took = time.monotonic() - began
            self.slowest = max(self.slowest, took)
            told = _LOCKED.search(str(error))
            assert told and int(told[1]) == self.holder, f"{error}, not by {self.holder}"
            assert took < 1, f"refused after {took:.2f} s"
            self.counts["second writer refused"] += 1
        time.sleep(self.random.uniform(0, 0.2))


class Reader(Player):
    """Asks, and holds the answer against the states that it may show."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(folder, seed)
        encoder = stand_ins.encoder()
        query = encoder.encode(Modality.TEXT, ["red"])[0]
        paths = sorted(self.photos.iterdir())
        rows = mmsearch.embed(paths, modality="image")
        self.expected = dict(zip((p.name for p in paths), (rows @ query).tolist(), strict=True))
        self.kept = self.open()
        self.seen = 0

    def turn(self) -> None:
        """One question."""
        least = max(self.seen, self.clock.done)
        if self.random.random() < 0.1:
            with self.open() as library:
                self._ask(library, least)
            self.counts["libraries opened"] += 1
        else:
            self._ask(self.kept, least)
        if self.random.random() < 0.01:
            wrong = self.kept.check()
            assert wrong == [], wrong
            self.counts["checks"] += 1
        time.sleep(self.random.uniform(0, 0.2))

    def _ask(self, library: mmsearch.library.Library, least: int) -> None:
        hits = library.query("red", k=100, all=True, hybrid="off")
        most = self.clock.begun
        answer = {hit.path.name: hit.score for hit in hits}
        assert len(answer) == len(hits), "a picture twice in one answer"
        for name, score in answer.items():
            assert abs(score - self.expected[name]) < 2e-3, f"{name} has the score {score}"
        for number in range(least, most + 1):
            if state(number) == answer.keys():
                self.seen = number
                self.counts["answers"] += 1
                return
        raise AssertionError(f"no state from {least} to {most}: {sorted(answer)}")


ROLES = {"writer": Writer, "second": Second, "reader": Reader}


def prepare(folder: Path, seed: int) -> None:
    """Pictures no two of which look alike, and a library of the first."""
    photos = folder / "photos"
    photos.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    for name in (KEPT, *map(name_of, range(PICTURES))):
        blocks = draw.integers(0, 256, (2, 2, 3), dtype=np.uint8)
        picture = Image.fromarray(blocks).resize((16, 16), Image.Resampling.NEAREST)
        picture.save(photos / name)
    Clock(folder / "clock")
    with mmsearch.open_library(folder / "library", workers=1) as library:
        library.index([photos / name for name in state(0)])


def campaign(folder: Path, seconds: float, readers: int, seed: int, report: Report) -> None:
    """Have them all play for so long, and gather what they saw."""
    prepare(folder, seed)
    command = [sys.executable, "-m", "campaigns.two_writers", "--folder", str(folder)]
    roles = ["writer", "second", *["reader"] * readers]
    players: list[subprocess.Popen[str]] = []
    began = time.monotonic()
    try:
        for number, role in enumerate(roles):
            holder = str(players[0].pid) if players else "0"
            players.append(
                subprocess.Popen(
                    [*command, "--role", role, "--seed", str(seed + number), "--holder", holder],
                    stdout=subprocess.PIPE, text=True, env=os.environ | SETTINGS,
                )
            )  # fmt: skip
        while time.monotonic() - began < seconds:
            time.sleep(min(1.0, seconds))
            report.fact(states_made=Clock(folder / "clock").done)
            report.step(round(time.monotonic() - began))
            ended = [role for role, p in zip(roles, players, strict=True) if p.poll() is not None]
            assert not ended, f"ended by itself: {ended}"
    finally:
        seconds = time.monotonic() - began
        for player in players:
            player.terminate()
        told = [json.loads(player.communicate(timeout=120)[0] or "{}") for player in players]
    for role, one in zip(roles, told, strict=True):
        report.counts.update(one.get("counts", {}))
        for what in one.get("findings", ["it said nothing"]):
            report.counts["findings"] -= 1  # counted by the process that found it
            report.found(role, what)
    with mmsearch.open_library(folder / "library") as library:
        for what in library.check():
            report.found("afterwards", what)
        names = {hit.path.name for hit in library.query("red", k=100, all=True, hybrid="off")}
    if names not in (state(Clock(folder / "clock").done), state(Clock(folder / "clock").begun)):
        report.found("afterwards", f"{sorted(names)} are there")
    report.fact(readers=readers, slowest_refusal_seconds=round(told[1].get("slowest", 0), 3))
    report.step(round(seconds))


def main() -> int:
    """Run it from a command line; `--role` is one of its own processes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, default=RESULTS / "two_writers.json")
    parser.add_argument("--role", choices=ROLES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--holder", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    stand_ins.install()
    if given.role:
        player = ROLES[given.role](given.folder, given.seed)
        if isinstance(player, Second):
            player.holder = given.holder
        player.play(player.turn)
        return 0
    with reported("two writers", given) as (report, folder):
        campaign(folder, given.seconds, given.readers, given.seed, report)
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
