"""Files with classes, in the layouts that sets for measuring labels come in.

- ESC-50's: a table `labels.csv`, `esc50.csv` or `meta/esc50.csv`, with a column `file` (or
  `filename`) and a column `category` (or `class`, `label`); its split is its `fold`, where it has
  one. Files are in the folder or in `audio` or `images` beside the table
- a folder for each class: `DIR/dog/x.jpg`, or `DIR/SPLIT/dog/images/x.jpg`; files lie at any depth.
  `classes.tsv` or `words.txt` (`FOLDER<tab>name, synonym`), as ImageNet's sets have it, says
  what the folders are called
- tiny-ImageNet's `val`: `DIR/SPLIT/val_annotations.txt` (`FILE<tab>FOLDER`) names each file's class
- any of these within a zip archive

A class is called by its first name, with spaces for underscores.
"""

from __future__ import annotations

import csv
import hashlib
import mimetypes
import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mmsearch.errors import UsageError
from mmsearch.records import Modality

_TABLES = ("labels.csv", "esc50.csv", "meta/esc50.csv")
_SPLITS = {"train", "val", "valid", "dev", "test"}
_NAMES = ("classes.tsv", "words.txt")


@dataclass(frozen=True, slots=True)
class ClassedFile:
    """A file and the name of its one class."""

    path: Path
    modality: Modality
    label: str


@contextmanager
def unpacked(data: Path) -> Iterator[Path]:
    """The folder that was named, or what an archive holds, in a temporary one.

    Raises UsageError for anything else.
    """
    if data.is_dir():
        yield data
        return
    if not zipfile.is_zipfile(data):
        raise UsageError(f"no such folder or zip archive: {data}")
    with TemporaryDirectory(prefix="mmsearch-") as name, zipfile.ZipFile(data) as archive:
        archive.extractall(name)  # never outside of it: zipfile sees to that
        inside = [Path(entry) for entry in os.scandir(name)]
        yield inside[0] if len(inside) == 1 and inside[0].is_dir() else Path(name)


def read_classes(folder: Path, split: str | None = None) -> list[ClassedFile]:
    """The files of a split, or all; in the order of their table, else by path.

    Files that are no picture, sound or text by their names are left out. Raises UsageError,
    which says what was looked for: another layout, an absent split, a missing file.
    """
    try:
        table = next((folder / name for name in _TABLES if (folder / name).is_file()), None)
        found = list(_rows(table, split) if table else _folders(folder, split))
    except (OSError, ValueError, KeyError, csv.Error) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{folder}: not files with classes ({error!r})") from error
    classed = [
        ClassedFile(path, modality, label)
        for path, label in found
        if (modality := _modality(path)) is not None
    ]
    if len({file.label for file in classed}) < 2:
        what = f"the split {split!r} of {folder}" if split else f"{folder}"
        raise UsageError(
            f"{what} has no two classes of files: neither {_TABLES[0]} nor a folder for each class"
        )
    return classed


def data_hash(files: Sequence[ClassedFile]) -> str:
    """SHA-256 of the files' bytes and their labels, in order; names do not matter."""
    whole = hashlib.sha256()
    for one in files:
        with one.path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
        whole.update(one.label.encode() + b"\0")
    return whole.hexdigest()


def _rows(table: Path, split: str | None) -> Iterator[tuple[Path, str]]:
    top = table.parent if table.parent.name != "meta" else table.parent.parent
    places = [top, top / "audio", top / "images"]
    with table.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            if split is not None and row["fold"] != split:
                continue
            name = row.get("file") or row["filename"]
            label = row.get("category") or row.get("class") or row["label"]
            path = next((place / name for place in places if (place / name).is_file()), None)
            if path is None:
                raise UsageError(f"{table} names {name}, which is not in {top} or {top / 'audio'}")
            yield path, label.replace("_", " ")


def _folders(folder: Path, split: str | None) -> Iterator[tuple[Path, str]]:
    place = folder / split if split else folder
    if not place.is_dir():
        raise UsageError(f"no such folder: {place}")
    folders = {entry.name for entry in place.iterdir() if entry.is_dir()}
    if folders and folders <= _SPLITS:
        raise UsageError(f"{place} holds splits: say which with --split")
    names = _names(folder)
    annotations = place / "val_annotations.txt"
    if annotations.is_file():
        for line in annotations.read_text(encoding="utf-8").splitlines():
            name, label = line.split("\t")[:2]
            yield place / "images" / name, names.get(label, label)
        return
    for path in sorted(place.rglob("*")):
        label = path.relative_to(place).parts[0]
        if path.is_file() and path.parent != place and not path.name.startswith("."):
            yield path, names.get(label, label.replace("_", " "))


def _names(folder: Path) -> dict[str, str]:
    for name in _NAMES:
        if (folder / name).is_file():
            lines = (folder / name).read_text(encoding="utf-8").splitlines()
            pairs = (line.split("\t")[:2] for line in lines if "\t" in line)
            return {key: said.split(",")[0].strip() for key, said in pairs}
    return {}


def _modality(path: Path) -> Modality | None:
    kind = (mimetypes.guess_type(path.name, strict=False)[0] or "").partition("/")[0]
    return Modality(kind) if kind in set(Modality) else None
