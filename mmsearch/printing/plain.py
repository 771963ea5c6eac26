"""What everything printed is made of."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from typing import Any

from mmsearch.files import well_formed


def print_json(value: Any) -> None:
    """Print a value as JSON. A path that is not UTF-8 keeps its place as U+FFFD."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    print(well_formed(text))


def note(line: str) -> None:
    """A line on stderr; lost without harm when nobody reads it any more."""
    with suppress(OSError):
        print(well_formed(line), file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """Seconds as 1:05 or 2:01:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
