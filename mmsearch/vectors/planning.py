"""Which engine searches how many vectors, and what it promises."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from math import log2

# Below this, every row is multiplied with every query: nothing to build, nothing to tune.
INDEX_FROM_ROWS = 50_000
# From here on one query over all codes takes longer than people wait for an answer.
PARTITION_FROM_ROWS = 2_000_000
MANY = 0.98  # recall@10 that is kept from there on, where nothing is asked for
EXACT = 0.999  # recall@10 of what is called exact: the codes decide what is looked at

# Powers of two: with more lists, to sort rows into them takes longer than all else
_LEAST_LISTS, _MOST_LISTS = 6, 13
_CHEAP_LISTS = 4096

# Parts of a code that FAISS's kernels for GPUs know, the most first: each has a byte there.
_ON_CARDS = (96, 64, 56, 48, 40, 32, 28, 24, 20, 16, 12, 8, 4, 3, 2, 1)
_KEPT_IN_MEMORY = 13  # bytes of id, hubness and kind, beside every vector


class Engine(StrEnum):
    """How vectors are searched."""

    PLAIN = "plain"  # products with every row
    STAGED = "staged"  # 4-bit codes, then whole numbers of 8 bits, then the rows themselves
    PARTITIONED = "partitioned"  # the nearest lists of many, by 4-bit codes, then as above
    FAISS = "faiss"  # what the user's factory string says, then as above
    GPU = "gpu"  # products with every row, in half precision, on a GPU
    GPU_LISTS = "gpu-lists"  # the nearest lists of many by 8-bit codes on a GPU, then as above


@dataclass(frozen=True, slots=True)
class Plan:
    """What is built, and what that promises.

    `factory` is FAISS's description of the first stage, "" where there is none. `target_recall`
    is of recall@10 against exact search, for queries of words. `bytes_per_vector` is what stays
    in memory, file maps counted; the rows themselves are read from the disk by position.
    """

    engine: Engine
    factory: str
    target_recall: float
    bytes_per_vector: float

    @property
    def exact(self) -> bool:
        """Whether every row is looked at."""
        return self.engine in (Engine.PLAIN, Engine.STAGED, Engine.GPU)


def choose(
    rows: int,
    dim: int,
    *,
    target_recall: float | None = None,
    max_memory: float | None = None,
    gpu: bool = False,
    factory: str = "",
) -> Plan:
    """The engine for so many rows.

    Exact unless a `target_recall` below 0.999 is given, or there are too many rows for that to be
    quick. `max_memory` in bytes; `factory` is a string for faiss.index_factory. Raises ValueError
    for a recall outside (0, 1], and when nothing fits into `max_memory`.
    """
    if target_recall is not None and not 0 < target_recall <= 1:
        raise ValueError(f"a recall lies above 0 and up to 1, not at {target_recall:g}")
    usual = EXACT if rows < PARTITION_FROM_ROWS else MANY
    wanted = usual if target_recall is None else min(target_recall, EXACT)
    staged = Plan(Engine.STAGED, f"PQ{_parts(dim, 2)}x4fs", EXACT, _size(dim, 2))
    # twice as many where choosing among them still costs little
    lists = _lists(max(4 * rows**0.5, min(8 * rows**0.5, _CHEAP_LISTS)))
    partitioned = Plan(
        Engine.PARTITIONED,
        f"OPQ{_parts(dim, 2)}_{dim},IVF{lists},PQ{_parts(dim, 2)}x4fsr",
        wanted,
        _size(dim, 2) + 8,
    )
    if factory:
        plan = Plan(Engine.FAISS, factory, wanted, _size(dim, 2))
    elif gpu and rows >= INDEX_FROM_ROWS and wanted < EXACT:
        coded = next(parts for parts in _ON_CARDS if dim % parts == 0 and parts * 4 <= max(dim, 4))
        factory = f"IVF{_lists(2 * rows**0.5)},PQ{coded}"
        plan = Plan(Engine.GPU_LISTS, factory, wanted, _size(dim, 2) + 8)
    elif gpu and rows >= INDEX_FROM_ROWS:
        plan = Plan(Engine.GPU, "", EXACT, _KEPT_IN_MEMORY)
    elif rows < INDEX_FROM_ROWS:
        plan = Plan(Engine.PLAIN, "", 1.0, 4 * dim + _KEPT_IN_MEMORY)
    elif wanted < EXACT:
        plan = partitioned
    else:
        plan = staged
    if max_memory is not None and rows * plan.bytes_per_vector > max_memory:
        if plan.engine is Engine.PARTITIONED and rows * staged.bytes_per_vector <= max_memory:
            return staged
        raise ValueError(
            f"{rows:,} vectors take {rows * plan.bytes_per_vector / 1e6:,.0f} MB of memory, "
            f"more than {max_memory / 1e6:,.0f} MB"
        )
    return plan


def lists_of(factory: str) -> tuple[int, int]:
    """How many lists, and parts of a code, a partitioned plan's description tells of."""
    lists, parts = re.search(r"IVF(\d+),PQ(\d+)x4fsr", factory).groups()  # type: ignore[union-attr]
    return int(lists), int(parts)


def parts_of(factory: str) -> int:
    """How many parts of a code a staged plan's description tells of."""
    return int(re.search(r"PQ(\d+)x4fs", factory)[1])  # type: ignore[index]


def _parts(dim: int, each: int) -> int:
    """How many parts of about `each` dimensions a row is cut into: as many as divide it."""
    return next(parts for parts in range(max(1, dim // each), 0, -1) if dim % parts == 0)


def _lists(about: float) -> int:
    """So many lists, as a power of two."""
    return 1 << round(min(max(log2(max(about, 1)), _LEAST_LISTS), _MOST_LISTS))


def _size(dim: int, each: int) -> float:
    """Bytes of a row: half a byte a part, a byte a dimension, and what stands beside."""
    return _parts(dim, each) / 2 + dim + _KEPT_IN_MEMORY
