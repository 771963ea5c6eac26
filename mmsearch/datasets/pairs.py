"""A picture or sound and its captions, wherever it lies; and what is no such thing."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mmsearch.errors import LoadError
from mmsearch.files import describe, display, read_regular
from mmsearch.records import Modality, Reason

_SUFFIXES = {
    Modality.IMAGE: "jpg jpeg jpe jfif png webp gif bmp tif tiff ppm avif heic heif",
    Modality.AUDIO: "wav flac ogg oga mp3",
}
MODALITY_OF = {suffix: kind for kind, names in _SUFFIXES.items() for suffix in names.split()}

_LARGEST = 256_000_000  # bytes of one picture or sound


@dataclass(frozen=True, slots=True)
class Pair:
    """One picture or sound and its captions. A tar's member lies at `offset`, `size` bytes long."""

    file: Path
    modality: Modality
    captions: tuple[str, ...]
    offset: int = 0
    size: int | None = None
    member: str = ""
    digest: str = ""  # SHA-256 of the content, once it was read

    @property
    def name(self) -> str:
        """What messages call it."""
        place = display(os.fsencode(self.file))
        return f"{place}: {display(self.member)}" if self.member else place

    def read(self) -> bytes:
        """The bytes of the picture or sound. Raises LoadError."""
        if self.size is None:
            path = os.path.realpath(os.fsencode(self.file))  # lists of links are common
            return read_regular(path, _LARGEST, lambda head: None)[0]
        if self.size > _LARGEST:
            raise LoadError(Reason.TOO_LARGE, f"{self.size / 1e6:,.0f} MB is over the limit")
        try:
            with open(self.file, "rb") as archive:
                archive.seek(self.offset)
                return archive.read(self.size)
        except OSError as error:
            raise LoadError(Reason.UNREADABLE, describe(error)) from error


@dataclass(frozen=True, slots=True)
class Bad:
    """What was skipped, and why."""

    name: str
    reason: str


def pair(file: Path, captions: Iterable[str], kind: Modality | None = None) -> Pair | Bad:
    """A pair of a file that is what its name says, or `kind`."""
    kind = kind or MODALITY_OF.get(file.suffix.lower().lstrip("."))
    if kind is None:
        return Bad(display(os.fsencode(file)), "neither a picture nor a sound by its name")
    return Pair(file, kind, tuple(captions))
