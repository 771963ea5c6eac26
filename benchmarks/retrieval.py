"""What is found of what should be, in each direction: by bare vectors, and as a library answers.

    python benchmarks/retrieval.py                     # the sets of DATA, some ten minutes
    python benchmarks/retrieval.py --data DATA --model NAME --out FILE
    python benchmarks/retrieval.py --sets coco_free --limit 8 --out /tmp/retrieval.json

It is `mmsearch bench recall` on several sets, so that they stand in one table; the measures are
those of `mmsearch.evaluation`. A set that is not at hand is named, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tables
from measuring import REPOSITORY, machine, origin

from mmsearch.encoders import open_encoder
from mmsearch.errors import MmsearchError
from mmsearch.evaluation import measure_recall

DATA = REPOSITORY.parent / "shared" / "data"
PACKAGES = ("numpy", "onnxruntime", "pillow", "soundfile", "tokenizers")


@dataclass(frozen=True, slots=True)
class Set:
    """A set with known answers: where it lies below DATA, and what to know of its figures."""

    told: str
    place: str
    split: str | None = "test"
    captions: str | None = None
    limit: int | None = None
    seen: bool = False  # the built-in model was trained with it


SETS = {
    "flickr8k": Set("Flickr8k test", "flickr8k"),
    "flickr8k_cn": Set("Flickr8k test, in Chinese", "flickr8k", captions="Flickr8k-CN.zhc.txt"),
    "coco_free": Set("COCO, 96 free photos", "coco_free", split="all"),
    "tiny_imagenet": Set("tiny-ImageNet", "tiny_imagenet_20k.zip", None, limit=2000, seen=True),
    "esc50": Set("ESC-50, four folds", "esc50", None, seen=True),
}


def measure(one: Set, data: Path, model: str, limit: int | None) -> dict[str, Any]:
    """All directions of a set. Raises MmsearchError for one that cannot be read."""
    captions = Path(one.captions) if one.captions else None
    found = measure_recall(
        data / one.place, one.split, captions=captions, model=model, limit=limit or one.limit,
        note=lambda line: print(f"  {line}", file=sys.stderr, flush=True),
    )  # fmt: skip
    return {"told": one.told, "seen_in_training": one.seen and model == "builtin", **found}


def main() -> int:
    """Measure every set, write the figures, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, default=DATA, help="the folder that the sets lie in")
    add("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "retrieval.json")
    add("--model", default="builtin")
    add("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    add("--limit", type=int, help="only so many files of each set")
    given = parser.parse_args()
    encoder = open_encoder(given.model)
    result: dict[str, Any] = {
        "machine": machine(), **origin(PACKAGES), "model": encoder.name,
        "fingerprint": encoder.fingerprint, "sets": {},
    }  # fmt: skip
    problems = []
    for name in given.sets:
        print(f"{SETS[name].told} ...", file=sys.stderr, flush=True)
        try:
            result["sets"][name] = measure(SETS[name], given.data, given.model, given.limit)
        except (MmsearchError, OSError) as error:
            problems.append(f"{SETS[name].told}: {error}")
    result["problems"] = problems
    given.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print("\n".join(tables.retrieval(result)))
    for problem in problems:
        print(f"not measured: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
