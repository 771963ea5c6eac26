"""What a library costs as it grows: indexing, indexing again, adding, querying, memory, disk.

    python benchmarks/scale.py                          # 1,000 to 1,000,000 pictures, 10 minutes
    python benchmarks/scale.py --sizes 1000 10000       # then --sizes 100000 --resume: they join
    python benchmarks/scale.py --sizes 200 400 --repeat 1 --near 20 --out /tmp/scale.json

The pictures are empty files whose rows are made up (`made.py`): reading and encoding a photo costs
the same however large the library is (`indexing.py` has it), so this is all that can grow.
Commands are processes of their own. A size is written as soon as it is measured, and stays for
a run with --resume. Exits 1 when something could not be measured, and says why.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import kept
import tables
from latency import cold
from made import FLICKR8K, Near, near_photos, questions, write_library
from measuring import CLI, REPOSITORY, CommandFailed, Cost, run, spread

from mmsearch.datasets.captions import read_captions
from mmsearch.encoders import open_encoder

SIZES = (1_000, 10_000, 100_000, 1_000_000)
ADDED = 16  # real photos that a library is given when it is full

# One process: opens the library, asks, and says what each query took and what it holds in memory.
ASK = """
import json, os, sys, time
import mmsearch
from measuring import memory_of
seconds = []
with mmsearch.open_library(sys.argv[1]) as library:
    for words in json.loads(sys.argv[2]):
        begun = time.perf_counter()
        library.query(words)
        seconds.append(time.perf_counter() - begun)
    print(json.dumps({"seconds": seconds, "memory": memory_of(os.getpid())}))
"""


def index(folder: Path, *paths: Path) -> tuple[Cost, dict[str, Any]]:
    """`mmsearch index`: what it cost, and its report."""
    command = [*CLI, "index", *map(str, paths), "--index", str(folder), "--json"]
    cost = run(command, watch=True)
    return cost, json.loads(cost.output)


def measure(size: int, near: Near, flickr8k: Path, repeat: int, place: Path) -> dict[str, Any]:
    """One size, in a folder that is empty before and after."""
    files, folder = place / "photos", place / "library"
    files.mkdir()
    found: dict[str, Any] = {"items": size}
    found["writing"] = write_library(folder, open_encoder("builtin"), near, size, files=files)
    again = []
    for _ in range(repeat + 1):  # the first turn fills the system's caches
        cost, report = index(folder)
        if report["unchanged"] != size:
            raise CommandFailed(f"{size} files had not changed, but the report says {report}")
        again.append(cost)
    found["again"] = _spread(again[1:])
    found["cold_query"] = cold(folder, "a dog on grass", repeat)
    asked = questions(flickr8k)[: 10 * repeat + 3]
    command = [sys.executable, "-c", ASK, str(folder), json.dumps(asked)]
    told = json.loads(run(command, PYTHONPATH=f"{REPOSITORY}:{REPOSITORY / 'benchmarks'}").output)
    found["warm_query"] = spread(told["seconds"][3:])
    found["warm_memory_mb"] = {
        key: told["memory"][key] for key in ("Rss", "Pss", "RssAnon") if key in told["memory"]
    }
    found["bytes"] = {
        "library.db": sum(path.stat().st_size for path in folder.glob("library.db*")),
        "cache": sum(path.stat().st_size for path in (folder / "cache").iterdir()),
    }
    more = place / "more"
    more.mkdir()
    for photo in read_captions(flickr8k, "test")[:ADDED]:
        shutil.copy(photo.path, more)
    cost, report = index(folder, more)
    if report["added"] != ADDED:
        raise CommandFailed(f"{ADDED} new photos, but the report says {report}")
    found["adding"] = {"photos": ADDED, **cost.figures}
    return found


def _spread(costs: list[Cost]) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: spread([getattr(cost, name) for cost in costs]) for name in ("wall", "cpu")
    }
    return found | {"memory_mb": max((cost.rss for cost in costs if cost.rss), default=None)}


def slopes(sizes: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """From the smallest size to the largest: what one item more costs, and the power of the size
    with which the cost grew between the two largest (1: in proportion)."""
    if len(sizes) < 2:
        return {}
    found = {}
    for name, value in tables.SCALE.items():
        first, before, last = value(sizes[0]), value(sizes[-2]), value(sizes[-1])
        found[name] = {
            "an_item": (last - first) / (sizes[-1]["items"] - sizes[0]["items"]),
            "power": math.log(last / before) / math.log(sizes[-1]["items"] / sizes[-2]["items"]),
        }
    return found


def main() -> int:
    """Measure every size, write the figures, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--flickr8k", type=Path, default=FLICKR8K, help="photos and captions to be near")
    add("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "scale.json")
    add("--sizes", type=int, nargs="+", default=SIZES, help="pictures in each library")
    add("--resume", action="store_true", help="keep the sizes that were measured")
    add("--repeat", type=int, default=3, help="turns of the short commands")
    add("--near", type=int, help="only so many real photos to be near")
    add("--place", type=Path, help="where the libraries are written, and removed again")
    given = parser.parse_args()
    if not given.flickr8k.is_dir():
        print(f"not measured: no Flickr8k at {given.flickr8k}; --flickr8k DIR", file=sys.stderr)
        return 1
    if not Path("/proc/self/smaps_rollup").exists():
        print("not measured: memory needs Linux's /proc/PID/smaps_rollup", file=sys.stderr)
        return 1
    found = kept.begun(
        kept.read(given.out) if given.resume else {}, {"repeat": given.repeat, "near": given.near},
        ["numpy", "onnxruntime", "sqlalchemy", "faiss-cpu"], open_encoder("builtin"),
    )  # fmt: skip
    sizes: list[dict[str, Any]] = found.setdefault("sizes", [])
    near = near_photos(given.flickr8k, given.near)
    for size in sorted({*given.sizes} - {one["items"] for one in sizes}):
        print(f"{size:,} pictures ...", file=sys.stderr, flush=True)
        moment = kept.moment()
        with tempfile.TemporaryDirectory(prefix="mmsearch-scale-", dir=given.place) as place:
            one = measure(size, near, given.flickr8k, given.repeat, Path(place))
        sizes.append({**one, **moment})
        sizes.sort(key=lambda one: one["items"])
        found["slopes"] = slopes(sizes)
        kept.write(given.out, found)
    print("\n".join(tables.scale(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
