"""What the programs share: the time of each query, and the memory of the process after them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def ask_all(query: Callable[[str], Any], asked: Sequence[str]) -> None:
    """Print the seconds that each query took, and the highest resident memory so far."""
    seconds = []
    for words in asked:
        begun = time.perf_counter()
        query(words)
        seconds.append(time.perf_counter() - begun)
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    sizes = dict(line.split(":", 1) for line in lines)
    print(json.dumps({"seconds": seconds, "memory_mb": int(sizes["VmHWM"].split()[0]) / 1e3}))
