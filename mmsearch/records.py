"""The nouns: what flows from files to answers. Imports nothing else of ours."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # numpy costs a tenth of a second, and --help has no need of it
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]  # (n, dim) unit rows
    Samples = NDArray[np.float32]  # (n,) one channel of sound, full scale is 1
    Ids = NDArray[np.int64]  # (n,) ids of the catalog
    Pixels = NDArray[np.uint8]  # (height, width, 3) RGB
    Scores = NDArray[np.float32]  # inner products, or what is made of them
    Kinds = NDArray[np.uint8]  # (n,) numbers of Kind


class Modality(StrEnum):
    """What an item is."""

    IMAGE = "image"
    AUDIO = "audio"
    TEXT = "text"


class Kind(IntEnum):
    """What a vector stands for, as a cache numbers it: an item, or a caption of one."""

    IMAGE = 0
    AUDIO = 1
    TEXT = 2
    CAPTION = 3

    @property
    def modality(self) -> Modality:
        """What the encoder read: a caption is a text to it."""
        return Modality.TEXT if self is Kind.CAPTION else Modality[self.name]


class Reason(StrEnum):
    """Why a file is not in the index. The codes are stable: scripts may match them."""

    # Skipped: not a supported type. Counted, no fault of anyone.
    UNSUPPORTED = "unsupported"
    NO_MODEL = "no-model"  # no model of the library reads this kind of file
    NOT_REGULAR = "not-regular"
    SYMLINK = "symlink"
    NEEDS_EXTRA = "needs-extra"
    SIDECAR = "sidecar"  # what it says is captions of other files
    # Failed: supported, but unreadable. Named, and the run exits 3.
    EMPTY = "empty"
    TYPE_MISMATCH = "type-mismatch"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    OVER_BUDGET = "over-budget"
    TOO_LARGE = "too-large"
    UNREADABLE = "unreadable"
    CHANGED = "changed"
    CRASHED = "crashed"
    TIMED_OUT = "timed-out"
    OUT_OF_MEMORY = "out-of-memory"
    NONFINITE = "nonfinite"
    SILENT = "silent"

    @property
    def skipped(self) -> bool:
        """True for a file of a type that is not supported, False for one that failed."""
        return self in _SKIPPED


_SKIPPED = frozenset(
    {
        Reason.UNSUPPORTED, Reason.NO_MODEL, Reason.NOT_REGULAR, Reason.SYMLINK,
        Reason.NEEDS_EXTRA, Reason.SIDECAR,
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ImageInput:
    """How an encoder wants its pictures: uint8 RGB, `size` x `size` pixels.

    `fit` is "squash" (the whole picture, aspect ratio given up), "crop" (the
    shorter side to `size`, then the centre) or "pad" (the longer side to `size`, the rest filled
    with the grey `fill`). `resample` names a Pillow filter. `exact` has every pixel of the file
    decoded and filtered, as references do; without it a large picture may be decoded smaller.
    """

    size: int
    fit: str = "squash"
    resample: str = "bicubic"
    fill: int = 0
    exact: bool = False


@dataclass(frozen=True, slots=True)
class AudioInput:
    """How an encoder wants its sounds: float32 mono at `rate` a second, in windows of
    `window` seconds; the last one of a sound may be shorter, or longer by less than a second.
    """

    rate: int = 16000
    window: float = 5.0

    @property
    def most(self) -> int:
        """No window has more samples."""
        return round(self.rate * (self.window + 1))


@dataclass(frozen=True, slots=True)
class Caption:
    """What is said of a file in words: beside it, or inside of it.

    `source` is "sidecar" (x.txt beside x.jpg), the name of a list ("captions.csv"), or the
    standard a file's own words follow: "exif", "iptc", "xmp", "png", "id3", "vorbis", "info" and
    "bext" (lists of a WAV).
    """

    source: str
    text: str


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a file says of itself. None where it says nothing.

    `taken` is the wall clock where it was taken, in nanoseconds since 1970 as if that clock
    showed UTC, and `taken_source` where this stands: the standard, as in Caption.
    `duration` is in seconds, `latitude` and `longitude` in degrees, north and east above 0.
    """

    taken: int | None = None
    taken_source: str | None = None
    duration: float | None = None
    camera: str | None = None
    lens: str | None = None
    iso: int | None = None
    latitude: float | None = None
    longitude: float | None = None
    captions: tuple[Caption, ...] = ()


@dataclass(frozen=True, slots=True)
class Rows:
    """Vectors that lie together: (n,) ids rising, (n, dim) unit rows, and of each what it
    stands for and its hubness, which is taken off its scores with words.
    """

    ids: Ids
    vectors: Vectors
    kinds: Kinds
    hubness: Scores

    def of(self, kind: Kind) -> Rows:
        """Those of one kind."""
        mine = self.kinds == kind
        return Rows(self.ids[mine], self.vectors[mine], self.kinds[mine], self.hubness[mine])


@dataclass(frozen=True, slots=True)
class Item:
    """One searchable thing: a picture, a passage of text, a window of sound.

    `start` and `end` are seconds into a sound, None for anything else.
    """

    id: int
    path: Path
    modality: Modality
    part: int = 0
    start: float | None = None
    end: float | None = None


class Sort(StrEnum):
    """In what order answers come: best first, newest first, or by path."""

    SCORE = "score"
    DATE = "date"
    PATH = "path"


@dataclass(frozen=True, slots=True)
class Share:
    """A word of the query, or a piece of an answer, and how far the score falls without it.

    `what` is the word, the sentence of a passage, or the place of a piece of a picture
    ("top left"). A second of a sound has `start` and `end` in seconds and says the same in
    `what`. Below 0: the score rises without it.
    """

    what: str
    carried: float
    start: float | None = None
    end: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        row = {"what": self.what, "carried": round(self.carried, 6)}
        return row if self.start is None else row | {"start": self.start, "end": self.end}


@dataclass(frozen=True, slots=True)
class Why:
    """What carried an answer: words of the query, and pieces of the answer, each left out once."""

    words: tuple[Share, ...] = ()
    pieces: tuple[Share, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "words": [share.as_dict() for share in self.words],
            "pieces": [share.as_dict() for share in self.pieces],
        }


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer, in rank order from 1.

    `score` is the raw inner product of unit rows, higher is nearer (None for a hit
    that keywords alone found). `relevance` is a calibrated 0-1, None where no
    calibration exists. `id` is the item's id in the catalog. `start` and `end` are seconds
    into a sound, `text` is what a passage of a text says. `captions` are what was said of the
    file, `taken` is the wall clock when it was taken or else when it was last changed.
    `duplicates` are the files folded into this answer, and `why` is there when it was asked.
    `space` is the model whose score this is where a library has several, whose scores do not
    compare: the one that ranked it highest.
    """

    rank: int
    score: float | None
    relevance: float | None
    path: Path
    modality: Modality
    id: int
    start: float | None = None
    end: float | None = None
    text: str | None = None
    captions: tuple[str, ...] = ()
    taken: datetime | None = None
    duplicates: tuple[Path, ...] = ()
    why: Why | None = None
    space: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; a path that is not UTF-8 also comes as base64 `path_bytes`."""
        row: dict[str, Any] = {
            "rank": self.rank,
            "score": None if self.score is None else round(self.score, 6),
            "relevance": None if self.relevance is None else round(self.relevance, 6),
            "path": _path_values(self.path)["path"],
            "modality": str(self.modality),
            "id": self.id,
            "start": self.start,
            "end": self.end,
            "text": self.text,
            "captions": list(self.captions),
            "taken": self.taken and self.taken.isoformat(),
            "duplicates": [_path_values(path) for path in self.duplicates],
        }
        if self.why is not None:
            row["why"] = self.why.as_dict()
        if self.space is not None:
            row["space"] = self.space
        return row | _path_values(self.path)


@dataclass(frozen=True, slots=True)
class Label:
    """A word of a vocabulary that says what is in a file, and how surely, from 0 to 1."""

    path: Path
    modality: Modality
    label: str
    relevance: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; a path that is not UTF-8 also comes as base64 `path_bytes`."""
        said = {"modality": str(self.modality), "label": self.label}
        return _path_values(self.path) | said | {"relevance": round(self.relevance, 6)}


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that is not in the index, with the reason code and one line for a person."""

    path: Path
    reason: Reason
    message: str

    def as_dict(self) -> dict[str, str]:
        """Plain values for JSON; a path that is not UTF-8 also comes as base64 `path_bytes`."""
        return _path_values(self.path) | {"reason": str(self.reason), "message": self.message}


def _path_values(path: Path) -> dict[str, str]:
    raw = os.fsencode(path)
    shown = raw.decode("utf-8", "replace")
    row = {"path": shown}
    if shown.encode() != raw:
        row["path_bytes"] = base64.b64encode(raw).decode("ascii")
    return row


@dataclass(slots=True)
class Report:
    """What one indexing run did. Every file seen counts once.

    added: newly findable; changed: new content under a known path; moved and copied:
    known content under a new path, not encoded again; gone: no longer below the paths
    given; offline: files of roots that are not there now; skipped: not a supported
    type; sidecars: captions of other files; unchanged: as before. `failures` has what could
    not be read in this run. captioned: how many of the files have other captions than before.
    filled: contents that were known, captions among them, and now have vectors in a further space.

    encoded: vectors that were written; `vectors` those that were made, by modality, in `seconds` of
    reading and encoding. `waited`: seconds of these with nothing to do but wait for the encoder,
    less those of waiting for files.
    """

    added: int = 0
    changed: int = 0
    moved: int = 0
    copied: int = 0
    gone: int = 0
    offline: int = 0
    skipped: int = 0
    sidecars: int = 0
    unchanged: int = 0
    failures: list[Failure] = field(default_factory=list)
    encoded: int = 0
    captioned: int = 0
    filled: int = 0
    vectors: dict[Modality, int] = field(default_factory=dict)
    seconds: float = 0.0
    waited: float = 0.0
    interrupted: bool = False
    dry_run: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def failed(self) -> list[tuple[Path, str]]:
        """(path, reason) of every file that failed in this run."""
        return [(failure.path, str(failure.reason)) for failure in self.failures]

    @property
    def per_second(self) -> dict[str, float]:
        """Vectors made a second, by modality."""
        return {str(kind): count / self.seconds for kind, count in self.vectors.items()}

    @property
    def limit(self) -> str | None:
        """Which of the two the run waited for: the "loader" or the "encoder"; None: for neither."""
        if not self.vectors:
            return None
        return "encoder" if self.waited >= 0 else "loader"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        counts: dict[str, Any] = {
            name: getattr(self, name)
            for name in (
                "added", "changed", "moved", "copied", "gone", "offline",
                "skipped", "sidecars", "unchanged", "encoded", "captioned", "filled",
                "interrupted", "dry_run", "limit",
            )
        }  # fmt: skip
        counts["per_second"] = {kind: round(rate, 2) for kind, rate in self.per_second.items()}
        failed = [failure.as_dict() for failure in self.failures]
        return counts | {"failed": failed, "notes": list(self.notes)}
