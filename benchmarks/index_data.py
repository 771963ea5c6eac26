"""What benchmarks/index.py searches: a matrix file, queries, and the exact answers to them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray
from synthetic_vectors import Synthetic

from mmsearch.records import Rows
from mmsearch.vectors.kernels import singles
from mmsearch.vectors.matrix import Matrix, open_matrix, write_matrix
from mmsearch.vectors.planning import INDEX_FROM_ROWS

K = 10
TUNING = 2000  # texts: half of them set what is tuned, half say what came of it
ASKED = 1000  # fresh texts, and as many pictures
LARGE = 2_000_000  # rows from which on fewer are asked, and no other engine is measured
ASKED_OF_LARGE = {"text": 500, "image": 100}
_BLOCK = 16_384


@dataclass(frozen=True)
class Data:
    """A folder of one data set. Queries are (n, dim) unit rows, truth (n, 10) positions."""

    name: str
    folder: Path

    @property
    def matrix(self) -> Matrix:
        return open_matrix(str(self.folder / "rows.matrix"))

    def queries(self, kind: str) -> NDArray[np.float32]:
        """ "tune" and "text" are texts, "image" are pictures."""
        return np.load(self.folder / f"{kind}.npy")

    def truth(self, kind: str) -> NDArray[np.int64]:
        return np.load(self.folder / f"{kind}-truth.npy")

    def rows(self) -> Iterator[NDArray[np.float32]]:
        """Every row, a block at a time."""
        vectors = self.matrix.rows.vectors
        for start in range(0, len(vectors), _BLOCK):
            yield singles(vectors[start : start + _BLOCK])


def prepare(name: str, folder: Path, real: Path | None) -> Data:
    """Make "real" from a folder of benchmarks/real_vectors.py, or "clustered-N" of N rows."""
    data = Data(name, folder)
    folder.mkdir(parents=True, exist_ok=True)
    if name == "real":
        from real_vectors import read  # needs onnx

        assert real is not None
        photos, texts = read(real, "image"), read(real, "text").astype(np.float32)
        # the last photos' whole ones are what is asked; none of their windows is searched
        fresh = photos[-ASKED:, 0].astype(np.float32)
        rows = photos[:-ASKED].reshape(-1, photos.shape[-1])
        blocks: Iterator[NDArray[np.float32]] = (
            rows[s : s + _BLOCK].astype(np.float32) for s in range(0, len(rows), _BLOCK)
        )
        count, dim = rows.shape
    else:
        count, dim = int(name.removeprefix("clustered-")), 512
        made = Synthetic(dim)
        blocks, texts, fresh = made.pictures(count), made.texts(TUNING + ASKED), made.fresh(ASKED)
    if not (folder / "rows.matrix").exists():
        write_rows(folder, blocks, count, dim)
    for kind, queries in (
        ("tune", texts[:TUNING]), ("text", texts[TUNING : TUNING + ASKED]),
        ("image", fresh[:ASKED]),
    ):  # fmt: skip
        np.save(folder / f"{kind}.npy", queries)
    asked = {kind: data.queries(kind) for kind in ("tune", "text", "image")}
    if count >= LARGE:
        asked = {kind: asked[kind][:most] for kind, most in ASKED_OF_LARGE.items()}
    ends = np.cumsum([len(queries) for queries in asked.values()])
    truths = np.split(nearest(data, np.concatenate([*asked.values()])), ends[:-1])
    for kind, truth in zip(asked, truths, strict=True):
        np.save(folder / f"{kind}-truth.npy", truth)
    (folder / "data.json").write_text(json.dumps({"name": name, "n": count, "dim": dim}))
    return data


def nearest(data: Data, queries: NDArray[np.float32]) -> NDArray[np.int64]:
    """(q, 10) positions of the nearest rows, by products of float32 and nothing else."""
    best = np.full((len(queries), K), -np.inf, np.float32)
    at = np.zeros((len(queries), K), np.int64)
    start = 0
    for rows in data.rows():
        scores, mine = faiss.knn(queries, rows, K, metric=faiss.METRIC_INNER_PRODUCT)
        both = np.concatenate([best, scores], axis=1)
        where = np.concatenate([at, mine + start], axis=1)
        order = np.argsort(-both, axis=1, kind="stable")[:, :K]
        best, at = np.take_along_axis(both, order, 1), np.take_along_axis(where, order, 1)
        start += len(rows)
    return at


def recall(
    rows: NDArray[np.float16], queries: NDArray[np.float32], found: NDArray[np.int64],
    truth: NDArray[np.int64],
) -> float:  # fmt: skip
    """The share of ten answers that score no less than the tenth of the truth: of rows that are
    alike, one is as good as another.
    """
    hits = 0
    for query, line, true in zip(queries, found[:, :K], truth, strict=True):
        least = float((rows[true].astype(np.float32) @ query).min()) - 2e-6
        there = np.unique(line[line >= 0])
        hits += int((rows[there].astype(np.float32) @ query >= least).sum())
    return hits / truth.size


def write_rows(folder: Path, blocks: Iterable[NDArray[np.float32]], count: int, dim: int) -> Matrix:
    """The matrix file of these rows, with ids from 1, as a library of so many has it."""

    def rows() -> Iterator[Rows]:
        start = 0
        for block in blocks:
            size = len(block)
            nothing = np.zeros(size, np.uint8), np.zeros(size, np.float32)
            yield Rows(np.arange(start + 1, start + 1 + size), block, *nothing)
            start += size

    path, half = str(folder / "rows.matrix"), count >= INDEX_FROM_ROWS
    write_matrix(path, rows(), count, dim, 1, count, "0" * 64, half=half)
    return open_matrix(path)
