"""The entry point: `mmsearch`, and `python -m mmsearch`."""

from __future__ import annotations

import gc
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line."""
    # A command is short, and what it imports stays: collecting garbage meanwhile costs a
    # tenth of a cold query. Indexing, which is long, turns the collector on again.
    gc.disable()
    from mmsearch.cli import run

    run()


if __name__ == "__main__":
    main()
