"""Whether a library is sound, in three depths. Reads; writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING

from mmsearch.errors import LibraryDamaged, chosen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mmsearch.catalog import Catalog
    from mmsearch.encoders import Encoder
    from mmsearch.space import Space

_REPAIR = "mmsearch repair"
_REMEDY = ("", f"; {_REPAIR} mends it")


class Depth(StrEnum):
    """How much is read: SQLite's pages; every vector, word and cached row; the files as well."""

    QUICK = "quick"
    FULL = "full"
    DEEP = "deep"


def depth_of(name: str) -> Depth:
    """The depth of that name. Raises UsageError."""
    return chosen(Depth, "depth", name)


def database(catalog: Catalog, *, quick: bool = False) -> list[str]:
    """What is wrong with library.db, a sentence each: all of it is what `repair` mends."""

    def vectors() -> Iterator[str]:
        for id, *_ in catalog.spaces():
            for number, what in catalog.broken_vectors(id):
                yield f"vector {number} {what}"

    def words() -> Iterator[str]:
        for name in catalog.broken_keywords():
            yield f"the words in {name} are not those of the files"

    found = _tried(lambda: catalog.inspect(quick=quick))
    if not quick:
        found += [said for look in (vectors, words) for said in _tried(look)]
    return [f"{said}{_REMEDY[_REPAIR not in said]}" for said in dict.fromkeys(found)]


def caches(spaces: Iterable[Space], *, quick: bool = False) -> list[str]:
    """Which caches cannot be used, and why: nothing is lost with one."""
    return [
        f"{problem}; it is not used, the next mmsearch index writes it anew"
        for space in spaces
        if (problem := space.state(hashed=not quick).problem)
    ]


def model(encoder: Encoder) -> list[str]:
    """Which files of the model are not what was released."""
    return [
        f"{encoder.name}: {name} was altered; install the model again" for name in encoder.altered()
    ]


def _tried(look: Callable[[], Iterable[str]]) -> list[str]:
    """What was found until damage put an end to the looking, and that damage."""
    found: list[str] = []
    try:
        found.extend(look())
    except LibraryDamaged as error:
        found.append(str(error))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        found.append(f"rows of library.db make no sense ({error})")
    return found
