"""Libraries with damaged files: refused, or answered rightly, or at least `check` says so.

    PYTHONPATH=tests python -m campaigns.library_damage --size 100000

Rows 16 to 20 of the table of failures. library.db, its log and the files of the cache get flipped
bits, cuts, zeros, pages swapped, garbage behind them, parts of their older selves, or vanish. Then
the library is opened and asked. Right is

- an error of our own, which names the library;
- the answers of brute force for the library as it was, or as it was at an earlier commit where the
  log, or the whole file, is of that time;
- other answers only where `check` finds something: a name that a failing disk has altered is found
  by `check` alone, as the README says.

A finding is any other answer, any other exception, and a crash: the questions are put by a child
process, so that one is seen. Case n of a seed is always the same.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from campaigns import stand_ins
from campaigns.report import Report, arguments, reported
from PIL import Image

import mmsearch
from mmsearch.errors import MmsearchError

PICTURES = 12
PAGE = 4096
_AT_ONCE = 200  # cases a child process

Files = dict[str, bytes]
Answer = tuple[tuple[str, float], ...]


def picture(folder: Path, name: str, seed: int) -> None:
    """A picture of four colours."""
    blocks = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), dtype=np.uint8)
    picture = Image.fromarray(blocks).resize((16, 16), Image.Resampling.NEAREST)
    picture.save(folder / name)


def read(folder: Path) -> Files:
    """The files of a library that count."""
    names = ("library.db", "library.db-wal")
    paths = [folder / name for name in names] + sorted((folder / "cache").glob("*"))
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths if p.exists()}


def put(files: Files, folder: Path) -> None:
    """Make a library of these files."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "cache").mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def ask(folder: Path, *, check: bool = False) -> Answer | list[str]:
    """What is found, each with its score; or what `check` finds wrong."""
    with mmsearch.open_library(folder) as library:
        if check:
            return library.check()
        hits = library.query("red", k=100, all=True, hybrid="off")
        return tuple((hit.path.name, round(hit.score or 0.0, 4)) for hit in hits)


class Libraries:
    """A library with a log, as it was at three moments, and what each has to answer."""

    def __init__(self, scratch: Path) -> None:
        photos, index = scratch / "photos", scratch / "made"
        photos.mkdir(parents=True)
        self.states: list[Files] = []
        self.answers: list[Answer] = []
        for state in range(3):
            for number in range(PICTURES - 4 + state * 2):
                if not (photos / f"p{number:02}.png").exists():
                    picture(photos, f"p{number:02}.png", number)
            (photos / "p00.txt").write_text(f"words {state}\n", encoding="utf-8")
            # a reader keeps the log from being removed when the writer ends
            with mmsearch.open_library(index) as reader:
                if state:
                    reader.query("red")
                with mmsearch.open_library(index) as writer:
                    writer.index(photos)
                self.states.append(read(index))
            put(self.states[-1], scratch / "asked")
            self.answers.append(self._answer(ask(scratch / "asked")))
        without = {k: v for k, v in self.states[-1].items() if not k.endswith("-wal")}
        put(without, scratch / "asked")
        self.answers.append(self._answer(ask(scratch / "asked")))

    @staticmethod
    def _answer(found: Answer | list[str]) -> Answer:
        assert isinstance(found, tuple) and found
        return found

    def damaged(self, chance: random.Random) -> tuple[Files, str]:
        """The newest with some damage, and what was done."""
        files = dict(self.states[-1])
        done = []
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            name = chance.choice(sorted(files))
            older = self._older(name, chance)
            how = chance.choice(WAYS)
            if how is None:
                del files[name]
            else:
                files[name] = how(bytearray(files[name]), older, chance)
            done.append(f"{name} {how.__name__ if how else 'gone'}")
            if not files:
                break
        return files, ", ".join(done)

    def _older(self, name: str, chance: random.Random) -> bytes:
        state = chance.choice(self.states[:-1])
        if name in state:
            return state[name]
        return next((data for other, data in state.items() if other.startswith("cache")), b"")


def flipped(data: bytearray, _: bytes, chance: random.Random) -> bytes:
    """A few bits are others."""
    for _n in range(chance.choice((1, 1, 2, 16))):
        if data:
            data[_at(data, chance)] ^= 1 << chance.randrange(8)
    return bytes(data)


def cut(data: bytearray, _: bytes, chance: random.Random) -> bytes:
    """It ends early, as often as not at a page."""
    size = chance.randrange(len(data) + 1)
    return bytes(data[: size - (size % PAGE if chance.random() < 0.5 else 0)])


def zeroed(data: bytearray, _: bytes, chance: random.Random) -> bytes:
    """A sector, a page or the end is zeros."""
    size = chance.choice((16, 512, PAGE, len(data)))
    at = _at(data, chance) // min(size, 512) * min(size, 512) if size else 0
    data[at : at + size] = bytes(len(data[at : at + size]))
    return bytes(data)


def swapped(data: bytearray, _: bytes, chance: random.Random) -> bytes:
    """Two pages, or two rows, have changed places."""
    size = chance.choice((48, 512, PAGE))
    pages = len(data) // size
    if pages > 1:
        a, b = (size * n for n in chance.sample(range(pages), 2))
        data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]
    return bytes(data)


def garbage(data: bytearray, _: bytes, chance: random.Random) -> bytes:
    """Something else stands in it, or behind it."""
    at = len(data) if chance.random() < 0.3 else _at(data, chance)
    size = chance.choice((1, 8, 512, PAGE))
    data[at : at + size] = chance.randbytes(size)
    return bytes(data)


def older_part(data: bytearray, older: bytes, chance: random.Random) -> bytes:
    """A page, or everything from a page on, is as it was before."""
    at = _at(data, chance) // PAGE * PAGE
    size = PAGE if chance.random() < 0.7 else len(data)
    data[at : at + size] = older[at : at + size]
    return bytes(data)


def older_whole(_: bytearray, older: bytes, __: random.Random) -> bytes:
    """It is the file of an earlier moment."""
    return older


def _at(data: bytearray, chance: random.Random) -> int:
    return chance.randrange(min(len(data), chance.choice((128, PAGE, 1 << 30)))) if data else 0


WAYS: tuple[Callable[[bytearray, bytes, random.Random], bytes] | None, ...] = (
    flipped, flipped, flipped, cut, zeroed, zeroed, swapped, garbage, older_part, older_whole, None,
)  # fmt: skip


def judged(libraries: Libraries, files: Files, folder: Path) -> tuple[str, str]:
    """What became of one case, and what is wrong with that."""
    put(files, folder)
    try:
        answer = ask(folder)
    except MmsearchError as error:
        if not str(error).strip() or "\n" in str(error).strip():
            return "refused", f"says {error!r}"
        return "refused", ""
    except Exception as error:  # whatever it is, it is what this looks for
        return "exception", f"{type(error).__name__}: {error}"
    if answer in libraries.answers:
        return "answered rightly", ""
    put(files, folder)
    try:
        told = ask(folder, check=True)
    except MmsearchError as error:
        told = [str(error)]
    except Exception as error:
        return "exception", f"check: {type(error).__name__}: {error}"
    if told:
        return "other answers, and check says why", ""
    return "silently wrong", f"{answer} where {libraries.answers[2]} is right, and check is content"


def campaign(size: int, seed: int, report: Report, scratch: Path) -> None:
    """One damage after another, each batch judged by a child."""
    libraries = Libraries(scratch)
    told = scratch / "told"
    for start in range(report.done, size, _AT_ONCE):
        numbers = range(start, min(start + _AT_ONCE, size))
        _batch(libraries, seed, numbers, told, scratch / "case", report)
        report.step(numbers.stop)


def _batch(
    libraries: Libraries, seed: int, numbers: range, told: Path, folder: Path, report: Report
) -> None:
    """Judge these; after a crash go on behind the case that crashed."""
    while numbers:
        told.write_bytes(b"")
        pid = os.fork()
        if pid == 0:
            with open(told, "w", encoding="utf-8", buffering=1) as out:
                for number in numbers:
                    files, done = libraries.damaged(random.Random(f"{seed} {number}"))
                    case = f"case {number}: {done}"
                    out.write(json.dumps([case]) + "\n")
                    out.write(json.dumps([case, *judged(libraries, files, folder)]) + "\n")
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        lines = [json.loads(line) for line in told.read_text(encoding="utf-8").splitlines()]
        ended = [line for line in lines if len(line) > 1]
        for case, outcome, wrong in ended:
            report.count(outcome)
            if wrong:
                report.found(case, wrong)
        done = len(ended)
        if status:
            report.found(lines[-1][0] if lines else "the child", f"crashed, status {status}")
            done += 1
        numbers = numbers[done:]


def main() -> int:
    """Run it from a command line."""
    given = arguments(__doc__, "library_damage.json", 100_000).parse_args()
    stand_ins.install()
    with reported("library damage", given) as (report, scratch):
        campaign(given.size, given.seed, report, scratch)
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
