"""Where the scripts are, what they time, and what stands beside every result.

What a command costs and the machine's names are measured as `mmsearch bench speed` does.
"""

from __future__ import annotations

import compileall
import datetime
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from mmsearch.encoders import Encoder
from mmsearch.errors import BenchmarkError as CommandFailed
from mmsearch.evaluation import costs
from mmsearch.evaluation.costs import CLI, Cost, machine, memory_of, spread

__all__ = [
    "CLI", "REPOSITORY", "CommandFailed", "Cost", "begin", "machine", "memory_of", "milliseconds",
    "origin", "run", "spread", "timed",
]  # fmt: skip

REPOSITORY = Path(__file__).resolve().parents[1]
run = partial(costs.run, cwd=REPOSITORY)


def timed(work: Callable[[], Any]) -> float:
    """Seconds of wall time."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def milliseconds(values: Sequence[float]) -> dict[str, float]:
    """Of seconds: the median, the 95th percentile and the least."""
    return {
        "median": 1e3 * statistics.median(values),
        "p95": 1e3 * float(np.percentile(values, 95)),
        "least": 1e3 * min(values),
    }


def begin(packages: Sequence[str], encoder: Encoder | None = None) -> dict[str, Any]:
    """What stands beside every result: where, when, with what, and with which model.

    mmsearch's modules are compiled first, as pip compiles what it installs: a checkout whose
    Python may not write them would compile itself anew in every process that is measured.
    """
    compileall.compile_dir(REPOSITORY / "mmsearch", quiet=1)
    found = {"machine": machine(), **origin(packages)}
    if encoder is not None:
        found |= {"model": encoder.name, "fingerprint": encoder.fingerprint, "dim": encoder.dim}
    return found


def origin(packages: Sequence[str]) -> dict[str, Any]:
    """Date, commit and versions."""
    git = ["git", "-C", str(REPOSITORY)]
    said = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--untracked-files=no", "mmsearch"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    versions = {"python": platform.python_version()}
    for name in packages:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": said.stdout.strip() or None,
        "changed_since_commit": bool(changed.stdout.strip()),
        "versions": versions,
    }
