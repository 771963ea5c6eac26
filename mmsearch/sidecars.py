"""Captions that lie beside files: which there are, and what they say.

    x.txt, x.jpg.txt                  of the picture or sound x.jpg: a line a caption
    captions.csv, captions.jsonl      of the files of their folder and below (see mmsearch.lists)

A list may name the files of a folder beside it by their names alone, as sets of photos do:
images/ and its like. What names a file elsewhere is passed over. Sidecars are data that anyone
may have written: they are read with bounds, and nothing in them is ever run or opened.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mmsearch.errors import LoadError
from mmsearch.files import Stat, display, read_regular, well_formed
from mmsearch.lists import read_rows
from mmsearch.records import Caption, Reason

LISTS = (b"captions.csv", b"captions.jsonl")
LARGEST = 1 << 16  # bytes; a longer x.txt is a text of its own: the book whose cover is x.jpg
LARGEST_LIST = 64_000_000  # bytes: the captions of a million photos
MOST = 64  # captions of one file that are taken
LONGEST = 1000  # characters of one caption that are taken
FOLDERS = (b"images", b"Images", b"Flicker8k_Dataset")  # where lists keep photos

_CONTROLS = dict.fromkeys([*range(32), *range(127, 160)], " ")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

Found = tuple[bytes, Stat]  # a path or a name, and the state of the file


@dataclass(frozen=True, slots=True)
class Sidecars:
    """The files that caption one file, and a number that changes when these do: 0 for none."""

    paths: tuple[bytes, ...] = ()
    mark: int = 0


class Surroundings:
    """What captions the files of one folder: texts beside them, and lists here and above.

    `files` are names, `lists` the lists of the folders above, the nearest first. Files with
    these suffixes, in small letters, can have captions.
    """

    def __init__(
        self,
        folder: bytes,
        files: Iterable[Found],
        lists: Sequence[Found],
        suffixes: frozenset[bytes],
    ) -> None:
        self._folder = folder
        states = dict(files)
        here = [(os.path.join(folder, name), states[name]) for name in LISTS if name in states]
        self.lists: tuple[Found, ...] = (*here, *lists)
        texts = {
            name[: -len(b".txt")]: name
            for name, state in states.items()
            if name.lower().endswith(b".txt") and state.size <= LARGEST
        }
        self._texts: dict[bytes, list[Found]] = {}  # by the name of the file
        self._owners: dict[bytes, bytes] = {}  # by the name of the text
        self._suffixes = suffixes
        for name in states if texts else ():
            stem, suffix = os.path.splitext(name)
            for text in (texts.get(stem), texts.get(name)):
                if text is not None and suffix.lower() in suffixes:
                    found = os.path.join(folder, text), states[text]
                    self._texts.setdefault(name, []).append(found)
                    self._owners.setdefault(text, name)

    def of(self, name: bytes) -> Sidecars:
        """What captions this file."""
        if os.path.splitext(name)[1].lower() not in self._suffixes:
            return Sidecars()
        found = [*self._texts.get(name, ()), *self.lists]
        return Sidecars(tuple(path for path, _ in found), _mark(found))

    def is_sidecar(self, name: bytes) -> bool:
        """Whether this file is captions of others, and no text of its own."""
        return name in LISTS or name in self._owners


def _mark(found: Sequence[Found]) -> int:
    if not found:
        return 0
    told = repr([(path, state.figures) for path, state in found]).encode()
    return int.from_bytes(hashlib.sha256(told).digest()[:8], "little", signed=True)


class Reader:
    """Reads sidecars, a list once as long as it stays the same."""

    def __init__(self) -> None:
        self._lists: dict[bytes, tuple[Stat | None, _Said]] = {}

    def captions(self, path: bytes, sidecars: Iterable[bytes]) -> list[Caption]:
        """What these sidecars say of a file, each thing once; nothing where one is unreadable."""
        found: dict[str, Caption] = {}
        for sidecar in sidecars:
            try:
                source, said = self._read(path, sidecar)
            except LoadError:
                continue  # named when the sidecar itself had its turn
            for text in said:
                if words := clean(text):
                    found.setdefault(words, Caption(source, words))
        return list(found.values())[:MOST]

    def check(self, sidecar: bytes) -> str:
        """What there is to say of a sidecar. Raises LoadError when it cannot be read."""
        if os.path.basename(sidecar) not in LISTS:
            read_lines(sidecar)
            return "captions of the file beside it"
        said = self._list(sidecar)
        return f"captions of {len(said.of):,} files{said.remark}"

    def _read(self, path: bytes, sidecar: bytes) -> tuple[str, Sequence[str]]:
        name = os.path.basename(sidecar)
        if name in LISTS:
            return os.fsdecode(name), self._list(sidecar).about(path)
        return "sidecar", read_lines(sidecar)

    def _list(self, path: bytes) -> _Said:
        state = _state(path)
        known, said = self._lists.get(path, (None, None))
        if said is None or known != state:
            if len(self._lists) >= 8:  # a folder and those above it, not a whole disk's
                self._lists.clear()
            said = _Said(path)
            self._lists[path] = state, said
        return said


class _Said:
    """A list, read: `of` has captions by the path of the file they are of."""

    def __init__(self, path: bytes) -> None:
        self._folder = os.path.dirname(path)
        self.of: dict[bytes, list[str]] = {}
        self.remark = ""  # on rows that are of no use
        data, _ = read_regular(path, LARGEST_LIST, lambda head: None)
        suffix = os.fsdecode(os.path.splitext(path)[1])
        wrong = 0
        for row in read_rows(io.StringIO(_decoded(data), newline=""), suffix):
            file = self._place(row.file) if not row.wrong else None
            if file is None:
                wrong += 1
                what = row.wrong or "a file that is not below the list"
                self.remark = self.remark or f"line {row.line}: {what}"
            elif len(said := self.of.setdefault(file, [])) < MOST:
                said += row.captions[:MOST]
        if wrong:
            self.remark = f"; rows of no use: {wrong:,}, the first is {display(self.remark)}"

    def _place(self, name: str) -> bytes | None:
        """The path of a file that a row names; None for one that is not below the list."""
        try:
            whole = os.path.normpath(os.path.join(self._folder, os.fsencode(name)))
        except UnicodeEncodeError:  # half of a character
            return None
        return whole if whole.startswith(self._folder.rstrip(b"/") + b"/") else None

    def about(self, path: bytes) -> list[str]:
        """What the list says of a file below it."""
        if path in self.of:
            return self.of[path]
        first, _, rest = os.path.relpath(path, self._folder).partition(b"/")
        plain = os.path.join(self._folder, rest)
        if first in FOLDERS and plain in self.of and not os.path.lexists(plain):
            return self.of[plain]
        return []


def read_lines(path: bytes, largest: int = LARGEST) -> list[str]:
    """The captions of an x.txt, a line each. Raises LoadError."""
    data, _ = read_regular(path, largest, lambda head: None)
    return [line for line in _decoded(data).splitlines() if line.strip()]


def clean(text: str) -> str:
    """A caption on one line, without control characters, of bounded length."""
    whole = well_formed(text[: 4 * LONGEST]).translate(_CONTROLS)
    return " ".join(whole.split())[:LONGEST].rstrip()


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-16" if data[:2] in _UTF16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"not UTF-8 text: byte {error.start:,}"
        raise LoadError(Reason.TYPE_MISMATCH, message) from error


def _state(path: bytes) -> Stat | None:
    try:
        return Stat.of(os.lstat(path))
    except OSError:
        return None
