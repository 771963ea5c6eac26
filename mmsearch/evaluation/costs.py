"""What work costs: CPU and wall time, and memory, of this process or of a whole process tree."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsearch.errors import BenchmarkError

CLI = [sys.executable, "-m", "mmsearch"]

_PACKAGE = str(Path(__file__).resolve().parents[2])
_SAMPLE = 0.2  # seconds between looks at the memory of a process tree


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds of CPU, of all threads of this process, and of wall time."""

    cpu: float
    wall: float


def spent(work: Callable[[], Any]) -> Spent:
    """What some work in this process takes; its worker processes are not counted."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return Spent(time.process_time() - cpu, time.perf_counter() - wall)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run of a command took.

    `cpu` is user and system time of the process and of every child it waited for, from
    wait4; `cpu_seen` is the same read from /proc while it ran, which also sees children that
    nobody waited for (but not the last moments of each). Memory in MB, when watched: `rss` and
    `pss` are the highest sums over all processes at one moment, `highest` adds up the highest
    of each process, whenever that was, as the kernel keeps it. RSS counts a page that two
    processes share twice, PSS once. (The ru_maxrss of wait4 is of no use here: it begins with
    what the starting process had.)
    """

    wall: float
    cpu: float
    output: str
    errors: str
    cpu_seen: float | None = None
    rss: float | None = None
    pss: float | None = None
    highest: float | None = None
    processes: int | None = None

    @property
    def figures(self) -> dict[str, Any]:
        """All but what the command printed."""
        names = ("wall", "cpu", "cpu_seen", "rss", "pss", "highest", "processes")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def run(
    command: Sequence[str],
    *,
    watch: bool = False,
    allowed: Sequence[int] = (0,),
    cwd: Path | None = None,
    **environment: str,
) -> Cost:
    """Run a command to its end and say what it cost; `watch` also follows its memory.

    A Python finds this mmsearch. Raises BenchmarkError for an exit code that is not among the
    `allowed`.
    """
    paths = [_PACKAGE, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment}
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        begun = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, cwd=cwd,
            env=environment,
        )  # fmt: skip
        watched = watch and os.path.exists("/proc/self/smaps_rollup")
        watcher = _Watcher(process.pid) if watched else None
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)  # Popen must not wait again
        seen = watcher.end() if watcher else {}
        output.seek(0)
        errors.seek(0)
        said, complained = (file.read().decode(errors="replace") for file in (output, errors))
    if process.returncode not in allowed:
        raise BenchmarkError(
            f"{' '.join(command)[:300]} ended with {process.returncode}: "
            f"{complained[-600:].strip()}"
        )
    return Cost(wall, usage.ru_utime + usage.ru_stime, said, complained, **seen)


class _Watcher:
    """Adds up CPU time and memory of a process and all its descendants while they live."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._cpu: dict[int, float] = {}
        self._highest: dict[int, float] = {}
        self._rss = self._pss = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def end(self) -> dict[str, Any]:
        self._done.set()
        self._thread.join()
        return {
            "cpu_seen": sum(self._cpu.values()),
            "rss": self._rss,
            "pss": self._pss,
            "highest": sum(self._highest.values()),
            "processes": len(self._cpu),
        }

    def _watch(self) -> None:
        while not self._done.wait(_SAMPLE):
            rss = pss = 0.0
            for pid in self._tree():
                with suppress(OSError, KeyError):  # it may end while we look
                    sizes = memory_of(pid)
                    rss, pss = rss + sizes["Rss"], pss + sizes["Pss"]
                    self._highest[pid] = sizes["VmHWM"]
            self._rss, self._pss = max(self._rss, rss), max(self._pss, pss)

    def _tree(self) -> list[int]:
        """The process and its descendants; their CPU time so far is noted on the way."""
        tick = os.sysconf("SC_CLK_TCK")
        parents: dict[int, int] = {}
        for name in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                # after the name, which may hold anything: state, parent, ..., utime, stime
                fields = file.read().rpartition(b")")[2].split()
                parents[int(name)] = int(fields[1])
                if self._root in (int(name), parents[int(name)]) or int(fields[1]) in self._cpu:
                    self._cpu[int(name)] = (int(fields[11]) + int(fields[12])) / tick
        return [pid for pid in parents if pid in self._cpu]


def memory_of(pid: int) -> dict[str, float]:
    """What /proc/PID/smaps_rollup and status say of a process's memory, in MB by their names."""
    sizes: dict[str, float] = {}
    for name in ("smaps_rollup", "status"):
        with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="replace") as file:
            for line in file:
                key, _, value = line.partition(":")
                if value.rstrip().endswith(" kB"):
                    sizes[key] = int(value.split()[0]) / 1e3
    return sizes


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, least, and all of them."""
    return {"median": statistics.median(values), "least": min(values), "all": list(values)}


def machine() -> dict[str, Any]:
    """What this ran on, as far as the system tells."""
    model = platform.processor() or platform.machine()
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        names = (line.partition(":")[2].strip() for line in file if "model name" in line)
        model = next(names, model)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    load = os.getloadavg()[0]
    return {
        "processor": model,
        "cores": cores,
        "memory_gb": round(memory, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load_before": round(load, 2),  # above 0.5: something else was running
    }
