"""Building the index of a matrix, and measuring that it keeps what its plan promises."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from mmsearch.durable import replace
from mmsearch.vectors.codes import IndexFile, IndexWriter, open_index
from mmsearch.vectors.faiss import faiss
from mmsearch.vectors.planning import Plan
from mmsearch.vectors.rounded import round_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mmsearch.records import Vectors
    from mmsearch.vectors.matrix import Matrix

_BLOCK = 16_384  # rows at a time
_TRAINED_ON = 65_536


def build_index(
    path: str, matrix: Matrix, plan: Plan, queries: Mapping[str, Vectors]
) -> tuple[IndexFile, str]:
    """Write the index of a matrix under `path`; return it, opened, and the file's SHA-256.

    `queries` are (n, dim) unit rows of "text" and perhaps "image", a thousand of each at least if
    what is measured is to be trusted. The index's `plan` says what was built in the end. Raises
    OSError, and ValueError when FAISS does not know the plan's factory string.
    """
    rows = matrix.rows.vectors
    sample = rows[:: -(-len(rows) // _TRAINED_ON)].astype(np.float32)
    mean = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
    step = float(max(np.abs(block - mean).max() for block in _blocks(rows))) / 127 or 1.0
    index = faiss.index_factory(rows.shape[1], plan.factory, faiss.METRIC_INNER_PRODUCT)
    index.train(sample)
    for block in _blocks(rows):
        index.add(block)
    writer = IndexWriter(path, matrix)
    try:
        writer.put("rows", round_rows(_blocks(rows), mean, step))
        writer.put("mean", [mean])
        writer.put("faiss", [faiss.serialize_index(index)])
        sha256 = writer.finish(plan, step, {}, {})
    finally:
        writer.close()
    replace(writer.temporary, path)
    return open_index(path, matrix), sha256


def _blocks(rows: Vectors) -> Iterator[Vectors]:
    for start in range(0, len(rows), _BLOCK):
        yield rows[start : start + _BLOCK].astype(np.float32)
