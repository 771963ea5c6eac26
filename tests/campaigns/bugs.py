"""Eight durability bugs, to be put in on purpose: a campaign that misses one proves nothing.

Each is a patch of the running program. `writer` names those that a run of the command line calls
in its process; `reader` is put into the process that judges.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np


def no_data_sync() -> None:
    """Files of the cache are not synced before they get their names."""
    _patch_fsync(lambda descriptor: None)


def no_folder_sync() -> None:
    """Names are not made durable."""
    from mmsearch import access, durable

    durable.sync_folder = access.sync_folder = lambda path: None


def synchronous_off() -> None:
    """SQLite syncs nothing."""
    _pragma("PRAGMA synchronous = OFF")


def synchronous_normal() -> None:
    """SQLite syncs its log before it copies it, not when it commits."""
    _pragma("PRAGMA synchronous = NORMAL")


def acknowledged_early() -> None:
    """A batch is reported before its commit."""
    from mmsearch import ingest

    commit = ingest.Ingest._commit

    def early(self: Any) -> None:
        good = sum(ready.content is not None for ready in self._batch)
        if good:
            line = f"indexed {self.committed + good} of {self._total}, early"
            print(line, file=sys.stderr, flush=True)
        commit(self)

    ingest.Ingest._commit = early  # type: ignore[method-assign]


def ids_swapped() -> None:
    """The first two rows of the cache stand beside each other's ids."""
    from mmsearch import space

    write = space.write_matrix

    def swapped(path: str, blocks: Any, *rest: Any, **more: Any) -> str:
        def turned() -> Iterator[Any]:
            for block in blocks:
                rows = np.array(block.vectors)
                rows[:2] = rows[:2][::-1].copy()
                yield type(block)(block.ids, rows, *list(_columns(block))[2:])

        return write(path, turned(), *rest, **more)

    space.write_matrix = swapped


def sync_again() -> None:
    """A sync of a cache that failed is tried again, and believed."""

    def again(descriptor: int) -> None:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
            return
        os.fsync(descriptor)

    _patch_fsync(again)


def cache_not_hashed() -> None:
    """A cache is taken for what was written, whatever it is."""
    from mmsearch import space

    class Anything(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            return True

        def __ne__(self, other: object) -> bool:
            return False

        __hash__ = str.__hash__

    space.hash_file = lambda path: Anything()


def _columns(block: Any) -> Iterator[Any]:
    from dataclasses import fields, is_dataclass

    names = [f.name for f in fields(block)] if is_dataclass(block) else block._fields
    return (getattr(block, name) for name in names)


def _patch_fsync(sync: Any) -> None:
    from mmsearch.vectors import matrix

    class Os:
        """The module, but for one function."""

        fsync = staticmethod(sync)

        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

    matrix.os = Os()  # type: ignore[assignment]


def _pragma(line: str) -> None:
    from mmsearch.catalog import connection

    kept = [pragma for pragma in connection._WRITER_PRAGMAS if "synchronous" not in pragma]
    connection._WRITER_PRAGMAS = (line, *kept)


@dataclass(frozen=True)
class Bug:
    """A patch, and in which scenarios it can do harm; `mode` is a fault that it needs."""

    patch: str
    scenarios: tuple[str, ...]
    reader: bool = False
    mode: str = "count"


BUGS = {
    "no data fsync": Bug("no_data_sync", ("cache", "small")),
    "no folder fsync": Bug("no_folder_sync", ("small",)),
    "synchronous=OFF": Bug("synchronous_off", ("small",)),
    "synchronous=NORMAL": Bug("synchronous_normal", ("small",)),
    "acknowledged before commit": Bug("acknowledged_early", ("small",)),
    "cache not hashed": Bug("cache_not_hashed", ("cache",), reader=True),
    "id map swapped": Bug("ids_swapped", ("cache", "small")),
    "retry after a failed fsync": Bug("sync_again", ("cache",), mode="fsync-once"),
}
