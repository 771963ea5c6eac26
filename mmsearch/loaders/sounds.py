"""One sound file in; windows of mono float32 samples out, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from mmsearch.records import AudioInput

if TYPE_CHECKING:
    from mmsearch.records import Samples

MAX_HOURS = 24.0


@dataclass(frozen=True, slots=True)
class SoundWindow:
    """A stretch of a sound: `start` and `end` in seconds, `samples` as the encoder wants them."""

    start: float
    end: float
    samples: Samples


def windows(
    file: BinaryIO, want: AudioInput, *, max_hours: float = MAX_HOURS
) -> Iterator[SoundWindow]:
    """The windows of a sound, streamed. `file` is a real file, open at its beginning.

    Raises LoadError for whatever is wrong with it, at the latest after the last window.
    """
    raise NotImplementedError
    yield
