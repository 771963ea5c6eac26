"""Measure speed and memory against their bars; print the table, write every raw figure.

    python benchmarks/indexing.py                  # a quiet machine, some ten minutes
    python benchmarks/indexing.py --limit 200 --rows 5000 --scale 2 --repeat 2   # does it run?

Every figure stands beside the bare limit measured in the same run, the two taking turns. Exits 1
when something could not be measured, and says what and why. README.md, in this folder, says how
each figure comes about; `peers.py` has what other programs take.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from latency import rows_of, top
from made import Near, write_library
from measuring import (
    CLI,
    REPOSITORY,
    CommandFailed,
    Cost,
    begin,
    milliseconds,
    run,
    spread,
    timed,
)

import mmsearch
from mmsearch import files, loaders
from mmsearch.encoders import open_encoder
from mmsearch.encoders.runtime import Graph

PHOTOS = REPOSITORY.parent / "shared" / "data" / "flickr8k" / "images"
QUERY = "a dog on grass"
IMPORTS = ("numpy", "onnxruntime", "faiss", "sqlalchemy", "typer", "tokenizers")
FORBIDDEN = ("torch", "open_clip", "scipy", "skimage")
PACKAGES = ("numpy", "onnxruntime", "faiss-cpu", "tokenizers", "pillow", "sqlalchemy", "typer")
BATCH = 32  # pictures handed to the encoder at a time, as indexing does
PICTURES = 2  # of those, how many go through the tower at a time


@dataclass(frozen=True, slots=True)
class Bars:
    """What this project asks of itself."""

    cpu_a_photo: float = 0.010  # seconds, every process counted
    memory: float = 1000.0  # MB, all processes together
    again_a_file: float = 20.0  # microseconds
    again: float = 1.0  # seconds, the whole process over 8,091 files
    query_cpu: float = 0.6  # seconds, the whole process
    help_cpu: float = 0.15
    warm_query: float = 15.0  # milliseconds


BARS = Bars()


@dataclass(slots=True)
class Row:
    """A line of the table. `met` None: a figure without a bar."""

    bar: str
    measured: str
    beside: str
    met: bool | None = None


@dataclass
class Bench:
    """What the parts share: where things are, how often to measure, and what was found."""

    photos: Path
    work: Path
    repeat: int
    rounds: int
    rows: int
    scale: int
    table: list[Row] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def library(self) -> Path:
        """The library of all photos, made by the first part."""
        return self.work / "library"

    def names(self) -> list[Path]:
        """The photos, in order."""
        return sorted(path for path in self.photos.iterdir() if path.is_file())

    def part(self, name: str, measure: Callable[[Bench], None]) -> None:
        """Run one part; an error in it is a line of the report, and the others still run."""
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            measure(self)
        except Exception as error:
            self.problems.append(f"{name}: {type(error).__name__}: {error}")


# -- 1. indexing, with an empty library ----------------------------------------------------


def index(photos: Path, library: Path, *, watch: bool = False) -> Cost:
    """`mmsearch index`; 3 is its code for files that cannot be read, which count as well."""
    command = [*CLI, "index", str(photos), "--index", str(library), "--json"]
    return run(command, watch=watch, allowed=(0, 3))


def cold(bench: Bench) -> None:
    """The real command into an empty library, by turns with the bare limits of its stages."""
    names = bench.names()
    step = max(len(names) // 1024, 1)
    sample = [path.read_bytes() for path in names[::step]]  # bytes, evenly from all photos
    costs: list[Cost] = []
    stages: dict[str, list[dict[str, float]]] = {}
    for _ in range(bench.rounds):
        shutil.rmtree(bench.library, ignore_errors=True)
        costs.append(index(bench.photos, bench.library, watch=True))
        for name, work in bare_stages(sample, names[::step]):
            stages.setdefault(name, []).append(per_item(work, len(sample)))
    report = json.loads(costs[-1].output)
    count = report["added"] + report["copied"]
    cpu = spread([cost.cpu / count for cost in costs])
    bench.raw["cold"] = {
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


def counts(report: dict[str, Any]) -> dict[str, int]:
    """A run's report in numbers alone: no results file names anybody's folders."""
    return {
        name: len(value) if isinstance(value, list) else int(value)
        for name, value in report.items()
    }


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


def per_item(work: Callable[[], Any], count: int) -> dict[str, float]:
    """CPU and wall seconds of this process, all its threads, an item."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {
        "cpu": (time.process_time() - cpu) / count,
        "wall": (time.perf_counter() - wall) / count,
    }


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


# -- 2. indexing again -----------------------------------------------------------------------


def again(bench: Bench) -> None:
    """Nothing has changed: what a file costs beyond starting up."""
    names = bench.names()
    few = bench.work / "few"
    few.mkdir()
    for path in names[:8]:
        shutil.copy(path, few)
    index(few, bench.work / "few-library")
    turns: dict[str, list[Cost]] = {"all": [], "few": [], "find": []}
    loops: list[float] = []
    for _ in range(bench.repeat + 1):  # the first turn warms the caches of files and bytecode
        turns["all"].append(index(bench.photos, bench.library))
        turns["few"].append(index(few, bench.work / "few-library"))
        loops.append(per_item(lambda: scan_bare(bench.photos), len(names))["cpu"])
        if shutil.which("find"):
            turns["find"].append(run(["find", str(bench.photos), "-printf", "%s %T@ %i %p\\n"]))
    report = json.loads(turns["all"][-1].output)
    if len(names) < 2000:
        bench.problems.append(f"again: {len(names)} files are too few to tell from starting up")
    if report["added"] or report["changed"]:
        raise CommandFailed(f"files were indexed again although none had changed: {report}")
    cpu, wall = (
        spread([
            1e6 * (getattr(more, key) - getattr(less, key)) / (len(names) - 8)
            for more, less in zip(turns["all"][1:], turns["few"][1:], strict=True)
        ])
        for key in ("cpu", "wall")
    )  # fmt: skip
    whole = statistics.median(cost.wall for cost in turns["all"][1:])
    start = statistics.median(cost.cpu for cost in turns["few"][1:])
    stats, how = stat_calls(bench)
    bench.raw["again"] = {
        "files": len(names), "cpu_us_a_file": cpu, "wall_us_a_file": wall, "stat_a_file": stats,
        "stat_counted_by": how, "scandir_us_a_file": spread([1e6 * each for each in loops[1:]]),
        "runs": {name: [cost.figures for cost in costs[1:]] for name, costs in turns.items()},
    }  # fmt: skip
    beside = f"bare os.scandir and stat: {1e6 * statistics.median(loops[1:]):.1f} µs"
    if turns["find"]:
        found = statistics.median(cost.cpu for cost in turns["find"][1:])
        beside += f"; find -printf: {1e6 * found / len(names):.1f} µs"
    bench.table.append(Row(
        f"again, nothing changed: at most {BARS.again_a_file:g} µs a file after start-up",
        f"{cpu['median']:.1f} µs of CPU (least {cpu['least']:.1f}), "
        f"{wall['median']:.1f} µs of wall time",
        beside, cpu["median"] <= BARS.again_a_file,
    ))  # fmt: skip
    bench.table.append(Row(
        f"again, {len(names):,} files: well under {BARS.again:g} s", f"{whole:.2f} s, all in all",
        f"of which starting takes {start:.2f} s of CPU", whole < BARS.again,
    ))  # fmt: skip
    bench.table.append(Row(
        "again: one stat a file", f"{stats:.3f}", f"counted by {how}", round(stats, 2) <= 1,
    ))  # fmt: skip


def scan_bare(folder: Path) -> int:
    """What any program that looks for changes has to do."""
    total = 0
    with os.scandir(os.fsencode(folder)) as entries:
        for entry in entries:
            total += entry.stat(follow_symlinks=False).st_size
    return total


# Counts in Python what strace would count: the wrapped calls are all that this program uses.
COUNT_STATS = """
import json, os, sys
count, stat, lstat, scandir = 0, os.stat, os.lstat, os.scandir
def counted(call):
    def counting(path, *args, **kwargs):
        global count
        count += isinstance(path, (str, bytes)) and os.fsencode(path).startswith(FOLDER)
        return call(path, *args, **kwargs)
    return counting
class Entry:
    def __init__(self, entry): self._entry = entry
    def __getattr__(self, name): return getattr(self._entry, name)
    def stat(self, **kwargs):
        global count
        count += 1
        return self._entry.stat(**kwargs)
class Scan:
    def __init__(self, path): self._scan = scandir(path)
    def __enter__(self): return self
    def __exit__(self, *_): self._scan.close()
    def __iter__(self): return map(Entry, self._scan)
FOLDER = os.fsencode(os.path.realpath(sys.argv[2])) + b"/"
os.stat, os.lstat, os.scandir = counted(stat), counted(lstat), Scan
from mmsearch.__main__ import main
try:
    main()
finally:
    print(json.dumps(count), file=sys.stderr)
"""


def stat_calls(bench: Bench) -> tuple[float, str]:
    """How many stat calls a file an unchanged run makes, and how they were counted."""
    arguments = ["index", str(bench.photos), "--index", str(bench.library)]
    total = len(bench.names())
    inside = f'"{os.path.realpath(bench.photos)}/'
    if shutil.which("strace"):
        log = bench.work / "strace.log"
        calls = "stat,lstat,newfstatat,statx"
        with suppress(CommandFailed):  # some containers forbid it
            run(
                [
                    "strace",
                    "-f",
                    "-s",
                    "4096",
                    "-e",
                    f"trace={calls}",
                    "-o",
                    str(log),
                    *CLI,
                    *arguments,
                ]
            )
            with open(log, encoding="utf-8", errors="replace") as lines:
                return sum(inside in line for line in lines) / total, "strace"
    cost = run([sys.executable, "-c", COUNT_STATS, *arguments])
    return int(cost.errors.split()[-1]) / total, "wrapping os.stat, os.lstat and os.scandir"


# -- 3. a query as a whole process -----------------------------------------------------------

LOOK_INSIDE = """
import json, os, sys
from mmsearch.__main__ import main
try:
    main()
finally:
    memory = 0
    if os.path.exists("/proc/self/status"):
        with open("/proc/self/status") as status:
            sizes = dict(line.split(":", 1) for line in status)
        memory = int(sizes["VmHWM"].split()[0]) / 1e3
    modules = sorted({name.partition(".")[0] for name in sys.modules})
    print(json.dumps([modules, memory]), file=sys.stderr)
"""


def look_inside(arguments: Sequence[str]) -> tuple[list[str], float]:
    """The top-level modules that a command has imported by its end, and its peak memory in MB."""
    modules, memory = json.loads(
        run([sys.executable, "-c", LOOK_INSIDE, *arguments]).errors.splitlines()[-1]
    )
    return modules, memory


def process(bench: Bench) -> None:
    """`mmsearch query` and `mmsearch --help`, by turns with the imports they stand on."""
    asked = ["query", QUERY, "--index", str(bench.library)]
    commands = {
        "query": [*CLI, *asked],
        "imports": [sys.executable, "-c", f"import {', '.join(IMPORTS)}"],
        "help": [*CLI, "--help"],
        "typer": [sys.executable, "-c", "import typer"],
        "python": [sys.executable, "-c", "pass"],
    }
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for turn in range(2 * bench.repeat + 1):
        for name, command in commands.items():
            cost = run(command)
            if turn:  # the first turn warms the caches of files and bytecode
                costs[name].append(cost)
    cpu = {name: spread([cost.cpu for cost in those]) for name, those in costs.items()}
    wall = {name: spread([cost.wall for cost in those]) for name, those in costs.items()}
    modules, memory = look_inside(asked)
    forbidden = sorted(set(FORBIDDEN) & set(modules))
    answers = costs["query"][0].output.splitlines()
    bench.raw["process"] = {
        "cpu": cpu, "wall": wall, "forbidden": forbidden, "modules": modules,
        "memory_mb": memory, "answers": len(answers),
    }  # fmt: skip

    def both(name: str) -> str:
        return f"{cpu[name]['median']:.3f} s (least {cpu[name]['least']:.3f})"

    bench.table.append(Row(
        f"mmsearch query, whole process: at most {BARS.query_cpu:g} s of CPU",
        f"{both('query')}; {wall['query']['median']:.2f} s of wall time",
        f"importing {', '.join(IMPORTS)}: {both('imports')}",
        cpu["query"]["median"] <= BARS.query_cpu,
    ))  # fmt: skip
    bench.table.append(Row(
        f"its imports: none of {', '.join(FORBIDDEN)}", ", ".join(forbidden) or "none",
        f"{len(modules)} top-level modules in all; {memory:,.0f} MB resident", not forbidden,
    ))  # fmt: skip
    bench.table.append(Row(
        f"mmsearch --help: at most {BARS.help_cpu:g} s of CPU", both("help"),
        f"import typer: {both('typer')}; a bare Python: {both('python')}",
        cpu["help"]["median"] <= BARS.help_cpu,
    ))  # fmt: skip


# -- 4. a large library ----------------------------------------------------------------------

WHO = ("a dog", "two children", "a man in a red shirt", "a woman", "a brown horse", "three boys",
       "an old man", "a group of people", "a cat", "a girl with a ball")  # fmt: skip
DOING = ("running", "jumping", "sitting", "playing", "climbing", "swimming", "sleeping", "looking")
WHERE = ("on grass", "in the snow", "at the beach", "in a street", "near the water", "on a rock")

ASK_AND_WEIGH = """
import json, os, sys
import mmsearch
from measuring import memory_of
library = mmsearch.open_library(sys.argv[1])
for words in json.loads(sys.argv[2]):
    library.query(words)
print(json.dumps(memory_of(os.getpid())))
"""


def large(bench: Bench) -> None:
    """Queries in one process and in new ones, over `--rows` pictures."""
    folder = bench.work / "large"
    near = Near(rows_of(bench.library))
    encoder = open_encoder("builtin")
    made = timed(lambda: write_library(folder, encoder, near, bench.rows, hubness=False))
    sentences = [" ".join(parts) for parts in itertools.product(WHO, DOING, WHERE)]
    np.random.default_rng(2).shuffle(sentences)
    asked = sentences[: 40 * bench.repeat + 20]
    rows = rows_of(folder)
    seconds, recall = ask(bench, folder, rows, asked)
    arguments = ["query", QUERY, "--index", str(folder)]
    costs = [run([*CLI, *arguments]) for _ in range(bench.repeat + 1)][1:]
    cpu = spread([cost.cpu for cost in costs])
    modules, memory = look_inside(arguments)
    held: dict[str, float] = {}
    if os.path.exists("/proc/self/smaps_rollup"):
        command = [sys.executable, "-c", ASK_AND_WEIGH, str(folder), json.dumps(asked[:50])]
        paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "benchmarks")])
        held = json.loads(run(command, PYTHONPATH=paths).output)
    took = {name: milliseconds(values) for name, values in seconds.items()}
    bench.raw["large"] = {
        "rows": bench.rows, "dim": rows.shape[1], "queries": len(asked), "recall": recall,
        "milliseconds": took, "cold_cpu": cpu, "cold_memory_mb": memory,
        "cold_modules": modules, "warm_memory_mb": held, "seconds_to_write": made,
    }  # fmt: skip
    query, share = took["query"], took["encoding"]["median"]
    bare = "; ".join(
        f"{name}: {took[name]['median']:.2f} ms"
        for name in ("bare IndexFlatIP", "numpy")
        if name in took
    )
    bench.table.append(Row(
        f"warm Library.query, {bench.rows:,} pictures: at most {BARS.warm_query:g} ms",
        f"{query['median']:.2f} ms (p95 {query['p95']:.2f}); encoding alone: {share:.2f} ms",
        bare, query["median"] <= BARS.warm_query,
    ))  # fmt: skip
    bench.table.append(Row(
        f"recall of its answers, {len(asked)} queries: 1", f"{recall:.4f}", "brute force",
        recall == 1,
    ))  # fmt: skip
    bench.table.append(Row(
        f"mmsearch query, whole process, {bench.rows:,} pictures",
        f"{cpu['median']:.3f} s of CPU (least {cpu['least']:.3f})", f"{memory:,.0f} MB resident",
    ))  # fmt: skip
    if held:
        bench.table.append(Row(
            f"memory after 50 queries, {bench.rows:,} pictures",
            f"{held['VmRSS']:,.0f} MB, {held['RssAnon']:,.0f} of it the process's own",
            f"the matrix, mapped and shared: {rows.nbytes / 1e6:,.0f} MB",
        ))  # fmt: skip


def ask(
    bench: Bench, folder: Path, rows: Any, asked: Sequence[str]
) -> tuple[dict[str, list[float]], float]:
    """Warm queries, all different, by turns with bare searches: seconds of each, and recall."""
    [vector] = mmsearch.embed([QUERY], modality="text")
    works: dict[str, Callable[[str], Any]] = {
        "encoding": lambda words: mmsearch.embed([words], modality="text")[0],
        "numpy": lambda _: top(rows, vector, 10),
    }
    try:
        import faiss

        flat = faiss.IndexFlatIP(rows.shape[1])
        flat.add(rows)
        works["bare IndexFlatIP"] = lambda _: flat.search(vector[None], 10)
    except ImportError:
        bench.problems.append("large: FAISS is not installed, so its bare search was not measured")
    seconds: dict[str, list[float]] = {}
    found = 0
    with mmsearch.open_library(folder) as library:
        works = {"query": lambda words: library.query(words, 10, all=True), **works}
        for turn, words in enumerate(asked):
            for name, work in works.items():
                begun = time.perf_counter()
                answer = work(words)
                took = time.perf_counter() - begun
                if turn >= 20:  # by then, what is loaded on first use is loaded
                    seconds.setdefault(name, []).append(took)
                if name == "query":
                    hits = answer
                elif name == "encoding":
                    vector = answer
            found += agreeing(hits, rows, vector)
    return seconds, found / (10 * len(asked))


def agreeing(hits: Sequence[mmsearch.Hit], rows: Any, vector: Any) -> int:
    """How many hits are among the true ten: none may be worse than the true tenth.

    A hit must also carry the score of the row that its name says it is.
    """
    scores = rows.astype(np.float64) @ vector.astype(np.float64)
    tenth = np.partition(scores, -10)[-10] - 1e-6  # float32 adds up in another order
    numbers = {int(hit.path.stem.split()[-1]): hit.score for hit in hits}
    return sum(
        scores[number] >= tenth and abs(scores[number] - score) < 1e-5
        for number, score in numbers.items()
        if score is not None
    )


# -- 5. memory at several times as many photos -----------------------------------------------


def scale(bench: Bench) -> None:
    """The same run over several times as many photos: memory must not follow.

    The copies have a few bytes of their own behind the end of the picture: other digests, so
    that each is decoded and encoded, without the cost of making new pictures.
    """
    if bench.scale < 2:
        bench.problems.append("scale: left out (--scale below 2)")
        return
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
    bench.raw["scale"] = {
        "files": bench.scale * len(names), "report": counts(report), **cost.figures,
    }  # fmt: skip
    memory_row(bench, f"{count:,} photos", [cost])
    first = bench.raw.get("cold", {})
    if first.get("runs") and cost.rss:
        before = max(one["rss"] for one in first["runs"])
        more = count - first["indexed"]
        bench.table.append(Row(
            "memory does not grow with the collection",
            f"{cost.rss - before:+.0f} MB for {more:,} photos more",
            f"{first['indexed']:,} photos {before:,.0f} MB, {count:,} photos {cost.rss:,.0f} MB; "
            f"{1e3 * cost.cpu / count:.2f} ms of CPU a photo",
        ))  # fmt: skip
    shutil.rmtree(folder)


# -- all of it -------------------------------------------------------------------------------


def main() -> int:
    """Run every part, print the table, write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--photos", type=Path, default=PHOTOS, help="a folder of photos, without folders in it")
    add("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "indexing.json")
    add("--rows", type=int, default=100_000, help="pictures in the large library")
    add("--repeat", type=int, default=5, help="turns of the short measurements")
    add("--rounds", type=int, default=2, help="turns of the cold run")
    add("--scale", type=int, default=5, help="how many times the photos, for memory; 0: not")
    add("--limit", type=int, help="only so many of the photos, to try the script")
    given = parser.parse_args()
    if not given.photos.is_dir():
        print(
            f"no folder of photos at {given.photos}: name one with --photos DIR (the bars are "
            "set for the 8,091 photos of Flickr8k, 224 x 224)", file=sys.stderr,
        )  # fmt: skip
        return 1
    about = {
        **begin(PACKAGES),
        "settings": {
            name: value for name, value in vars(given).items() if not isinstance(value, Path)
        },
        "model": {"name": open_encoder("builtin").name,
                  "fingerprint": open_encoder("builtin").fingerprint,
                  "image_tower_bytes": image_tower_bytes()},
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="mmsearch-bench-") as folder:
        bench = Bench(
            given.photos.resolve(), Path(folder), given.repeat, given.rounds, given.rows,
            given.scale, raw=dict(about),
        )  # fmt: skip
        if given.limit:
            limited = bench.names()[: given.limit]
            bench.photos = bench.work / "photos"
            bench.photos.mkdir()
            for path in limited:
                shutil.copy2(path, bench.photos)
        bench.part("indexing, with an empty library", cold)
        bench.part("indexing again", again)
        bench.part("a query as a whole process", process)
        bench.part("a large library", large)
        bench.part("several times as many photos", scale)
    text_of_table = as_markdown(bench)
    print(text_of_table)
    bench.raw["table"] = text_of_table.splitlines()
    bench.raw["problems"] = bench.problems
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(bench.raw, indent=1) + "\n", encoding="utf-8")
    for problem in bench.problems:
        print(f"not measured: {problem}", file=sys.stderr)
    return 1 if bench.problems else 0


def image_tower_bytes() -> int:
    """The size of the built-in image tower."""
    encoder: Any = open_encoder("builtin")
    return int((encoder.folder / "image.onnx").stat().st_size)


def as_markdown(bench: Bench) -> str:
    """The table, under a line that says what it was measured on."""
    about, model = bench.raw["machine"], bench.raw["model"]
    lines = [
        f"{about['processor']}, {about['cores']} cores, {about['memory_gb']} GB; "
        f"{model['name']} ({model['fingerprint'][:8]}); load before: {about['load_before']}",
        "",
        "| bar | measured | bare limit, same run | met |",
        "| --- | --- | --- | --- |",
    ]
    said = {True: "yes", False: "**no**", None: "-"}
    lines += [f"| {r.bar} | {r.measured} | {r.beside} | {said[r.met]} |" for r in bench.table]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
