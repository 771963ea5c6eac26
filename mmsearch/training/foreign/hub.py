"""When a hub may be asked: never while something local is opened, whatever its files name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants


@contextmanager
def fetching(allowed: bool) -> Iterator[None]:
    """Nothing is fetched in here unless it is allowed; what was fetched before is found."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not allowed
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
