"""The command line. Each command parses, calls one public function, prints."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from typing import NoReturn

from mmsearch.cli import (  # noqa: F401  they bring their commands
    indexing,
    measuring,
    models,
    searching,
    training,
    upkeep,
)
from mmsearch.cli.app import app
from mmsearch.errors import MmsearchError, UsageError

__all__ = ["app", "run"]


def run() -> NoReturn:
    """Run a command and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        # UTF-8 whatever the locale; a name that is not goes out as the bytes it is
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
    atexit.register(_let_go_of_notes)
    signal.signal(signal.SIGINT, lambda number, _: sys.exit(128 + number))
    try:
        app()
    except UsageError as error:
        _fail(error, 2)
    except MmsearchError as error:
        _fail(error, 1)
    except BrokenPipeError:  # whoever read our answers has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(128 + 13)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # typer has met it first
            sys.exit(128 + 13)
        raise
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        _fail(MmsearchError(f"{name}{error.strerror or error}"), 1)
    sys.exit(0)


def _let_go_of_notes() -> None:
    """What nobody reads any more must not turn the exit code into Python's 120."""
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _fail(error: Exception, code: int) -> NoReturn:
    from mmsearch.printing import note

    note(f"mmsearch: {error}")
    sys.exit(code)
