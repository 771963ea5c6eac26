"""Queries of a library of all photos as processes, and of a large one in a process that stays."""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from indexing_bench import BARS, Bench, Row
from latency import rows_of, top
from made import Near, write_library
from measuring import CLI, REPOSITORY, Cost, milliseconds, run, spread, timed

import mmsearch
from mmsearch.encoders import open_encoder

QUERY = "a dog on grass"
IMPORTS = ("numpy", "onnxruntime", "faiss", "sqlalchemy", "typer", "tokenizers")
FORBIDDEN = ("torch", "open_clip", "scipy", "skimage")

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


def process(bench: Bench) -> dict[str, Any]:
    """`mmsearch query` and `mmsearch --help`, by turns with the imports they stand on."""
    asked = ["query", QUERY, "--index", str(bench.library())]
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
    found = {
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
    return found


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


def large(bench: Bench) -> dict[str, Any]:
    """Queries in one process and in new ones, over `--rows` pictures."""
    folder = bench.work / "large"
    near = Near(rows_of(bench.library()))
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
    found = {
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
    return found


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
        bool(scores[number] >= tenth and abs(scores[number] - score) < 1e-5)
        for number, score in numbers.items()
        if score is not None
    )
