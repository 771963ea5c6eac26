"""What is asked of a decoder, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mmsearch.records import AudioInput, ImageInput, Metadata, Modality, Reason

if TYPE_CHECKING:
    from mmsearch.records import Pixels, Samples
    from mmsearch.settings import Settings

# A text named .jpg is a broken picture, a text named .csv is none of our business.
SUFFIXES = {
    Modality.IMAGE: frozenset(
        b".jpg .jpeg .jpe .jfif .png .apng .webp .gif .bmp .dib .tif .tiff .ppm .pgm .pbm .pnm"
        b" .avif .heic .heif .hif".split()
    ),
    Modality.AUDIO: frozenset(b".wav .wave .flac .ogg .oga .opus .mp3".split()),
    Modality.TEXT: frozenset(b".txt .md .markdown".split()),
}


@dataclass(frozen=True, slots=True)
class Wants:
    """How an encoder wants each kind of file. None, or False: it has no tower for them."""

    image: ImageInput | None = None
    audio: AudioInput | None = None
    text: bool = False

    def cut(self, window: float | None) -> Wants:
        """The same with windows of sound of other seconds, if any are given."""
        if self.audio is None or window is None:
            return self
        return replace(self, audio=replace(self.audio, window=window))


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may cost: seconds without an answer, decoded megapixels, bytes in
    millions, hours of sound, bytes of text in millions.
    """

    timeout: float
    max_megapixels: float
    max_file_mb: float
    max_hours: float = 24.0
    max_text_mb: float = 16.0

    @staticmethod
    def of(now: Settings) -> Limits:
        """What these settings allow."""
        return Limits(
            now.timeout, now.max_megapixels, now.max_file_mb, now.max_hours, now.max_text_mb
        )


@dataclass(frozen=True, slots=True)
class Job:
    """A file to read. `decode` False: only its digest is wanted, and what it says of itself.

    `window`: a sound is cut into windows of as many seconds, whatever the encoder wants.
    """

    path: bytes
    decode: bool = True
    window: float | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """One part of a file, numbered from 0, as the encoder wants it.

    `data` is (size, size, 3) pixels, (n,) samples or a string; `start` and `end` are seconds
    into a sound. All parts of files with one digest are the same, but only the outcome says
    whether they are good.
    """

    job: Job
    digest: bytes
    modality: Modality
    number: int
    data: Pixels | Samples | str
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job: a digest, what the file says of itself and how many parts came, or
    a reason and a message.

    `state` is (size, mtime_ns, inode) as it was while the file was read. `given_up`: nobody
    waited for the end of it.
    """

    job: Job
    state: tuple[int, int, int] | None = None
    digest: bytes | None = None
    modality: Modality = Modality.IMAGE
    format: str = ""
    width: int | None = None
    height: int | None = None
    metadata: Metadata = field(default_factory=Metadata)
    parts: int = 0
    reason: Reason | None = None
    message: str = ""
    given_up: bool = False
