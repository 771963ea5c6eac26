"""A million hostile queries and filters: each is answered, or refused in words of our own.

    python tests/campaigns/strings.py --size 1000000 --report tests/campaigns/results/strings.json

Rows 69, 70 and 71 of the table of failures. Four kinds of strings are generated, by a grammar that
knows what is dangerous (signs, quotes, FTS5's and SQL's own words, NUL, halves of surrogate pairs,
nesting, length):

    arguments   a command line, as `language.parse` reads it
    question    one string, as `Library.query` reads it
    tree        Python's `+ - * & | ~` over words, with weights that may be no numbers
    filter      an expression for --where, most of them mutations of a right one

All are parsed; of each kind a share is asked of a library as well, whose connection lets SQLite do
nothing but read. Found is whatever is neither an answer nor a UsageError (or, for a file among the
terms, a LoadError), a number that overflows, a filter's error that points at no character, and a
string that takes more than two seconds of processor time. Exits with 1 if there is any.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sqlite3
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

import mmsearch
from mmsearch.errors import LoadError, MmsearchError, UsageError
from mmsearch.filters import FIELDS, MAX_LENGTH, Kind, parse_filter
from mmsearch.language import Query, checked, parse, remarks, said, text
from mmsearch.library import Library

PIECES = (
    "dog", "red", "a", "blue picture", "狗", "没有", "größe", "e\u0301", "\u202eevil", "🐕‍🦺",
    "\u3000", "\0", "\ud800", "\udcff", "\x1b[31m", "\n", "\t", "\\", "'", '"', '""', "`", ";",
    "--", "/*", "x' OR '1'='1", "'; DROP TABLE files; --", "path:secret", "NEAR(a b, 99999)",
    "NEAR/2", "a*", "^a", "{names text}:x", "-names:a", '"a" AND "b', "AND", "OR", "NOT", "and",
    "(", ")", "((", "+", "-", "2:", "2:dog", "-1:dog", "1e999:dog", "nan:dog", "0:dog",
    "9" * 400 + ":dog", "2:./x.jpg", "./x.jpg", "./", "../../..", "~", "~nobody/x", "/dev/zero",
    "/dev/stdin", "/", "/proc/self/environ", "http://169.254.169.254/latest/meta-data",
    "file:///etc/passwd", "%s%n", "${HOME}", "$(id)", "without", "<script>alert(1)</script>",
    "{}", "{0}", "..", "*", "?", "[a-z]", "\ufeff", "\u2028", "ı", "ß", "ﬁ",
)  # fmt: skip
VALUES = {
    Kind.NUMBER: ("0", "640", "-1", "1.5", "1e308", "1e999", "９", "0x10", "nan", "inf", "+.5e-3"),
    Kind.SIZE: ("500kB", "2.5 MB", "1GB", "1TB", "-1", "9" * 30, "1e30GB"),
    Kind.DATE: (
        "2024",
        "2024-02-30",
        "2024-06-01T12:00",
        "'2024-06-01 12:00:60'",
        "0000",
        "9999-12",
    ),
    Kind.WORD: ("jpg", "'a dog'", "image", "landscape", "狗", '"it""s"', "''", "'%'", "'\0'"),
    Kind.PATH: ("'*/holiday/*'", "'\udcff'", "'[!a]?*'", "'" + "*" * 60 + "'", "'a\0b'"),
}
OPERATORS = (
    "=",
    "==",
    "!=",
    "<>",
    "<",
    "<=",
    ">",
    ">=",
    "like",
    "not like",
    "in",
    "not in",
    "between",
)
SLOW = 2.0  # seconds of processor time for one string
SHARES = {"arguments": 0.05, "question": 0.05, "tree": 0.05, "filter": 0.3}  # that are asked


class Strings:
    """Hostile strings, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def piece(self) -> str:
        """Something from the table, or any characters at all."""
        random = self.random
        if random.random() < 0.85:
            return random.choice(PIECES)
        limit = random.choice((0x80, 0x3000, 0xFFFF, 0x10FFFF))
        return "".join(chr(random.randint(0, limit)) for _ in range(random.randint(1, 12)))

    def arguments(self) -> list[str]:
        """A command line; seldom one that goes on for very long."""
        random = self.random
        count = random.randint(0, 8) if random.random() < 0.999 else random.randint(100, 3000)
        words = [self.piece() for _ in range(count)]
        if random.random() < 0.3:
            words = [" ".join(f'"{word}"' if random.random() < 0.5 else word for word in words)]
        return words

    def question(self) -> str:
        """One string; seldom a very long one."""
        joint = self.random.choice((" ", "", ' "', '" AND "', " OR "))
        once = joint.join(self.piece() for _ in range(self.random.randint(0, 8)))
        return once * self.random.randint(1000, 20000) if self.random.random() < 0.0002 else once

    def tree(self, depth: int = 0) -> Callable[[], Query]:
        """What makes a Query when it is called."""
        random, kind = self.random, self.random.randint(0, 9)
        if depth > random.choice((2, 3, 24)) or kind < 4:
            words = self.piece()
            return lambda: text(words)
        one = self.tree(depth + 1)
        if kind == 4:
            return lambda: ~one()
        if kind == 5:
            weight = random.choice((0.5, 0.0, -1.0, 1e300, float("nan"), float("inf"), -0.0))
            return lambda: weight * one()
        other = self.tree(depth + 1)
        return {
            6: lambda: one() + other(),
            7: lambda: one() - other(),
            8: lambda: one() & other(),
            9: lambda: one() | other(),
        }[kind]

    def filter(self) -> str:
        """A right filter, with some wrong done to it most of the time."""
        random = self.random
        made = self.condition()
        for _ in range(random.choice((0, 0, 1, 2, 3, 12))):
            made = f"{made} {random.choice(('and', 'or', 'AND'))} {self.condition()}"
            if random.random() < 0.4:
                made = f"{random.choice(('', 'not '))}({made})"
        for _ in range(random.choice((0, 0, 1, 1, 2, 6))):
            made = self.spoilt(made)
        if random.random() < 0.002:
            deep = random.randint(1, 4000)
            made = random.choice(("(", "not ", "not (")) * deep + made + ")" * deep
        return made

    def condition(self) -> str:
        """One comparison, of things that may not compare."""
        random = self.random
        if random.random() < 0.05:
            east = f"{random.uniform(-200, 200):.3f}"
            return f"near({random.uniform(-100, 100)}, {east}, {self.value()})"
        field = random.choice(list(FIELDS.values()))
        right = VALUES.get(field.kind, ("1",))
        value = random.choice(right) if random.random() < 0.8 else self.value()
        operator = random.choice(OPERATORS)
        if operator.endswith("in"):
            more = ", ".join(
                random.choice(right) for _ in range(random.choice((0, 1, 3, 150, 250)))
            )
            return f"{field.name} {operator} ({value}{', ' if more else ''}{more})"
        if operator == "between":
            return f"{field.name} between {value} and {random.choice(right)}"
        return f"{field.name} {operator} {value}"

    def value(self) -> str:
        """A value of any kind, a field, or something from the table."""
        values = self.random.choice(list(VALUES.values()))
        return self.random.choice((self.random.choice(values), self.piece(), "width", "path"))

    def spoilt(self, made: str) -> str:
        """With a piece put in, left out, doubled or moved."""
        random = self.random
        start, end = sorted(random.randint(0, len(made)) for _ in range(2))
        end = min(end, start + 20)
        return random.choice(
            (
                made[:start] + self.piece() + made[start:],
                made[:start] + made[end:],
                made[:end] + made[start:],
                made[start:] + made[:start],
                made[:start] + random.choice("()'\",=<>!\0 ") + made[end:],
            )
        )


class Campaign:
    """Strings put to the parsers and to a library; what came of it."""

    def __init__(self, library: Library, seed: int) -> None:
        self.library = library
        self.strings = Strings(seed)
        self.counts: Counter[str] = Counter()
        self.findings: list[dict[str, str]] = []
        self.slowest = (0.0, "")

    def run(self, size: int) -> None:
        """One string after another, of the four kinds in turn."""
        for number in range(size):
            kind = tuple(SHARES)[number % len(SHARES)]
            made = getattr(self.strings, kind)()
            asked = self.strings.random.random() < SHARES[kind]
            began = time.process_time()
            self._try(kind, made, asked)
            took = time.process_time() - began
            self.slowest = max(self.slowest, (took, _shown(made)))
            if took > SLOW:
                self._found(kind, made, f"took {took:.1f} s of processor time")

    def _try(self, kind: str, made: Any, asked: bool) -> None:
        outcome = "answered"
        try:
            getattr(self, f"_{kind}")(made, asked)
        except (UsageError, LoadError) as error:
            outcome = "refused"
            if kind == "filter" and len(made) <= MAX_LENGTH and "^" not in str(error):
                self._found(kind, made, f"points at no character: {error}")
        except MmsearchError as error:
            self._found(kind, made, f"{type(error).__name__}: {error}")
        except Exception as error:  # whatever it is, it is what this looks for
            self._found(kind, made, repr(error))
        self.counts[f"{kind}: {'asked' if asked else 'parsed'}, {outcome}"] += 1

    def _arguments(self, words: list[str], asked: bool) -> None:
        query = checked(parse(words))
        remarks(query)
        if asked:
            self.library.query(query, 3)

    def _question(self, words: str, asked: bool) -> None:
        remarks(checked(said(words)))
        if asked:
            self.library.query(words, 3, hybrid=self.strings.random.choice(("auto", "only")))

    def _tree(self, make: Callable[[], Query], asked: bool) -> None:
        query = checked(make())
        if asked:
            self.library.query(query, 3)

    def _filter(self, where: str, asked: bool) -> None:
        parse_filter(where)
        if asked:
            self.library.query("red", 3, where=where, hybrid="only")

    def _found(self, kind: str, made: Any, what: str) -> None:
        self.findings.append({"kind": kind, "string": _shown(made), "what": what[:500]})


def _shown(made: Any) -> str:
    try:
        return ascii(made() if callable(made) else made)[:2000]
    except Exception as error:
        return f"<a query that cannot be made: {error!r}>"[:2000]


_READS = {
    sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE,
    sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_SAVEPOINT, sqlite3.SQLITE_PRAGMA,
}  # fmt: skip


def only_reading(library: Library, denied: list[str]) -> None:
    """Have SQLite refuse whatever is not reading, and say what it was."""

    def authorise(action: int, *what: str | None) -> int:
        if action in _READS:
            return sqlite3.SQLITE_OK
        denied.append(f"action {action}: {what}")
        return sqlite3.SQLITE_DENY

    with library._access.reading() as (catalog, _):
        connection = catalog._connection.connection.driver_connection
        assert connection is not None
        connection.set_authorizer(authorise)


@contextmanager
def small_library() -> Iterator[Library]:
    """Two pictures and a text, indexed with the built-in model."""
    with TemporaryDirectory(prefix="mmsearch-") as name:
        folder = Path(name) / "files"
        folder.mkdir()
        for colour in ("red", "blue"):
            Image.new("RGB", (64, 48), colour).save(folder / f"{colour}.png")
        (folder / "words.txt").write_text("a red dog beside a blue car\n")
        with mmsearch.open_library(Path(name) / "index", workers=1) as library:
            library.index(folder)
            yield library


def campaign(library: Library, size: int, seed: int) -> dict[str, Any]:
    """The report: counts, findings, what was slowest."""
    denied: list[str] = []
    for word in ("red", "nowhere"):  # SQLite writes to memory when it first opens FTS5's tables
        library.query(word)
    only_reading(library, denied)
    tried = Campaign(library, seed)
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # an overflow, or 0 / 0
        tried.run(size)
    seconds = time.process_time() - began
    findings = tried.findings + [{"kind": "sqlite", "string": "", "what": one} for one in denied]
    return {
        "size": size,
        "seed": seed,
        "findings": findings,
        "outcomes": dict(sorted(tried.counts.items())),
        "slowest": {"seconds": round(tried.slowest[0], 3), "string": tried.slowest[1][:200]},
        "cpu_seconds": round(seconds, 1),
        "mmsearch": mmsearch.__version__,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }


def main() -> int:
    """Run it from a command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    with small_library() as library:
        report = campaign(library, given.size, given.seed)
    shown = json.dumps(report, indent=2)
    if given.report:
        given.report.write_text(shown + "\n", encoding="utf-8")
    print(shown)
    return 1 if report["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
