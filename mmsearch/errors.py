"""Everything mmsearch raises on purpose, as one tree. The library raises, the CLI exits.

MmsearchError
├── UsageError            the call itself is wrong (exit 2)
├── MissingExtra          an optional package is needed; the message has the pip line
├── ModelError            a model's files are absent or altered
├── LoadError             one file cannot be read; carries a Reason
├── BenchmarkError        something cannot be measured, and why
├── TrainingError         a training run cannot begin or go on
│   └── PairsError        a list or an archive of training pairs cannot be read
└── LibraryError
    ├── LibraryMissing    nothing is indexed there yet
    ├── LibraryLocked     another process is writing
    ├── LibraryDamaged    what is on disk is not what was written
    ├── LibraryReadOnly   writing was asked of a place that cannot be written
    ├── EncoderMismatch   built with another encoder
    ├── SchemaMismatch    written by a newer mmsearch
    ├── DiskFull          no space left; what was reported stays indexed
    └── StorageFailed     the disk reported an error
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from mmsearch.records import Reason

Choice = TypeVar("Choice", bound=StrEnum)


class MmsearchError(Exception):
    """The root: catch this to catch everything mmsearch raises on purpose."""


class UsageError(MmsearchError, ValueError):
    """The call itself is wrong; the message says what to write instead."""


class MissingExtra(MmsearchError, ImportError):
    """An optional package is needed; the message has the exact pip line."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f'{what} needs an extra: pip install "mmsearch[{extra}]"')


class ModelError(MmsearchError):
    """A model's files are absent, altered or not a model."""


class LoadError(MmsearchError):
    """One file cannot be read; `reason` is its stable code."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class BenchmarkError(MmsearchError):
    """Something cannot be measured; the message says why."""


class TrainingError(MmsearchError):
    """A training run cannot begin or go on; what it saved last is kept."""


class PairsError(TrainingError):
    """A list or an archive of training pairs is absent, damaged or of no known kind."""


class LibraryError(MmsearchError):
    """Something about a library as a whole."""


class LibraryMissing(LibraryError):
    """Nothing is indexed there yet."""

    @classmethod
    def at(cls, folder: Path) -> LibraryMissing:
        """There is no library in this folder."""
        return cls(f"nothing is indexed in {folder}; try: mmsearch index FOLDER")


class LibraryLocked(LibraryError):
    """Another process is writing; the message names its pid and since when."""


class LibraryDamaged(LibraryError):
    """What is on disk is not what was written."""


class LibraryReadOnly(LibraryError):
    """Writing was asked of a place that cannot be written."""


class EncoderMismatch(LibraryError):
    """The library was built with another encoder than the one at hand."""


class SchemaMismatch(LibraryError):
    """The library was written by a newer mmsearch."""


class DiskFull(LibraryError):
    """No space left. What was reported as indexed stays indexed."""


class StorageFailed(LibraryError):
    """The disk reported an error; the connection was closed, nothing was retried."""


def chosen(kind: type[Choice], what: str, name: str) -> Choice:
    """The member of an enumeration with that name. Raises UsageError, which lists them all."""
    try:
        return kind(name)
    except ValueError:
        raise UsageError(f"{what} is one of {', '.join(kind)}, not {name!r}") from None
