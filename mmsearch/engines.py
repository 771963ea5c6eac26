"""The index files beside a matrix: what is wished for, what is built, and which are sound.

An index is a cache, as the matrix is: of one kind of vectors and one generation. A file that is
not what was written, or belongs to another matrix, is never searched; the rows are then all
multiplied, which is slower and right, until the next `mmsearch index` builds it anew.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch import hubness
from mmsearch.catalog import Catalog
from mmsearch.errors import LibraryDamaged, UsageError
from mmsearch.groups import Group
from mmsearch.records import Kind
from mmsearch.settings import Settings
from mmsearch.vectors import (
    Engine,
    Plan,
    build_index,
    check_factory,
    choose,
    gpu_available,
    open_index,
)
from mmsearch.vectors.exact import highest
from mmsearch.vectors.matrix import Matrix, hash_file
from mmsearch.vectors.planning import EXACT, INDEX_FROM_ROWS

if TYPE_CHECKING:
    from mmsearch.records import Vectors
    from mmsearch.vectors.codes import IndexFile

_SETTING = "engine"  # in the catalog: what was wished for
_QUERIES = 2000  # that an index is tuned and measured with, half of them each
_FEWEST = 200  # captions that are taken for queries; below, a bank is made of the pictures
_SINGLE = 50  # queries timed one by one
_K = 10


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is asked of the engine: a recall@10 (0: as usual), megabytes of memory for each kind of
    vectors (0: any), and FAISS's description of an index ("": as usual).
    """

    target_recall: float = 0.0
    max_memory_mb: float = 0.0
    faiss: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.target_recall <= 1:
            raise UsageError(f"a recall is above 0 and at most 1, not {self.target_recall:g}")

    def text(self) -> str:
        """As it is kept in the catalog."""
        return json.dumps(asdict(self))


def wished(catalog: Catalog, settings: Settings | None = None) -> Wishes:
    """What is remembered of this library's wishes, with those of the settings in their place.

    Raises UsageError for a recall that is none.
    """
    kept = Wishes(**json.loads(catalog.setting(_SETTING) or "{}"))
    if settings is None:
        return kept
    given = {name: getattr(settings, name) for name in ("target_recall", "max_memory_mb", "faiss")}
    now = replace(kept, **{name: value for name, value in given.items() if value})
    return replace(now, faiss="") if now.faiss == "auto" else now


def check(wishes: Wishes, dims: Iterable[int]) -> None:
    """Raises UsageError for what FAISS cannot build of vectors of these dimensions."""
    try:
        for dim in dims if wishes.faiss and find_spec("faiss") else ():
            check_factory(wishes.faiss, dim)
    except ValueError as error:
        raise UsageError(
            f"{error} of {dim} dimensions; --faiss auto leaves the choice to mmsearch"
        ) from error


def remember(catalog: Catalog, wishes: Wishes) -> None:
    """Keep these wishes for the runs to come."""
    if wishes != wished(catalog):
        with catalog.transaction():
            catalog.put_setting(_SETTING, wishes.text())


def plans(counts: Mapping[Kind, int], dim: int, wishes: Wishes) -> tuple[dict[Kind, Plan], str]:
    """The engine of each kind of so many vectors, and why it is not what was wished for, or ""."""
    found, why = {}, ""
    approximate = 0 < wishes.target_recall < EXACT
    for kind, count in counts.items():
        plain = choose(0, dim)
        try:
            plan = choose(
                count, dim, target_recall=wishes.target_recall or None, factory=wishes.faiss,
                max_memory=1e6 * wishes.max_memory_mb if wishes.max_memory_mb else None,
                gpu=approximate and count >= INDEX_FROM_ROWS and gpu_available(),
            )  # fmt: skip
        except ValueError as error:
            why, plan = f"{error}: they are searched without an index", plain
        if plan.engine is not Engine.PLAIN and not find_spec("faiss"):
            why = (
                'an index needs an extra: pip install "mmsearch[cpu]"; until then all is multiplied'
            )
            plan = plain
        found[kind] = plan
    return found, why


def build(
    stem: str,
    matrix: Matrix,
    wanted: Mapping[Kind, Plan],
    sentences: Vectors | None,
    asked: Vectors,
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Write the index of each kind that is to have one: their records by kind, and what there is
    to say. Raises OSError.
    """
    records, notes = {}, []
    for kind, plan in wanted.items():
        mine = matrix.of(kind)
        if plan.engine is Engine.PLAIN or mine is None:
            continue
        path = f"{stem}-{kind.name.lower()}.index"
        try:
            index, sha256 = build_index(path, mine, plan, queries(matrix, kind, sentences, asked))
        except ValueError as error:
            notes.append(f"{error}; {kind.name.lower()} vectors are searched without an index")
            continue
        if index.note:
            notes.append(index.note)
        records[kind.name] = {"file": os.path.basename(path), "sha256": sha256, **figures(path)}
    return records, notes


def queries(
    matrix: Matrix, kind: Kind, sentences: Vectors | None, asked: Vectors
) -> dict[str, Vectors]:
    """What an index of one kind is measured with: words and pictures, as there are any.

    Words are what was `asked` and kept, up to half of all, and the library's captions; where these
    are few, the bank that hubness is taken from: sentences, and pictures moved towards them.
    """
    found = {}
    pictures, captions = (_some(matrix, one) for one in (Kind.IMAGE, Kind.CAPTION))
    words = captions[:0]
    if len(captions) >= _FEWEST:
        words = captions
    elif sentences is not None:
        words = hubness.bank(sentences, pictures)[-_QUERIES:]
    if len(words) or len(asked) >= _FEWEST:
        found["text"] = _mixed(words, asked[-_QUERIES // 2 :])
    if len(pictures):
        found["image"] = pictures
    return found or {"text": _some(matrix, kind)}


def _mixed(words: Vectors, asked: Vectors) -> Vectors:
    """(n, dim) of both, so that each half of them has its share of what was asked."""
    if not len(asked):
        return words
    every = np.concatenate([words[: _QUERIES - len(asked)], asked])
    mixed: Vectors = every[np.random.default_rng(0).permutation(len(every))]
    return mixed


def _some(matrix: Matrix, kind: Kind) -> Vectors:
    mine = matrix.of(kind)
    if mine is None:
        return np.empty((0, matrix.rows.vectors.shape[1]), np.float32)
    rows = mine.rows.vectors
    some: Vectors = rows[:: -(-len(rows) // _QUERIES)].astype(np.float32)
    return some


def opened(folder: Path, record: Mapping[str, Any], matrix: Matrix) -> tuple[IndexFile | None, str]:
    """The index of this record, or None and why it is not used."""
    path = str(folder / record["file"])
    try:
        now = figures(path)
        if now != {name: record[name] for name in now} and hash_file(path) != record["sha256"]:
            return None, f"{path} is not what was written"
        return open_index(path, matrix), ""
    except (OSError, LibraryDamaged) as error:
        return None, str(error)


def figures(path: str) -> dict[str, int]:
    """What tells a file from another of its name, without reading it. Raises OSError."""
    status = os.stat(path)
    return {
        "size": status.st_size,
        "inode": status.st_ino,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
    }


def measure(group: Group, asked: Mapping[str, Vectors]) -> dict[str, dict[str, float]]:
    """Recall@10 against every score, milliseconds of one query, and queries a second of many, by
    what the queries are. At most a thousand of each.
    """
    found = {}
    for kind, every in asked.items():
        rows = every[-_QUERIES // 2 :]
        begun = time.perf_counter()
        _, near = group.nearest(rows, _K)
        together = time.perf_counter() - begun
        seconds = []
        for row in rows[:_SINGLE]:
            begun = time.perf_counter()
            group.nearest(row[None], _K)
            seconds.append(time.perf_counter() - begun)
        right = total = 0
        for row, mine in zip(rows, near, strict=True):
            scored = group.all(row[None])
            truth = scored.ids[highest(scored.scores[0], _K)]
            right, total = right + len(np.intersect1d(truth, mine)), total + len(truth)
        found[kind] = {
            "recall@10": right / total,
            "p50_ms": 1e3 * float(np.median(seconds)),
            "p95_ms": 1e3 * float(np.percentile(seconds, 95)),
            "qps": len(rows) / together,
            "queries": len(rows),
        }
    return found
