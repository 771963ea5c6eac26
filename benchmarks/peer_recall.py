"""What autofaiss's index loses, and what this project's own does, on the same rows."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from index_data import write_rows
from latency import top
from made import near_photos, questions, rows_near
from measuring import run, timed
from peer_bench import BUILTIN, Bench
from peer_programs import PROGRAMS, environment

from mmsearch.embedding import embed
from mmsearch.records import Modality
from mmsearch.vectors import Engine, VectorStore, build_index, choose, open_store


def recall(bench: Bench) -> dict[str, Any]:
    """autofaiss's index of made-up pictures, which clip-retrieval takes as it comes, against the
    ten nearest in truth; and what this project searches such a number with, on the same rows.

    Queries are captions, encoded by the built-in model as the photos are.
    """
    given = bench.given
    part = bench.begun("recall", {"rows": given.rows, "queries": given.recall_queries})
    if "programs" in part:
        return part
    python = environment("clip-retrieval", bench.cache)
    near = near_photos(bench.flickr8k, given.near)
    made = np.concatenate(list(rows_near(near, given.rows)))
    rows = made.astype(np.float16).astype(np.float32)  # as a catalog keeps them
    asked = embed(questions(bench.flickr8k)[: given.recall_queries], Modality.TEXT)
    exact = [set(top(rows, row, 10).tolist()) for row in asked]
    files = [bench.work / name for name in ("rows.npy", "asked.npy")]
    for file, values in zip(files, (rows, asked), strict=True):
        np.save(file, values)
    script = str(PROGRAMS / "autofaiss_index.py")
    command = [str(python), script, *map(str, files), str(bench.work)]
    told = json.loads(run(command, PYTHONPATH="").output.splitlines()[-1])
    found = told.pop("found")
    part["programs"] = {
        "clip-retrieval": {**told, "recall@10": _share(found, exact)},
        BUILTIN: _ours(bench.work, rows, asked, exact),
    }
    bench.keep("recall", part)
    return part


def _ours(work: Path, rows: Any, asked: Any, exact: Sequence[set[int]]) -> dict[str, Any]:
    """As a library of so many pictures is searched."""
    plan = choose(*rows.shape)
    opened: list[VectorStore] = []

    def build() -> None:
        matrix, index = write_rows(work, [rows], *rows.shape), None
        if plan.engine is not Engine.PLAIN:
            index, _ = build_index(str(work / "rows.index"), matrix, plan, {})
        opened.append(open_store("auto", rows.shape[1], matrix, index))

    built = timed(build)
    (store,) = opened
    answers: list[list[int]] = [[]] * len(asked)

    def one_by_one() -> None:
        for number, row in enumerate(asked):
            answers[number] = (store.search(row[None], 10)[1][0] - 1).tolist()

    single = timed(one_by_one)
    batch = timed(lambda: store.search(asked, 10))
    return {
        "build_s": built, "single_s": single, "batch_s": batch, "recall@10": _share(answers, exact),
        "index": plan.factory or "every row",
    }  # fmt: skip


def _share(found: Sequence[Sequence[int]], exact: Sequence[set[int]]) -> float:
    """Of the ten nearest in truth, the mean over queries."""
    return statistics.mean(
        len(set(one) & true) / 10 for one, true in zip(found, exact, strict=True)
    )
