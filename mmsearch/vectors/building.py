"""Building the index of a matrix, and measuring that it keeps what its plan promises."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mmsearch import durable
from mmsearch.vectors.codebook import Codebook
from mmsearch.vectors.codes import IndexFile, IndexWriter, open_index
from mmsearch.vectors.faiss import faiss, written_by
from mmsearch.vectors.kernels import singles
from mmsearch.vectors.lists import build_lists, description
from mmsearch.vectors.planning import Engine, Plan, choose, lists_of, parts_of
from mmsearch.vectors.rounded import Rounded, round_rows, step_of
from mmsearch.vectors.staged import StagedStore
from mmsearch.vectors.tuning import K, Truth, aim, measure, nearest, recall, tune

if TYPE_CHECKING:
    from mmsearch.records import Vectors
    from mmsearch.vectors.matrix import Matrix

_BLOCK = 4096  # rows at a time: what is done with them finds them in the processor's own memory
_READ = 2**28  # bytes of rows that are read before their pages are given back
_TRAINED_ON = 65_536
_ROUNDS = 10  # of k-means: lists are no better after 25
_COARSE = 400  # rows that lists and graphs choose where there is nothing to tune them with
_EXACT = 256  # queries that are enough where every row is looked at
_PROVED = 32  # true answers that are also had by multiplying every row
_TOGETHER = 256  # queries whose true answers are looked for at once


def build_index(
    path: str, matrix: Matrix, plan: Plan, queries: Mapping[str, Vectors]
) -> tuple[IndexFile, str]:
    """Write the index of a matrix under `path`; return it, opened, and the file's SHA-256.

    `queries` are (n, dim) unit rows of "text" and perhaps "image". Every second text sets what is
    not exact, the rest are measured with: two thousand of them, if the figures are to be trusted;
    without texts, pictures set it. An engine that falls short of its target is replaced by the
    exact one, and the index's `note` says so. Raises OSError, and ValueError when FAISS does not
    know the plan's factory string.
    """
    rows = matrix.rows.vectors
    sample = singles(np.ascontiguousarray(rows[:: -(-len(rows) // _TRAINED_ON)]))
    mean = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
    step = step_of(_blocks(matrix), mean)
    writer = IndexWriter(path, matrix)
    try:
        writer.put("rows", round_rows(_blocks(matrix), mean, step))
        writer.put("mean", [mean])
        held, pages = writer.mapped("rows", rows.shape[1])
        draft = IndexFile(
            path, matrix.generation, matrix.fingerprint, matrix.last_id, plan, {}, {}, "",
            Rounded(held, mean, step), np.empty(0, np.uint8), pages,
        )  # fmt: skip
        asked = _asked(queries, matrix, draft)
        codes = _trained(plan, matrix, sample, asked)
        draft = _settled(draft, matrix, codes, asked)
        if draft.note:  # it fell short
            codes = _trained(draft.plan, matrix, sample, asked)
            draft = _settled(draft, matrix, codes, asked)
        size = writer.put_streamed("faiss", lambda take: faiss.write_index(codes, written_by(take)))
        per_vector = round(size / len(rows) + rows.shape[1] + 13, 1)
        plan = replace(draft.plan, bytes_per_vector=per_vector)
        sha256 = writer.finish(plan, step, draft.settings, draft.measured, draft.note)
    finally:
        writer.close()
    durable.replace(writer.temporary, path)
    return open_index(path, matrix), sha256


class _Asked(NamedTuple):
    """Queries of one kind: those that set an index, and fresh ones that measure it."""

    setting: Vectors
    setting_truth: Truth
    fresh: Vectors
    fresh_truth: Truth


def _asked(queries: Mapping[str, Vectors], matrix: Matrix, draft: IndexFile) -> dict[str, _Asked]:
    """Two halves of these queries; the first is empty where they are not to set anything. They
    alternate: what stands together in a library is often alike.
    """
    halves = {}
    for kind, some in queries.items():
        sets = not draft.plan.exact and (kind == "text" or not len(queries.get("text", ())))
        fresh = some[1::2][: _EXACT if draft.plan.exact else None]
        halves[kind] = some[::2] if sets else some[:0], fresh
    if not halves:
        return {}
    # every row is looked at once for all of them
    truth = _truth(matrix, draft, np.concatenate([*itertools.chain(*halves.values())]))
    asked, start = {}, 0
    for kind, (setting, fresh) in halves.items():
        middle = start + len(setting)
        end = middle + len(fresh)
        parts = truth.part(start, middle), truth.part(middle, end)
        asked[kind] = _Asked(setting, parts[0], fresh, parts[1])
        start = end
    return asked


def _truth(matrix: Matrix, draft: IndexFile, queries: Vectors) -> Truth:
    """What is not exact is judged by exact search in stages; that, and a sample of its answers, by
    products with every row.
    """
    rows = matrix.rows.vectors
    if draft.plan.exact or len(queries) <= _PROVED:
        truth = nearest(rows, queries)
    else:
        store = StagedStore(matrix, replace(draft, plan=choose(10**5, rows.shape[1])))
        parts = range(0, len(queries), _TOGETHER)
        found = [store.search(queries[start : start + _TOGETHER], K) for start in parts]
        scores, ids = (np.concatenate(part) for part in zip(*found, strict=True))
        truth = Truth(scores, np.searchsorted(matrix.rows.ids, ids))
        proof = slice(None, None, len(queries) // _PROVED)
        if recall(scores[proof], nearest(rows, queries[proof]).scores) < 1:
            truth = nearest(rows, queries)
        draft.release()
    matrix.release()
    return truth


def _sets(asked: Mapping[str, _Asked]) -> _Asked | None:
    """Those that set what is not exact: texts if there are any."""
    some = (asked[kind] for kind in ("text", "image") if kind in asked)
    return next((each for each in some if len(each.setting)), None)


def _trained(plan: Plan, matrix: Matrix, sample: Vectors, asked: Mapping[str, _Asked]) -> Any:
    dim = sample.shape[1]
    if plan.engine is Engine.PARTITIONED:
        queries = one.setting if (one := _sets(asked)) else sample[:0]
        return build_lists(sample, _blocks(matrix), *lists_of(plan.factory), queries)
    if plan.engine is Engine.STAGED:
        return _coded(matrix, Codebook(sample, parts_of(plan.factory)))
    index = described(plan.factory, dim)
    _hush(index)
    try:
        index.train(sample)
        for block in _blocks(matrix):
            index.add(block)
    except RuntimeError as error:
        rows = len(matrix.rows.ids)
        raise ValueError(f"FAISS cannot build {plan.factory!r} of {rows:,} rows") from error
    return index


def _coded(matrix: Matrix, book: Codebook) -> Any:
    """FAISS's fast scan over the codes of all rows."""
    count, dim = matrix.rows.vectors.shape
    codes: Any = faiss.IndexPQ(dim, book.quantizer.M, 4, faiss.METRIC_INNER_PRODUCT)
    codes.pq, codes.is_trained, codes.ntotal = book.quantizer, True, count
    found = np.empty((count, codes.code_size), np.uint8)
    for number, block in enumerate(_blocks(matrix)):
        found[number * _BLOCK :][: len(block)] = book.codes(block)
    faiss.copy_array_to_vector(found.ravel(), codes.codes)
    return faiss.IndexPQFastScan(codes)


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
    outer: Any = faiss.downcast_index(index)
    for at in range(outer.chain.size() if hasattr(outer, "chain") else 0):
        turned: Any = faiss.downcast_VectorTransform(outer.chain.at(at))
        if isinstance(turned, faiss.OPQMatrix):  # which makes one of its own, without this
            turned.pq = codes = faiss.ProductQuantizer(turned.d_out, turned.M, 8)
            codes.cp.min_points_per_centroid = 1
            index.referenced_objects = [codes]  # FAISS holds a pointer alone
    inner: Any = index
    while inner is not None:
        inner = faiss.downcast_index(inner)
        if hasattr(inner, "pq"):
            inner.pq.cp.min_points_per_centroid = 1
        if hasattr(inner, "do_polysemous_training"):  # half a million steps a part, for a search
            inner.do_polysemous_training = False  # by Hamming distance that is not asked for
        inner = getattr(inner, "index", None) or getattr(inner, "base_index", None)


def _settled(
    draft: IndexFile, matrix: Matrix, codes: Any, asked: Mapping[str, _Asked]
) -> IndexFile:
    """What this index is with its settings and figures, or with a note and the exact plan."""
    plan = draft.plan
    if plan.engine is Engine.PARTITIONED:  # of as many parts as these rows need
        plan = replace(plan, factory=description(codes))
    draft = replace(draft, plan=plan, settings={} if plan.exact else {"coarse": _COARSE})
    store = StagedStore(matrix, draft, codes)
    if (one := _sets(asked)) is not None:
        settings = tune(store, one.setting, one.setting_truth, aim(plan.target_recall))
        draft = replace(draft, settings=settings)
    measured = {
        kind: measure(store, each.fresh, each.fresh_truth)
        for kind, each in asked.items()
        if len(each.fresh)
    }
    draft.release()
    matrix.release()
    draft = replace(draft, measured=measured)
    told = measured.get("text") or measured.get("image")
    if draft.note or plan.exact or told is None or told["recall@10"] >= plan.target_recall:
        return draft
    exact = choose(max(len(matrix.rows.ids), 10**5), matrix.rows.vectors.shape[1])
    note = (
        f"{plan.factory} reached a recall of {told['recall@10']:.3f} where "
        f"{plan.target_recall:g} was asked for: searched exactly instead"
    )
    return replace(draft, plan=exact, note=note)


def _blocks(matrix: Matrix) -> Iterator[Vectors]:
    rows, read = matrix.rows.vectors, 0
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        yield singles(block)
        read += block.nbytes
        if read > _READ:
            matrix.release()
            read = 0
    matrix.release()
