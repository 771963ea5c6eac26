"""What a query costs in a library of 100,000 pictures: warm, filtered, and ten thousand at once.

    python benchmarks/queries.py --data DATA --out benchmarks/results/queries.json

The pictures do not exist: their vectors lie near those of Flickr8k's photos, their names are made
of its captions, one in ten has a caption of its own, and one in a hundred is 999 pixels wide.
They are written as `mmsearch index` writes them; then everything is asked through the library:
captions and words, hubness and relevance are on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measuring import machine, origin

from mmsearch import backgrounds, open_library
from mmsearch.catalog import Catalog, Content
from mmsearch.datasets.captions import read_captions
from mmsearch.embedding import embed
from mmsearch.encoders import Encoder, open_encoder
from mmsearch.library import Library
from mmsearch.records import Modality
from mmsearch.space import Space

BAR_MS, BAR_RATIO = 15.0, 5.0
WIDE = "width = 999"  # one picture in a hundred


def write(folder: Path, data: Path, count: int, encoder: Encoder) -> None:
    """A library of `count` pictures near real ones; the cosine to the real one is about 0.9."""
    photos = read_captions(data / "flickr8k", "dev")
    near = embed([photo.path for photo in photos], Modality.IMAGE)
    said = [caption for photo in photos for caption in photo.captions]
    rows_said = embed(said, Modality.TEXT)
    random = np.random.default_rng(1)
    folder.mkdir(mode=0o700)
    with Catalog.create(folder / "library.db") as catalog:
        with catalog.transaction():
            space_id = catalog.put_space(encoder.name, encoder.fingerprint, encoder.dim)
            catalog.put_root(b"/made", 0)
        captions: dict[str, int] = {}
        row_of = dict(zip(said, rows_said, strict=True))
        for start in range(0, count, 2000):
            numbers = np.arange(start, min(start + 2000, count))
            vectors = near[numbers % len(near)]
            noise = random.standard_normal(vectors.shape).astype(np.float32)
            vectors = vectors + noise * np.float32(0.5 / np.sqrt(encoder.dim))
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            with catalog.transaction():
                for number, row in zip(numbers.tolist(), vectors, strict=True):
                    one = Content(
                        number.to_bytes(32, "big"), Modality.IMAGE, "JPEG",
                        999 if number % 100 == 0 else 640, 480,
                    )  # fmt: skip
                    content_id = catalog.put_content(one, space_id, row[None])
                    name = said[number * 5 % len(said)].replace("/", " ").encode()
                    path = b"/made/%03d/%s %d.jpg" % (number // 1000, name, number)
                    file_id = catalog.put_file(path, (1, 1, number + 1), content_id=content_id)
                    if number % 10 == 0:
                        words = said[number // 10 % len(said)]
                        if words not in captions:
                            rows = row_of[words][None]
                            captions[words] = catalog.put_caption(words, space_id, rows)
                        catalog.put_captions(file_id, [(captions[words], "sidecar")])
        space = Space(catalog, folder / "cache", catalog.spaces()[0])
        backgrounds.refresh(catalog, space, encoder)
        space.write_cache(always=True)


def timed(work: Callable[[], Any]) -> float:
    """Seconds of wall time."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def milliseconds(values: list[float]) -> dict[str, float]:
    """Of seconds: the median, the 95th percentile and the least."""
    return {
        "median": 1e3 * statistics.median(values),
        "p95": 1e3 * float(np.percentile(values, 95)),
        "least": 1e3 * min(values),
    }


def measure(library: Library, asked: list[str], many: list[str]) -> dict[str, Any]:
    """Every way by turns, each with a text of its own, so that all meet the same machine."""
    ways: dict[str, Callable[[str], Any]] = {
        "encoding alone": lambda words: embed([words], Modality.TEXT),
        "query": library.query,
        "query, vectors alone": lambda words: library.query(words, hybrid="off"),
        "query, words alone": lambda words: library.query(words, hybrid="only"),
        f"query, {WIDE}": lambda words: library.query(words, where=WIDE),
        "query, leaving out": lambda words: library.query(f'"{words}" AND NOT "a dog"'),
        "query, all formats of answer": lambda words: library.query(words, 50, all=True),
    }
    library.query("a first query opens the library")
    first = timed(lambda: library.query("another", where=WIDE))
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number, words in enumerate(asked):
        for turn in range(len(ways)):
            way = list(ways)[(turn + number) % len(ways)]
            seconds[way].append(timed(lambda way=way, words=words: ways[way](words)))
    singles = [timed(lambda words=words: library.query(words)) for words in many[:500]]
    together = timed(lambda: library.query_many(many))
    singles += [timed(lambda words=words: library.query(words)) for words in many[-500:]]
    return {
        "milliseconds": {way: milliseconds(values) for way, values in seconds.items()},
        "a_filter_met_first_ms": 1e3 * first,
        "many": {
            "queries": len(many),
            "together_s": together,
            "one_by_one_s": statistics.mean(singles) * len(many),
            "one_by_one_measured_on": len(singles),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="with Flickr8k")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--many", type=int, default=10_000)
    options = parser.parse_args()
    encoder = open_encoder("builtin")
    photos = read_captions(options.data / "flickr8k", "train")
    said = list(dict.fromkeys(caption for photo in photos for caption in photo.captions))
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work, "index")
        write(folder, options.data, options.rows, encoder)
        with open_library(folder) as library:
            found = measure(library, said[:100], said[-options.many :])
    query, filtered = (found["milliseconds"][way]["median"] for way in ("query", f"query, {WIDE}"))
    ratio = found["many"]["one_by_one_s"] / found["many"]["together_s"]
    result = {
        "machine": machine(), **origin(["numpy", "onnxruntime"]), "model": encoder.name,
        "fingerprint": encoder.fingerprint, "rows": options.rows, **found,
        "bars": [
            {"measure": "warm text query, ms", "bar": f"≤ {BAR_MS:g}", "measured": query,
             "met": query <= BAR_MS},
            {"measure": "a filter that keeps 1 %, ms, below no filter", "bar": f"< {query:.1f}",
             "measured": filtered, "met": filtered < query},
            {"measure": f"{options.many:,} queries together, times as fast",
             "bar": f"≥ {BAR_RATIO:g}",
             "measured": ratio, "met": ratio >= BAR_RATIO},
        ],
    }  # fmt: skip
    options.out.write_text(
        json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    print(json.dumps(result["bars"], indent=1))


if __name__ == "__main__":
    sys.exit(main())
