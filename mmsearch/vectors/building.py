"""Building the index of a matrix, and measuring that it keeps what its plan promises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch import durable
from mmsearch.vectors.codes import IndexFile, IndexWriter, open_index
from mmsearch.vectors.faiss import faiss, singles
from mmsearch.vectors.lists import build_lists
from mmsearch.vectors.planning import Engine, Plan, choose, lists_of
from mmsearch.vectors.rounded import Rounded, round_rows
from mmsearch.vectors.staged import StagedStore
from mmsearch.vectors.tuning import MARGIN, measure, nearest, tune

if TYPE_CHECKING:
    from mmsearch.records import Vectors
    from mmsearch.vectors.matrix import Matrix

_BLOCK = 16_384  # rows at a time
_TRAINED_ON = 65_536
_ROUNDS = 10  # of k-means: lists are no better after 25
_COARSE = 400  # rows that lists and graphs choose where there is nothing to tune them with


def build_index(
    path: str, matrix: Matrix, plan: Plan, queries: Mapping[str, Vectors]
) -> tuple[IndexFile, str]:
    """Write the index of a matrix under `path`; return it, opened, and the file's SHA-256.

    `queries` are (n, dim) unit rows of "text" and perhaps "image". Half of the texts set what is
    not exact, the rest are measured with: two thousand of them, if the figures are to be trusted;
    without texts, pictures set it. An engine that falls short of its target is replaced by the
    exact one, and the index's `note` says so. Raises OSError, and ValueError when FAISS does not
    know the plan's factory string.
    """
    rows = matrix.rows.vectors
    sample = rows[:: -(-len(rows) // _TRAINED_ON)].astype(np.float32)
    mean = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
    step = max((float(np.abs(block - mean).max()) for block in _blocks(rows)), default=0) / 127
    step = step or 1.0
    writer = IndexWriter(path, matrix)
    try:
        writer.put("rows", round_rows(_blocks(rows), mean, step))
        writer.put("mean", [mean])
        rounded = Rounded(writer.mapped("rows", rows.shape[1]), mean, step)
        draft = IndexFile(
            path, matrix.generation, matrix.fingerprint, matrix.last_id, plan, {}, {}, "",
            rounded, np.empty(0, np.uint8),
        )  # fmt: skip
        truths = {kind: nearest(rows, asked) for kind, asked in queries.items()}
        index = _trained(plan, rows, sample)
        draft = _settled(draft, matrix, index, queries, truths)
        if draft.note:  # it fell short
            draft = _settled(draft, matrix, _trained(draft.plan, rows, sample), queries, truths)
        writer.put("faiss", [draft.faiss])
        sha256 = writer.finish(draft.plan, step, draft.settings, draft.measured, draft.note)
    finally:
        writer.close()
    durable.replace(writer.temporary, path)
    return open_index(path, matrix), sha256


def _trained(plan: Plan, rows: Vectors, sample: Vectors) -> Any:
    if plan.engine is Engine.PARTITIONED:
        return build_lists(sample, _blocks(rows), *lists_of(plan.factory))
    index = described(plan.factory, rows.shape[1])
    _hush(index)
    try:
        index.train(sample)
        for block in _blocks(rows):
            index.add(block)
    except RuntimeError as error:
        raise ValueError(f"FAISS cannot build {plan.factory!r} of {len(rows):,} rows") from error
    return index


def described(factory: str, dim: int) -> Any:
    """FAISS's index of this description, empty. Raises ValueError when it knows none."""
    try:
        return faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise ValueError(f"FAISS does not know an index {factory!r}") from error


def _hush(index: Any) -> None:
    """Few rows for many lists or codes are no news to a user, who is told what came of them."""
    lists = faiss.try_extract_index_ivf(index)
    if lists is not None:
        lists.cp.niter = _ROUNDS
        lists.cp.min_points_per_centroid = 1
    inner: Any = index
    while inner is not None:
        inner = faiss.downcast_index(inner)
        if hasattr(inner, "pq"):
            inner.pq.cp.min_points_per_centroid = 1
        inner = getattr(inner, "index", None) or getattr(inner, "base_index", None)


def _settled(
    draft: IndexFile,
    matrix: Matrix,
    index: Any,
    queries: Mapping[str, Vectors],
    truths: Mapping[str, Any],
) -> IndexFile:
    """What this index is with its settings and figures, or with a note and the exact plan."""
    plan = draft.plan
    held = faiss.serialize_index(index)
    dim = matrix.rows.vectors.shape[1]
    plan = replace(plan, bytes_per_vector=round(len(held) / len(matrix.rows.ids) + dim + 13, 1))
    settings = {} if plan.exact else {"coarse": _COARSE}
    draft = replace(draft, plan=plan, faiss=held, settings=settings)
    store = StagedStore(matrix, draft)
    measured = {}
    halves = {kind: len(asked) // 2 for kind, asked in queries.items()}
    if not plan.exact:
        kind = next((kind for kind in ("text", "image") if halves.get(kind)), None)
        if kind is not None:
            half = halves[kind]
            asked, truth = queries[kind][:half], truths[kind][:half]
            target = min(1.0, plan.target_recall + MARGIN)
            settings = tune(store, asked, truth, target)
            draft = replace(draft, settings=settings)
    for kind, asked in queries.items():
        fresh = slice(halves[kind], None)
        if len(asked[fresh]):
            measured[kind] = measure(store, asked[fresh], truths[kind][fresh])
    draft = replace(draft, measured=measured)
    told = measured.get("text") or measured.get("image")
    if draft.note or plan.exact or told is None or told["recall@10"] >= plan.target_recall:
        return draft
    exact = choose(max(len(matrix.rows.ids), 10**5), dim)
    note = (
        f"{plan.factory} reached a recall of {told['recall@10']:.3f} where "
        f"{plan.target_recall:g} was asked for: searched exactly instead"
    )
    return replace(draft, plan=exact, note=note)


def _blocks(rows: Vectors) -> Iterator[Vectors]:
    for start in range(0, len(rows), _BLOCK):
        yield singles(rows[start : start + _BLOCK])
