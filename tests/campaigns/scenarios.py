"""What is done to a library while the disk fails: small histories, each from a seed.

A scenario prepares pictures and perhaps a library, undisturbed, and has commands to run while
something goes wrong. The command line is the real one; stand_ins.py is in the place of the model.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from faults.campaign import Zygote
from faults.harness import Outcome
from PIL import Image


@dataclass
class Place:
    """A folder of pictures, and a disk with a library on it."""

    folder: Path
    zygote: Zygote
    random: random.Random

    def __post_init__(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.photos, self.disk = self.folder / "photos", self.folder / "disk"
        self.photos.mkdir(parents=True)
        self.disk.mkdir()
        self.batch = self.random.choice((1, 2, 2, 3))

    @property
    def index(self) -> Path:
        """Where its library is."""
        return self.disk / "library"

    def picture(self, name: str) -> Path:
        """Make a picture, or make it anew."""
        draw = np.random.default_rng(self.random.getrandbits(32))
        blocks = draw.integers(0, 256, (2, 2, 3), dtype=np.uint8)
        path = self.photos / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(blocks).resize((16, 16), Image.Resampling.NEAREST).save(path)
        return path

    def words(self, name: str) -> None:
        """Write a few words: a text, or a picture's caption."""
        some = self.random.sample(("red", "green", "a dog", "a lake", "狗", "noon", "of"), 3)
        (self.photos / name).write_text(" ".join(some) + "\n", encoding="utf-8")

    def fill(self) -> None:
        """Pictures, a copy of one, a caption, a text, and a picture that is cut short."""
        for number in range(self.random.randint(3, 5)):
            self.picture(f"p{number}.png")
        for name in ("s0.png", "s1.png"):
            self.picture(f"sub/{name}")
        shutil.copy(self.photos / "p0.png", self.photos / "copy.png")
        self.words("p1.txt")
        self.words("text.txt")
        whole = self.picture("z-cut.png").read_bytes()
        (self.photos / "z-cut.png").write_bytes(whole[: len(whole) * 2 // 3])

    def run(self, *arguments: str, mode: str = "count", at: int = 0, **settings: str) -> Outcome:
        """One run of the command line, `{index}` and `{photos}` put in."""
        given = self.arguments(arguments)
        batch = {"MMSEARCH_BATCH": str(self.batch)}
        return self.zygote.run(given, self.disk, mode, at, **batch, **settings)

    def arguments(self, arguments: Sequence[str]) -> list[str]:
        """With the paths put in."""
        paths = {"index": self.index, "photos": self.photos, "disk": self.disk}
        return [argument.format(**paths) for argument in arguments]


INDEX = ("index", "{photos}", "--index", "{index}", "--json")


@dataclass(frozen=True)
class Scenario:
    """`prepare` is not disturbed; `commands` are; `last` is what a user then runs again.

    `judged` is the folder of the library that they write to; one that is `damaged` to begin with
    has nothing asked of it before it is another.
    """

    name: str
    prepare: Callable[[Place], None]
    commands: tuple[tuple[str, ...], ...]
    last: tuple[str, ...] = INDEX
    judged: str = "library"
    damaged: bool = False


def _nothing(place: Place) -> None:
    place.fill()


def _few(place: Place) -> None:
    for name in ("a.png", "b.png"):
        place.picture(name)
    place.words("a.txt")
    place.batch = 1


def _indexed(place: Place) -> None:
    place.fill()
    outcome = place.run(*INDEX)
    assert outcome.code == 3, outcome


def _changed(place: Place) -> None:
    _indexed(place)
    place.picture("p0.png")
    place.picture("n0.png")
    place.picture("n1.png")
    place.words("p2.txt")
    place.words("text.txt")
    os.unlink(place.photos / "p1.png")
    os.unlink(place.photos / "p1.txt")


def _moved(place: Place) -> None:
    _indexed(place)
    os.rename(place.photos / "p0.png", place.photos / "moved.png")
    os.rename(place.photos / "sub", place.photos / "other")
    shutil.copy(place.photos / "p2.png", place.photos / "copy2.png")


def _gone(place: Place) -> None:
    _indexed(place)
    for name in ("p0.png", "p2.png", "text.txt"):
        os.unlink(place.photos / name)
    place.run(*INDEX)


def _without_cache(place: Place) -> None:
    _indexed(place)
    shutil.rmtree(place.index / "cache")


def _damaged(place: Place) -> None:
    """With a vector, a keyword and a file's content that are not what was written."""
    _indexed(place)
    with closing(sqlite3.connect(place.index / "library.db")) as database:
        database.execute("update vectors set data = zeroblob(24) where id = 2")
        database.execute("update vectors set crc = 1 where id = 4")
        database.commit()


def _backed_up(place: Place) -> None:
    _indexed(place)
    place.run("backup", "{disk}/copy", "--index", "{index}")
    place.picture("n0.png")
    place.run(*INDEX)


_REPAIR = ("repair", "--yes", "--index", "{index}")
_BACKUP = ("backup", "{disk}/copy", "--force", "--index", "{index}")
_RESTORE = ("backup", "--restore", "{disk}/copy", "--index", "{index}")
_FORGET = ("forget", "{photos}/sub", "{photos}/p1.png", "--index", "{index}")
_FORGET_GONE = ("forget", "--gone", "--index", "{index}")
_LABEL = ("label", "--vocab", "cat,dog,red", "--index", "{index}")

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("small", _few, (INDEX,)),
        Scenario("index", _nothing, (INDEX,)),
        Scenario("change", _changed, (INDEX,)),
        Scenario("move", _moved, (INDEX,)),
        Scenario("forget", _indexed, (_FORGET,), _FORGET),
        Scenario("forget gone", _gone, (_FORGET_GONE,), _FORGET_GONE),
        Scenario("cache", _without_cache, (INDEX,)),
        Scenario("label", _indexed, (_LABEL,), _LABEL),
        Scenario("repair", _damaged, (_REPAIR,), _REPAIR, damaged=True),
        Scenario("backup", _backed_up, (_BACKUP,), _BACKUP, "copy"),
        Scenario("restore", _backed_up, (_RESTORE,), _RESTORE),
    )
}
