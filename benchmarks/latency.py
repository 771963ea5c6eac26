"""How long a query takes, in libraries of several sizes: cold and warm, one and many, filtered.

    python benchmarks/latency.py                     # 1,000, 10,000 and 100,000 pictures
    python benchmarks/latency.py --sizes 1000000     # needs 4 GB of disk
    python benchmarks/latency.py --sizes 300 --asked 3 --repeat 1 --many 8 --out /tmp/latency.json

The pictures do not exist (`made.py`). Every way of asking takes turns with the others and with the
bare limits on the same rows: the encoder alone, FAISS's `IndexFlatIP` and numpy. Exits 1 when
something could not be measured, and says what and why.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tables
from made import FLICKR8K, Near, near_photos, questions, write_library
from measuring import CLI, REPOSITORY, begin, milliseconds, run, spread, timed

import mmsearch
from mmsearch.catalog import Catalog
from mmsearch.datasets.captions import read_captions
from mmsearch.embedding import embed
from mmsearch.encoders import open_encoder
from mmsearch.records import Modality

SIZES = (1_000, 10_000, 100_000)
KEEPING = {"10 %": "height <= 100", "1 %": "height <= 10", "0.1 %": "height <= 1"}
WARMING = 3  # turns before those that count: sessions start, filters are met


def cold(folder: Path, words: str, repeat: int) -> dict[str, Any]:
    """`mmsearch query` as a process of its own: wall and processor seconds, and memory in MB."""
    command = [*CLI, "query", words, "--index", str(folder), "--format", "json"]
    costs = [run(command, watch=True) for _ in range(repeat + 1)][1:]  # the first fills caches
    found = {name: spread([getattr(cost, name) for cost in costs]) for name in ("wall", "cpu")}
    seen = [cost.highest for cost in costs if cost.highest]
    return {**found, "memory_mb": max(seen, default=None)}


def rows_of(folder: Path) -> Any:
    """(n, dim) float32: every vector that the library holds."""
    with Catalog.open(folder / "library.db") as catalog:
        return np.concatenate(
            [rows.vectors for rows in catalog.vectors_after(catalog.spaces()[0][0], 0)]
        )


def top(rows: Any, vector: Any, k: int) -> Any:
    """The k best rows by numpy."""
    scores = rows @ vector
    best = np.argpartition(-scores, k)[:k]
    return best[np.argsort(-scores[best])]


def warm(
    library: mmsearch.Library, rows: Any, asked: Sequence[str], pictures: Sequence[Path]
) -> dict[str, Any]:
    """Milliseconds of every way, each turn with another text or picture."""
    vectors = embed(asked, Modality.TEXT)
    ways: dict[str, Callable[[int], Any]] = {
        "encoding alone": lambda n: embed([asked[n]], Modality.TEXT),
        "numpy": lambda n: top(rows, vectors[n], 10),
        "text": lambda n: library.query(asked[n]),
        "text, vectors alone": lambda n: library.query(asked[n], hybrid="off"),
        "picture": lambda n: library.query(mmsearch.image(pictures[n % len(pictures)])),
    }
    for share, where in KEEPING.items():
        ways[f"text, {share} kept"] = lambda n, where=where: library.query(asked[n], where=where)
    if (flat := _flat(rows)) is not None:
        ways["FAISS Flat"] = lambda n: flat.search(vectors[n][None], 10)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(len(asked)):
        for step in range(len(ways)):
            way = list(ways)[(turn + step) % len(ways)]
            took = timed(lambda way=way, turn=turn: ways[way](turn))
            if turn >= WARMING:
                seconds[way].append(took)
    return {way: milliseconds(values) for way, values in seconds.items()}


def together(library: mmsearch.Library, rows: Any, asked: Sequence[str]) -> dict[str, Any]:
    """Queries a second when many are asked at once, by turns with FAISS on encoded rows."""
    vectors = embed(asked, Modality.TEXT)
    flat = _flat(rows)
    ours, encoding, theirs = [], [], []
    for _ in range(3):
        ours.append(timed(lambda: library.query_many(asked)))
        encoding.append(timed(lambda: embed(asked, Modality.TEXT)))
        if flat is not None:
            theirs.append(timed(lambda: flat.search(vectors, 10)))
    a_second = {"query_many": ours, "encoding alone": encoding, "FAISS Flat": theirs}
    return {
        "queries": len(asked),
        "a_second": {
            name: len(asked) / statistics.median(took) for name, took in a_second.items() if took
        },
    }


def _flat(rows: Any) -> Any:
    try:
        import faiss
    except ImportError:
        return None
    flat = faiss.IndexFlatIP(rows.shape[1])
    flat.add(rows)
    return flat


def measure(
    size: int, near: Near, flickr8k: Path, asked: int, repeat: int, many: int
) -> dict[str, Any]:
    """One size: a library is written, asked, and removed."""
    said, pictures = questions(flickr8k), [p.path for p in read_captions(flickr8k, "test")]
    with tempfile.TemporaryDirectory(prefix="mmsearch-latency-") as name:
        folder = Path(name, "library")
        write_library(folder, open_encoder("builtin"), near, size)
        found: dict[str, Any] = {"items": size, "cold": cold(folder, "a dog on grass", repeat)}
        rows = rows_of(folder)
        found["vectors"] = len(rows)  # with those of captions
        with mmsearch.open_library(folder) as library:
            found["first_ms"] = 1e3 * timed(lambda: library.query("a first query opens it"))
            found["warm_ms"] = warm(library, rows, said[: asked + WARMING], pictures)
            found["together"] = together(library, rows, said[-many:])
    return found


def main() -> int:
    """Measure every size, write the figures, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--flickr8k", type=Path, default=FLICKR8K, help="photos and captions to be near")
    add("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "latency.json")
    add("--sizes", type=int, nargs="+", default=SIZES, help="pictures in each library")
    add("--asked", type=int, default=60, help="warm queries of each way")
    add("--repeat", type=int, default=5, help="processes of the cold query")
    add("--many", type=int, default=256, help="queries that are asked at once")
    add("--near", type=int, help="only so many real photos to be near")
    given = parser.parse_args()
    if not given.flickr8k.is_dir():
        print(f"not measured: no Flickr8k at {given.flickr8k}; --flickr8k DIR", file=sys.stderr)
        return 1
    encoder = open_encoder("builtin")
    found = begin(["numpy", "onnxruntime", "faiss-cpu"], encoder)
    near = near_photos(given.flickr8k, given.near)
    found["sizes"] = []
    for size in given.sizes:
        print(f"{size:,} pictures ...", file=sys.stderr, flush=True)
        how = given.asked, given.repeat, given.many
        found["sizes"].append(measure(size, near, given.flickr8k, *how))
    problems = []
    if _flat(near.photos) is None:
        problems.append("FAISS is not installed, so its bare search was not measured")
    found["problems"] = problems
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print("\n".join(tables.latency(found)))
    for problem in problems:
        print(f"not measured: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
