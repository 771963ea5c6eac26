"""What a query costs in a library of 100,000 pictures: warm, filtered, and ten thousand at once.

    python benchmarks/queries.py --data DATA --out benchmarks/results/queries.json

The pictures do not exist (`made.py`). Everything is asked through the library: captions and words,
hubness and relevance are on.
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

from made import near_photos, questions, write_library
from measuring import machine, milliseconds, origin, timed

from mmsearch import open_library
from mmsearch.embedding import embed
from mmsearch.encoders import open_encoder
from mmsearch.library import Library
from mmsearch.records import Modality

BAR_MS, BAR_RATIO = 15.0, 5.0
WIDE = "width = 999"  # one picture in a hundred


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
    spent = dict.fromkeys(ways, 0.0)  # of the processor, all threads
    for number, words in enumerate(asked):
        for turn in range(len(ways)):
            way = list(ways)[(turn + number) % len(ways)]
            begun = time.process_time()
            seconds[way].append(timed(lambda way=way, words=words: ways[way](words)))
            spent[way] += time.process_time() - begun
    begun = time.process_time()
    singles = [timed(lambda words=words: library.query(words)) for words in many[:500]]
    between = time.process_time()
    together = timed(lambda: library.query_many(many))
    after = time.process_time()
    singles += [timed(lambda words=words: library.query(words)) for words in many[-500:]]
    alone = (between - begun + time.process_time() - after) / len(singles)
    return {
        "milliseconds": {way: milliseconds(values) for way, values in seconds.items()},
        "processor_ms": {way: 1e3 * total / len(asked) for way, total in spent.items()},
        "a_filter_met_first_ms": 1e3 * first,
        "many": {
            "queries": len(many),
            "together_s": together,
            "one_by_one_s": statistics.mean(singles) * len(many),
            "one_by_one_measured_on": len(singles),
            "together_processor_s": after - between,
            "one_by_one_processor_s": alone * len(many),
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
    flickr8k = options.data / "flickr8k"
    said = questions(flickr8k)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work, "index")
        write_library(folder, encoder, near_photos(flickr8k), options.rows)
        with open_library(folder) as library:
            found = measure(library, said[:100], said[-options.many :])
    query, filtered = (found["milliseconds"][way]["median"] for way in ("query", f"query, {WIDE}"))
    many = found["many"]
    ratio = many["one_by_one_s"] / many["together_s"]
    by_processor = many["one_by_one_processor_s"] / many["together_processor_s"]
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
            {"measure": f"{options.many:,} queries together, times less processor time",
             "bar": f"≥ {BAR_RATIO:g}",
             "measured": by_processor, "met": by_processor >= BAR_RATIO},
        ],
    }  # fmt: skip
    options.out.write_text(
        json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    print(json.dumps(result["bars"], indent=1))


if __name__ == "__main__":
    sys.exit(main())
