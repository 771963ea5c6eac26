"""Other programs that find photos by words, on the same photos: what each costs and withstands.

    python benchmarks/peers.py                      # all; installs them into a cache folder first
    python benchmarks/peers.py --install            # only that
    python benchmarks/peers.py --part indexing --turns 1    # then --turns 2 --resume, and so on
    python benchmarks/peers.py --only rclip --many 32 --few 8 --out /tmp/peers.json

rclip, clip-retrieval (with autofaiss) and sentence-transformers (with FAISS), each in its own
environment, with one random ViT-B/32 in each one's own format (`peer_weights.py`); mmsearch with
the same, and with its built-in model. What a program cannot do is said where its figure would
stand. A turn, and each fault, is written as soon as it is whole, and --resume goes on from there,
where settings, programs and code are the same. Exits 1 when something could not be measured, and
says what and why. README.md, in this folder, says how each figure comes about.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import kept
import tables
from made import FLICKR8K
from measuring import REPOSITORY
from peer_bench import Bench
from peer_faults import faults
from peer_programs import PEERS, environment, versions, weights
from peer_recall import recall
from peer_speed import indexing, queries

from mmsearch.datasets.captions import read_captions

PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "indexing": indexing,
    "queries": queries,
    "faults": faults,
    "recall": recall,
}


def main() -> int:
    """Measure the parts, write the figures, print the tables."""
    given = _given()
    if not given.flickr8k.is_dir():
        print(f"not measured: no Flickr8k at {given.flickr8k}; --flickr8k DIR", file=sys.stderr)
        return 1
    given.cache = given.cache.resolve()
    with tempfile.TemporaryDirectory(prefix="mmsearch-peers-") as work:
        photos = [photo.path for photo in read_captions(given.flickr8k, "train")]
        bench = Bench(photos, given.flickr8k, Path(work).resolve(), given.cache, given)
        installed = bench.attempt("environments", lambda: {
            peer.name: versions(peer.name, environment(peer.name, given.cache)) for peer in PEERS
        })  # fmt: skip
        bench.peers = installed or {}
        bench.attempt("weights", lambda: weights(given.cache))
        measured = [] if given.install or bench.problems else given.part
        for name in measured:
            bench.attempt(name, partial(PARTS[name], bench))
    if measured and given.out.exists():
        print("\n\n".join("\n".join(lines) for lines in tables.peers(kept.read(given.out))))
    for problem in bench.problems:
        print(f"not measured: {problem}", file=sys.stderr)
    return 1 if bench.problems else 0


def _given() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--flickr8k", type=Path, default=FLICKR8K, help="photos and captions")
    add("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "peers.json")
    add("--part", nargs="+", choices=list(PARTS), default=list(PARTS))
    add("--only", nargs="+", help="only these programs")
    add("--install", action="store_true", help="make the environments, measure nothing")
    add("--resume", action="store_true", help="go on from what was measured of these parts")
    add("--turns", type=int, default=3, help="of indexing and of queries, all in all")
    add("--few", type=int, default=16, help="photos, so few that starting is most of it")
    add("--many", type=int, default=200, help="photos: what one costs is these less the few")
    add("--kill", type=int, default=400, help="photos of the run that is killed")
    add("--asked", type=int, default=32, help="warm queries")
    add("--rows", type=int, default=100_000, help="made-up pictures, for recall")
    add("--recall-queries", type=int, default=500, help="captions, for recall")
    add("--near", type=int, help="only so many real photos to be near, for recall")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    add("--cache", type=Path, default=cache / "mmsearch-benchmarks", help="where peers are kept")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
