"""Measure speed and memory against their bars; print the table, write every raw figure.

    python benchmarks/indexing.py                  # a quiet machine, some ten minutes
    python benchmarks/indexing.py --limit 200 --rows 5000 --scale 2 --repeat 2   # does it run?
    python benchmarks/indexing.py --part cold again      # then --part process large --resume

Every figure stands beside the bare limit measured in the same run, the two taking turns. Exits 1
when something could not be measured, and says what and why. README.md, in this folder, says how
each figure comes about; `peers.py` has what other programs take.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kept
from indexing_again import again
from indexing_bench import Bench
from indexing_queries import large, process
from indexing_runs import cold, scale
from made import FLICKR8K
from measuring import REPOSITORY

from mmsearch.encoders import open_encoder

PACKAGES = ("numpy", "onnxruntime", "faiss-cpu", "tokenizers", "pillow", "sqlalchemy", "typer")
PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "cold": cold,
    "again": again,
    "process": process,
    "large": large,
    "scaled": scale,
}


def main() -> int:
    """Run every part, print the table, write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--photos", type=Path, default=FLICKR8K / "images", help="a folder without folders in it")
    add("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "indexing.json")
    add("--part", nargs="+", choices=list(PARTS), default=list(PARTS))
    add("--resume", action="store_true", help="keep the parts that were measured")
    add("--rows", type=int, default=100_000, help="pictures in the large library")
    add("--repeat", type=int, default=5, help="turns of the short measurements")
    add("--rounds", type=int, default=2, help="turns of the cold run")
    add("--scale", type=int, default=5, help="how many times the photos, for memory")
    add("--limit", type=int, help="only so many of the photos, to try the script")
    given = parser.parse_args()
    if not given.photos.is_dir():
        print(
            f"no folder of photos at {given.photos}: name one with --photos DIR (the bars are "
            "set for the 8,091 photos of Flickr8k, 224 x 224)", file=sys.stderr,
        )  # fmt: skip
        return 1
    settings = {
        name: getattr(given, name) for name in ("rows", "repeat", "rounds", "scale", "limit")
    }
    there = kept.read(given.out) if given.resume else {}
    raw = kept.begun(there, settings, PACKAGES, open_encoder("builtin"))
    with tempfile.TemporaryDirectory(prefix="mmsearch-bench-") as folder:
        bench = Bench(
            given.photos.resolve(), Path(folder), given.out, given.repeat, given.rounds, given.rows,
            given.scale, raw,
        )  # fmt: skip
        if given.limit:
            limited = bench.names()[: given.limit]
            bench.photos = bench.work / "photos"
            bench.photos.mkdir()
            for path in limited:
                shutil.copy2(path, bench.photos)
        for name in given.part:
            bench.part(name, PARTS[name])
    raw["table"] = as_markdown(raw)
    raw["problems"] = bench.problems
    kept.write(given.out, raw)
    print("\n".join(raw["table"]))
    for problem in bench.problems:
        print(f"not measured: {problem}", file=sys.stderr)
    return 1 if bench.problems else 0


def as_markdown(raw: dict[str, Any]) -> list[str]:
    """The rows of every part, under a line that says what they were measured on."""
    about = raw["machine"]
    lines = [
        f"{about['processor']}, {about['cores']} cores, {about['memory_gb']} GB; "
        f"{raw['model']} ({raw['fingerprint'][:8]}); load before: {about['load_before']}",
        "",
        "| bar | measured | bare limit, same run | met |",
        "| --- | --- | --- | --- |",
    ]
    said = {True: "yes", False: "**no**", None: "-"}
    for name in PARTS:
        for bar, measured, beside, met in raw.get(name, {}).get("table", ()):
            lines.append(f"| {bar} | {measured} | {beside} | {said[met]} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
