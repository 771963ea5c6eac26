"""`mmsearch bench speed`: what indexing a folder and asking its library take on this machine."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mmsearch.embedding import embed
from mmsearch.encoders import open_encoder
from mmsearch.errors import UsageError
from mmsearch.evaluation.costs import CLI, machine, run, spent
from mmsearch.evaluation.exact import sample
from mmsearch.evaluation.provenance import provenance
from mmsearch.evaluation.stages import stages, supported
from mmsearch.library import open_library
from mmsearch.records import Modality

Note = Callable[[str], None]

_IMPORTS = "import numpy, onnxruntime, tokenizers, sqlalchemy, typer"
_WHO = ("a dog", "two children", "a man in red", "a woman", "a horse", "three boys", "a cat")
_WHERE = ("on grass", "in the snow", "at the beach", "in a street", "near the water", "on a rock")
_DRAWN = (1024, 768)  # pixels of a picture that is made up

# A command that also says how much memory its process has held at most.
_WEIGHED = """
import atexit, os, sys
from mmsearch.__main__ import main
def weigh():
    if os.path.exists("/proc/self/status"):
        with open("/proc/self/status") as status:
            print(next(line for line in status if line.startswith("VmHWM")), file=sys.stderr)
atexit.register(weigh)
main()
"""


def measure_speed(
    folder: Path | None = None,
    *,
    model: str = "builtin",
    limit: int = 256,
    repeat: int = 3,
    seed: int = 0,
    note: Note = lambda _: None,
) -> dict[str, Any]:
    """The speed of indexing a folder, or made-up pictures without one, and of queries.

    "stages": milliseconds a file of each stage, beside its bare limit (mmsearch.evaluation.stages).
    "index": the real command over the same files into an empty library, all processes counted,
    and "again" when nothing changed. "query": the real command, cold, beside the imports that it
    stands on; and `Library.query`, warm, beside encoding alone and one product of matrices.
    Memory in MB is of all processes together, None where the system has no /proc. A folder of
    more than `limit` files is measured by as many, drawn by the `seed` and copied.

    Raises UsageError for a folder without a file that can be indexed, BenchmarkError when a
    command fails.
    """
    encoder = open_encoder(model)
    with TemporaryDirectory(prefix="mmsearch-") as name:
        place = Path(os.path.realpath(name))
        if folder is None:
            folder = place / "drawn"
            _draw(folder, limit, seed)
        elif not folder.is_dir():
            raise UsageError(f"no such folder: {folder}")
        paths = supported(folder, encoder)
        if not paths:
            raise UsageError(f"{folder} has no picture, sound or text to measure with")
        there = len(paths)
        if there > limit:
            paths = _copied(sample(paths, limit, seed), place / "sample")
            folder = place / "sample"
        work = place / "work"
        work.mkdir()
        note(f"measuring the stages of indexing {len(paths):,} files")
        found: dict[str, Any] = {
            "stages": {
                name: stage.as_dict()
                for name, stage in stages(folder, paths, encoder, work, repeat).items()
            }
        }
        note("indexing them")
        library = place / "library"
        command = [*CLI, "index", str(folder), "--index", str(library), "--model", model, "--json"]
        cost = run(command, watch=True, allowed=(0, 3))
        report = json.loads(cost.output)
        indexed = report["added"] + report["copied"]
        again = run(command, allowed=(0, 3))
        found["index"] = {
            "files": indexed, "failed": len(report["failed"]), "wall_s": round(cost.wall, 3),
            "cpu_s": round(cost.cpu, 3), "files_per_second": round(indexed / cost.wall, 2),
            "cpu_ms_a_file": round(1e3 * cost.cpu / indexed, 3) if indexed else None,
            "cores_busy": round(cost.cpu / cost.wall, 2), "memory_mb": _rounded(cost.rss),
        }  # fmt: skip
        found["again"] = {"wall_s": round(again.wall, 3), "cpu_s": round(again.cpu, 3)}
        note("asking")
        found["query"] = {
            "cold": _cold(library, model, repeat), "warm": _warm(library, model, 10 * repeat),
        }  # fmt: skip
    about = {"files": len(paths), "files_there": there, "repeat": repeat, "machine": machine()}
    return found | about | provenance(encoder, seed)


def _cold(library: Path, model: str, repeat: int) -> dict[str, Any]:
    """Whole processes, by turns with a Python that imports the same libraries."""
    asked = ["query", "a dog on grass", "--all", "--index", str(library), "--model", model]
    asked += ["--format", "json"]
    run([*CLI, *asked])  # fills the caches of files and bytecode
    costs, bare, memory = [], [], None
    for _ in range(repeat):
        costs.append(run([sys.executable, "-c", _WEIGHED, *asked]))
        bare.append(run([sys.executable, "-c", _IMPORTS]))
        if "VmHWM" in costs[-1].errors:
            memory = int(costs[-1].errors.split("VmHWM:")[1].split()[0]) / 1e3
    return {
        "wall_ms": _median([1e3 * cost.wall for cost in costs]),
        "cpu_ms": _median([1e3 * cost.cpu for cost in costs]),
        "limit_wall_ms": _median([1e3 * cost.wall for cost in bare]),
        "limit_cpu_ms": _median([1e3 * cost.cpu for cost in bare]),
        "memory_mb": _rounded(memory),
    }


def _warm(library: Path, model: str, count: int) -> dict[str, Any]:
    """Different questions to one open library, by turns with the least that any could take."""
    questions = [f"{who} {where}" for where in _WHERE for who in _WHO]
    seconds: dict[str, list[float]] = {"query": [], "encode": [], "product": []}
    with open_library(library, model=model, keep_queries=False) as opened:
        rows = opened.status()["vectors"]
        dim = embed(questions[:1], Modality.TEXT, model).shape[1]
        matrix = np.random.default_rng(0).standard_normal((rows, dim)).astype(np.float32)
        for turn, words in enumerate(questions[: count + 5]):
            costs = {
                "query": spent(partial(opened.query, words, 10, all=True)),
                "encode": spent(partial(embed, [words], Modality.TEXT, model)),
                "product": spent(partial(np.matmul, matrix, matrix[0])),
            }
            if turn >= 5:  # by then, what is loaded on first use is loaded
                for name, cost in costs.items():
                    seconds[name].append(1e3 * cost.wall)
    return {
        "wall_ms": _median(seconds["query"]),
        "p95_ms": round(float(np.percentile(seconds["query"], 95)), 3),
        "encode_ms": _median(seconds["encode"]),
        "product_ms": _median(seconds["product"]),
        "vectors": rows,
        "questions": len(seconds["query"]),
    }


def _draw(folder: Path, count: int, seed: int) -> None:
    """Pictures that are like no other: smooth noise, as large as a small photograph."""
    from PIL import Image

    folder.mkdir()
    generator = np.random.default_rng(seed)
    for number in range(count):
        coarse = Image.fromarray(generator.integers(0, 256, (48, 64, 3), dtype=np.uint8))
        picture = coarse.resize(_DRAWN, Image.Resampling.BICUBIC)
        picture.save(folder / f"{number:06}.jpg", quality=90)


def _copied(paths: Sequence[Path], place: Path) -> list[Path]:
    place.mkdir()
    copies = [place / f"{number:06}{path.suffix}" for number, path in enumerate(paths)]
    for path, copy in zip(paths, copies, strict=True):
        shutil.copyfile(path, copy)
    return copies


def _median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 3)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
