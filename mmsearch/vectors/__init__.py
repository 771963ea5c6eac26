"""Where vectors are searched: one small seam, VectorStore, and what stands behind it.

    plan = choose(rows, dim, target_recall=None, max_memory=None, gpu=False, factory="")
    if plan.engine is not Engine.PLAIN:          # a matrix written with half=True serves best
        index, sha256 = build_index(path, matrix, plan, {"text": captions, "image": pictures})
    ...
    index = open_index(path, matrix)             # LibraryDamaged: build it anew, never search it
    store = open_store("auto", dim, matrix, index)

`choose` says what is built and promised (planning.Plan: engine, target_recall, bytes_per_vector,
exact). `build_index` writes one file beside the matrix, of the matrix's generation, rows and
encoder, and measures recall with the queries it is given; `index.plan` is what came of it,
`index.measured` the figures, `index.note` says why it is another engine than was planned. The
caller records the file's SHA-256 and compares it, as with the matrix. Rows above `index.last_id`
are added to the store, removed ones taken off it; nothing is rebuilt for that.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

from mmsearch.vectors.matrix import Matrix
from mmsearch.vectors.planning import Engine, Plan, choose

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from mmsearch.records import Ids, Scores, Vectors
    from mmsearch.vectors.codes import IndexFile

__all__ = [
    "FAISS_FROM_ROWS", "Engine", "Plan", "VectorStore", "build_index", "check_factory", "choose",
    "gpu_available", "open_index", "open_store",
]  # fmt: skip

# Importing FAISS costs a tenth of a second of CPU time, which is what numpy needs to
# search some 20,000 rows fifty times over: below that a cold query is faster without.
FAISS_FROM_ROWS = 20_000


class VectorStore(Protocol):
    """Vectors under the catalog's ids, searched by inner product.

    Ids only ever grow: the catalog never gives one out twice.
    """

    dim: int
    plan: Plan  # what it promises

    def __len__(self) -> int:
        """How many vectors can be found."""

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """Take in (n,) ids, each above every id so far, and their (n, dim) unit rows."""

    def remove(self, ids: Ids) -> None:
        """Never return these again; unknown ids are ignored."""

    def search(
        self, queries: Vectors, k: int, among: Ids | None = None
    ) -> tuple[NDArray[np.float32], Ids]:
        """The k nearest of every query: scores (q, m) falling and ids (q, m), m <= k.

        Scores are exact inner products; which rows are found, `plan.target_recall` says.
        Equal scores come in the order of their ids. `among` keeps only those ids, and what they
        let through is found exactly.
        """

    def scores(self, queries: Vectors, among: Ids | None = None) -> tuple[Ids, Scores]:
        """Every score: (n,) ids rising, and (q, n) inner products. `among` keeps only those ids."""

    def save(self, path: str, generation: int, fingerprint: str) -> Matrix:
        """Write what can be found to a new matrix file and return it, opened."""


def open_store(
    kind: str, dim: int, base: Matrix | None = None, index: IndexFile | None = None
) -> VectorStore:
    """A store over a mapped matrix (or none): "exact" is numpy, "faiss" is FAISS.

    "gpu" is FAISS on a GPU, or with a warning "auto" where that is full. "auto" takes the index
    where there is one, else FAISS where it is installed and the matrix is large enough to repay it.
    """
    if kind == "gpu" and base is not None:
        from mmsearch.vectors.gpu import open_on_card

        if (store := open_on_card(base)) is not None:
            return store
        kind = "auto"
    if kind == "auto" and base is not None and index is not None:
        from mmsearch.vectors.staged import StagedStore

        return StagedStore(base, index)
    if kind == "auto":
        large = base is not None and len(base.rows.ids) >= FAISS_FROM_ROWS
        kind = "faiss" if large and find_spec("faiss") else "exact"
    if kind in ("faiss", "gpu"):
        from mmsearch.vectors.faiss import FaissStore

        return FaissStore(dim, base)
    from mmsearch.vectors.exact import ExactStore

    return ExactStore(dim, base)


def gpu_available() -> bool:
    """Whether FAISS is installed and reaches a GPU: what `choose` is to be told."""
    if not find_spec("faiss"):
        return False
    from mmsearch.vectors.cards import available

    return available()


def build_index(
    path: str, matrix: Matrix, plan: Plan, queries: Mapping[str, Vectors]
) -> tuple[IndexFile, str]:
    """See mmsearch.vectors.building. Raises MissingExtra where FAISS is not installed."""
    from mmsearch.vectors.building import build_index

    return build_index(path, matrix, plan, queries)


def check_factory(factory: str, dim: int) -> None:
    """Raises ValueError for a description that FAISS does not know; MissingExtra without FAISS."""
    from mmsearch.vectors.building import described

    described(factory, dim)


def open_index(path: str, matrix: Matrix) -> IndexFile:
    """See mmsearch.vectors.codes."""
    from mmsearch.vectors.codes import open_index

    return open_index(path, matrix)
