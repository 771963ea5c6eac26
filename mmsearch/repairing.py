"""Mending a library: what is damaged goes, what can be made again is made again.

Nothing is repaired in place. What can still be read of library.db is copied, row by row, to a
new one; the old one is kept in a folder of its own; then the new one takes its name. A crash at
any point leaves the old one or the new one. The user's files are neither read nor touched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmsearch import checking
from mmsearch.catalog import Catalog, Salvaged
from mmsearch.catalog.grafting import readable
from mmsearch.catalog.remains import Remains
from mmsearch.catalog.replacing import put_in_place, set_aside
from mmsearch.errors import LibraryDamaged, LibraryMissing
from mmsearch.files import display
from mmsearch.locking import WriterLock
from mmsearch.rebuilding import rewrite
from mmsearch.spaces import spaces_in

_NAMED = 10  # files that a step names


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair found, what it did or would do, and the files that are to be read again.

    `saved` is the folder with library.db as it was; None where nothing was done.
    """

    problems: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    again: list[Path] = field(default_factory=list)
    saved: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "problems": self.problems,
            "steps": self.steps,
            "again": [str(path) for path in self.again],
            "saved": str(self.saved) if self.saved else None,
        }


Approve = Callable[[Repaired], bool] | None


def repair(folder: Path, approve: Approve) -> Repaired:
    """Mend what `check` finds wrong with a library's database and caches.

    `approve` is told what would be done; nothing is changed before it says yes, nor where it is
    None. Of a library that is sound only the cache is brought up to date, and what an interrupted
    writer left of another goes. Raises LibraryMissing, LibraryLocked beside a writer,
    SchemaMismatch for a newer library, DiskFull, StorageFailed, LibraryReadOnly.
    """
    database = folder / "library.db"
    if not database.exists():
        raise LibraryMissing.at(folder)
    with WriterLock(folder / "LOCK"):
        found = _problems(database)
        if not found:
            return _caches(folder, approve)
        new, salvaged = _salvage(database)
        try:
            plan = Repaired(found, _steps(database, salvaged), _paths(salvaged.again))
            if approve is None or not approve(plan):
                return plan
            saved = set_aside(database, "repair")
            put_in_place(new, database)
        finally:
            with suppress(OSError):
                new.unlink()  # where it did not take the place of the old one
        with Catalog.open(database, write=True) as catalog:
            rewrite(catalog, folder)
        return Repaired(plan.problems, plan.steps, plan.again, saved)


def _problems(database: Path) -> list[str]:
    """What is wrong with the database; one of an older schema is brought up to date first."""
    try:
        with Catalog.open(database, write=True) as catalog:
            return checking.database(catalog)
    except LibraryDamaged as error:
        return [str(error)]


def _caches(folder: Path, approve: Approve) -> Repaired:
    """Write anew the caches that cannot be used."""
    with Catalog.open(folder / "library.db", write=True) as catalog:
        found = checking.caches(spaces_in(catalog, folder))
        if not found:
            if approve:
                rewrite(catalog, folder, always=False)
            return Repaired()
        plan = Repaired(found, [f"keep {_copy_of(folder)}", "write the caches anew"])
        if approve is None or not approve(plan):
            return plan
        saved = set_aside(folder / "library.db", "repair")
        rewrite(catalog, folder)
    return Repaired(plan.problems, plan.steps, saved=saved)


def _salvage(database: Path) -> tuple[Path, Salvaged]:
    """A new database beside the damaged one, with what can be read of it."""
    with readable(database) as path, Remains(path) as remains:
        found = Salvaged()

        def fill(catalog: Catalog) -> None:
            nonlocal found
            found = catalog.take_over(remains)

        new = Catalog.make(database, fill)
    return new, found


def _steps(database: Path, salvaged: Salvaged) -> list[str]:
    """What is going to be done, a sentence each."""
    steps = [f"keep {_copy_of(database.parent)}"]
    damaged = [f"{count:,} of {name}" for name, count in salvaged.lost.items()]
    unread = [f"parts of {name}" for name in salvaged.broken]
    without = f", without damaged rows ({', '.join(damaged + unread)})" if damaged + unread else ""
    steps.append(f"copy what can be read to a new one: {salvaged.files:,} files{without}")
    if salvaged.again:
        named = ", ".join(display(path) for path in salvaged.again[:_NAMED])
        more = f" and {len(salvaged.again) - _NAMED:,} more" if salvaged.again[_NAMED:] else ""
        steps.append(f"have {len(salvaged.again):,} files read again: {named}{more}")
    steps.append("make the words and the caches anew")
    if {"roots", "folders", "files"} & (salvaged.lost.keys() | salvaged.broken.keys()):
        steps.append("then run mmsearch index with your folders: some may be forgotten")
    elif salvaged.again:
        steps.append("then run mmsearch index")
    return steps


def _copy_of(folder: Path) -> str:
    return f"a copy of library.db as it is in {display(os.fsencode(folder))}/before-repair-..."


def _paths(found: Sequence[bytes]) -> list[Path]:
    return [Path(os.fsdecode(path)) for path in found]
