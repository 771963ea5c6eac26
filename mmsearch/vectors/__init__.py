"""Where vectors are searched: one small seam, exact stores behind it."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

from mmsearch.vectors.matrix import Matrix

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mmsearch.records import Ids, Scores, Vectors

# Importing FAISS costs a tenth of a second of CPU time, which is what numpy needs to
# search some 20,000 rows fifty times over: below that a cold query is faster without.
FAISS_FROM_ROWS = 20_000


class VectorStore(Protocol):
    """Vectors under the catalog's ids, searched by inner product.

    Ids only ever grow: the catalog never gives one out twice.
    """

    dim: int

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

        Exact. Equal scores come in the order of their ids. `among` keeps only those ids.
        """

    def scores(self, queries: Vectors, among: Ids | None = None) -> tuple[Ids, Scores]:
        """Every score: (n,) ids rising, and (q, n) inner products. `among` keeps only those ids."""

    def save(self, path: str, generation: int, fingerprint: str) -> Matrix:
        """Write what can be found to a new matrix file and return it, opened."""


def open_store(kind: str, dim: int, base: Matrix | None = None) -> VectorStore:
    """A store over a mapped matrix (or none): "exact" is numpy, "faiss" is FAISS.

    "auto" takes FAISS where it is installed and the matrix is large enough to repay it.
    """
    if kind == "auto":
        large = base is not None and len(base.rows.ids) >= FAISS_FROM_ROWS
        kind = "faiss" if large and find_spec("faiss") else "exact"
    if kind == "faiss":
        from mmsearch.vectors.faiss import FaissStore

        return FaissStore(dim, base)
    from mmsearch.vectors.exact import ExactStore

    return ExactStore(dim, base)
