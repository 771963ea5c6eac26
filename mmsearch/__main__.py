"""The entry point: `mmsearch`, and `python -m mmsearch`."""

from __future__ import annotations

import gc
import os
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line."""
    # A command is short, and what it imports stays: collecting garbage meanwhile costs a
    # tenth of a cold query. Indexing, which is long, turns the collector on again.
    gc.disable()
    # One query is one thread's work, and the threads that numpy and FAISS would start for it
    # spin while they wait: a third of a cold query's CPU time went there.
    for library in ("OPENBLAS", "OMP", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    from mmsearch.cli import run

    run()


if __name__ == "__main__":
    main()
