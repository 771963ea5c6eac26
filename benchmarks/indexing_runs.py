"""The command over photos that it does not know yet: processor time, memory, what bounds them."""

from __future__ import annotations

import json
import os
import shutil
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from indexing_bench import BARS, Bench, Row, counts, index, per_item
from measuring import CommandFailed, Cost, spread

from mmsearch import files, loaders
from mmsearch.encoders import open_encoder
from mmsearch.encoders.runtime import Graph

PICTURES = 2  # of a batch, how many go through the tower at a time


def cold(bench: Bench) -> dict[str, Any]:
    """The real command into an empty library, by turns with the bare limits of its stages."""
    names = bench.names()
    step = max(len(names) // 1024, 1)
    sample = [path.read_bytes() for path in names[::step]]  # bytes, evenly from all photos
    costs: list[Cost] = []
    stages: dict[str, list[dict[str, float]]] = {}
    for _ in range(bench.rounds):
        shutil.rmtree(bench.place, ignore_errors=True)
        costs.append(index(bench.photos, bench.place, watch=True))
        for name, work in bare_stages(sample, names[::step]):
            stages.setdefault(name, []).append(per_item(work, len(sample)))
    report = json.loads(costs[-1].output)
    count = report["added"] + report["copied"]
    cpu = spread([cost.cpu / count for cost in costs])
    found = {
        "files": len(names), "indexed": count, "sample": len(sample), "report": counts(report),
        "cpu_a_photo": cpu, "runs": [cost.figures for cost in costs], "stages": stages,
    }  # fmt: skip
    one = {name: statistics.median(s["cpu"] for s in runs) for name, runs in stages.items()}
    wall = statistics.median(cost.wall for cost in costs)
    busy = statistics.median(cost.cpu / cost.wall for cost in costs)
    tower, rest = one["tower, 1 thread"], cpu["median"]
    shares = ", ".join(
        f"{name} {1e3 * seconds:.2f} ms ({seconds / rest:.0%})" for name, seconds in one.items()
    )
    bench.table.append(Row(
        f"cold, {count:,} photos: CPU at most {1e3 * BARS.cpu_a_photo:g} ms a photo",
        f"{1e3 * cpu['median']:.2f} ms (least {1e3 * cpu['least']:.2f}); "
        f"{wall:.1f} s of wall time, {count / wall:.0f} photos a second",
        f"bare limits: {shares}",
        cpu["median"] <= BARS.cpu_a_photo,
    ))  # fmt: skip
    cores = bench.raw["machine"]["cores"]
    two = [statistics.median(s[key] for s in stages["tower, 2 threads"]) for key in ("cpu", "wall")]
    bench.table.append(Row(
        "two cores busy (at least 1.8 of 2)", f"{busy:.2f} of {cores} cores busy",
        f"tower alone with two threads: {two[0] / two[1]:.2f}; "
        f"tower alone on one core: {1 / tower:.0f} photos a second",
        busy >= 1.8 if cores == 2 else None,
    ))  # fmt: skip
    seen = [cost.cpu_seen for cost in costs if cost.cpu_seen]
    if seen:
        missed = max(1 - cost.cpu / cost.cpu_seen for cost in costs if cost.cpu_seen)
        waited = statistics.median(cost.cpu for cost in costs)
        bench.table.append(Row(
            "every worker process counted",
            f"{costs[-1].processes} processes; wait4 gives {waited:.2f} s",
            f"/proc, while they live: {statistics.median(seen):.2f} s",
            missed < 0.01,
        ))  # fmt: skip
    memory_row(bench, f"{count:,} photos", costs)
    return found


def bare_stages(sample: list[bytes], paths: list[Path]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Each stage by itself, in this process, over the same photos: (name, what to time)."""
    encoder = open_encoder("builtin")
    graph = encoder.folder / "image.onnx"  # type: ignore[attr-defined]
    want = encoder.image_input
    encoded = [os.fsencode(path) for path in paths]

    def decode() -> list[Any]:
        return [loaders.load_image(data, want, max_megapixels=64).pixels for data in sample]

    yield "decoding", decode
    yield "SHA-256", lambda: [files.digest(data) for data in sample]
    yield "stat", lambda: [os.lstat(path) for path in encoded]
    pixels = np.stack(decode())
    for threads in (1, 2):
        tower = Graph(graph, threads=threads)
        tower(pixels=pixels[:PICTURES])  # loads it

        def towered(tower: Graph = tower) -> None:
            for start in range(0, len(pixels), PICTURES):
                tower(pixels=pixels[start : start + PICTURES])

        yield f"tower, {threads} thread{'s' if threads > 1 else ''}", towered


def memory_row(bench: Bench, what: str, costs: Sequence[Cost]) -> None:
    """The highest memory of these runs, all processes together."""
    rss = [cost.rss for cost in costs if cost.rss]
    pss = [cost.pss for cost in costs if cost.pss]
    if not rss:
        bench.problems.append("memory: this system has no /proc/PID/smaps_rollup; not measured")
        return
    bench.table.append(Row(
        f"memory of all processes, {what}: below {BARS.memory:,.0f} MB",
        f"{max(rss):,.0f} MB (RSS added up; PSS, shared pages once: {max(pss):,.0f} MB)",
        f"the highest of each process added up: {max(c.highest or 0 for c in costs):,.0f} MB",
        max(rss) < BARS.memory,
    ))  # fmt: skip


def scale(bench: Bench) -> dict[str, Any]:
    """The same run over several times as many photos: memory must not follow.

    The copies have a few bytes of their own behind the end of the picture: other digests, so
    that each is decoded and encoded, without the cost of making new pictures.
    """
    folder = bench.work / "scaled"
    names = bench.names()
    for copy in range(bench.scale):
        place = folder / f"copy-{copy}"
        place.mkdir(parents=True)
        for path in names:
            (place / path.name).write_bytes(path.read_bytes() + b"mmsearch copy %d" % copy)
    cost = index(folder, bench.work / "scaled-library", watch=True)
    report = json.loads(cost.output)
    count = report["added"]
    if count + report["copied"] + len(report["failed"]) < bench.scale * len(names) * 0.99:
        raise CommandFailed(f"{bench.scale * len(names)} files, but only {count} were added")
    found = {
        "files": bench.scale * len(names), "report": counts(report), **cost.figures,
    }  # fmt: skip
    memory_row(bench, f"{count:,} photos", [cost])
    first = bench.raw.get("cold")
    if first and cost.rss:
        before = max(one["rss"] for one in first["runs"])
        more = count - first["indexed"]
        bench.table.append(Row(
            "memory does not grow with the collection",
            f"{cost.rss - before:+.0f} MB for {more:,} photos more",
            f"{first['indexed']:,} photos {before:,.0f} MB, {count:,} photos {cost.rss:,.0f} MB; "
            f"{1e3 * cost.cpu / count:.2f} ms of CPU a photo",
        ))  # fmt: skip
    shutil.rmtree(folder)
    return found
