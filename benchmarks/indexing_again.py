"""The command over files of which none has changed: what each costs beyond starting up."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from indexing_bench import BARS, Bench, Row, index, per_item
from measuring import CLI, CommandFailed, Cost, run, spread


def again(bench: Bench) -> dict[str, Any]:
    """Nothing has changed: what a file costs beyond starting up."""
    names, library = bench.names(), bench.library()
    few = bench.work / "few"
    few.mkdir()
    for path in names[:8]:
        shutil.copy(path, few)
    index(few, bench.work / "few-library")
    turns: dict[str, list[Cost]] = {"all": [], "few": [], "find": []}
    loops: list[float] = []
    for _ in range(bench.repeat + 1):  # the first turn warms the caches of files and bytecode
        turns["all"].append(index(bench.photos, library))
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
    found = {
        "files": len(names), "cpu_us_a_file": cpu, "wall_us_a_file": wall, "stat_a_file": stats,
        "stat_counted_by": how, "scandir_us_a_file": spread([1e6 * each for each in loops[1:]]),
        "runs": {name: [cost.figures for cost in costs[1:]] for name, costs in turns.items()},
    }  # fmt: skip
    beside = f"bare os.scandir and stat: {1e6 * statistics.median(loops[1:]):.1f} µs"
    if turns["find"]:
        bare = statistics.median(cost.cpu for cost in turns["find"][1:])
        beside += f"; find -printf: {1e6 * bare / len(names):.1f} µs"
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
    return found


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
    arguments = ["index", str(bench.photos), "--index", str(bench.library())]
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
