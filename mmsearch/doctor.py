"""What mmsearch stands on here, line by line: versions, the model, the library's place."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmsearch.catalog import Catalog
from mmsearch.encoders import open_encoder
from mmsearch.errors import LibraryLocked, MmsearchError
from mmsearch.locking import WriterLock
from mmsearch.records import Modality
from mmsearch.space import Space

if TYPE_CHECKING:
    from mmsearch.encoders import Encoder
    from mmsearch.settings import Settings

_PAIRS = {"a plain red wall": (220, 20, 20), "the blue sea and the blue sky": (20, 60, 220)}
_ROOM = 1e9  # bytes: with less than this free, or than the library has, there is a warning
_REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph"})


class State(StrEnum):
    """How one thing stands: as it should, worth knowing, or to be mended."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was looked at; `remedy` says what to do, where there is something."""

    name: str
    state: State
    said: str
    remedy: str = ""

    def as_dict(self) -> dict[str, str]:
        """Plain values for JSON."""
        return asdict(self) | {"state": str(self.state)}


@dataclass(frozen=True, slots=True)
class Floor:
    """The first version of a package that is safe, and what is wrong with those before."""

    package: str
    least: str
    before: str
    install: str
    needed: bool = False


FLOORS = (
    Floor("pillow", "11.3", "they write past a buffer (CVE-2025-48379) and cannot read AVIF",
          'pip install -U "pillow>=11.3"', needed=True),
    Floor("onnxruntime", "1.20", "the models of today's mmsearch were not tried with them",
          'pip install -U "onnxruntime>=1.20"', needed=True),
    Floor("faiss-cpu", "1.15", "they crash on damaged index files",
          'pip install -U "faiss-cpu>=1.15"'),
    Floor("faiss-gpu", "1.15", "they crash on damaged index files",
          'pip install -U "faiss-gpu>=1.15"'),
    Floor("torch", "2.6", "loading weights can run code (CVE-2025-32434)",
          'pip install -U "torch>=2.6"'),
)  # fmt: skip
SQLITE = "3.51.3"  # the first without the fault of a log that is reset while it is read
_TRIGRAM = "3.34"  # the first with the tokenizer that finds parts of words


def examine(settings: Settings) -> Iterator[Line]:
    """Look at everything; a line each. Nothing is written but a probe that is removed again."""
    yield Line("python", State.OK, f"{platform.python_version()} on {platform.platform()}")
    yield from _sqlite()
    for floor in FLOORS:
        yield from _package(floor)
    yield _gpu()
    try:
        encoder = open_encoder(settings.model)
        yield _files(encoder)
        yield _pairs(encoder)
    except MmsearchError as error:
        encoder = None
        yield Line("model", State.WRONG, str(error), "name another --model, or install it again")
    yield from _place(settings.index)
    yield from _library(settings.index)


def older(found: str, least: str) -> bool:
    """Whether a version comes before another: numbers compared, whatever follows them ignored."""
    one, other = ([int(n) for n in re.findall(r"\d+", text)[:3]] for text in (found, least))
    width = max(len(one), len(other))
    return one + [0] * (width - len(one)) < other + [0] * (width - len(other))


def _sqlite() -> Iterator[Line]:
    found = sqlite3.sqlite_version
    if older(found, SQLITE):
        yield Line(
            "sqlite", State.WARNING,
            f"{found}: before {SQLITE} a write-ahead log may be reset under another process that "
            "reads it; mmsearch has one writer and never lets a reader do so",
            f"a Python that comes with SQLite {SQLITE} or newer",
        )  # fmt: skip
    else:
        yield Line("sqlite", State.OK, found)
    try:
        with sqlite3.connect(":memory:") as raw:
            raw.execute("CREATE VIRTUAL TABLE t USING fts5(x, tokenize = 'trigram')")
        yield Line("full-text search", State.OK, "FTS5 with trigrams")
    except sqlite3.Error as error:
        yield Line(
            "full-text search", State.WRONG, f"SQLite {found} has none of the kind ({error})",
            f"a Python with SQLite {_TRIGRAM} or newer, built with FTS5",
        )  # fmt: skip
    finally:
        raw.close()


def _package(floor: Floor) -> Iterator[Line]:
    try:
        found = version(floor.package)
    except PackageNotFoundError:
        if floor.needed:
            yield Line(floor.package, State.WRONG, "is not installed", floor.install)
        return
    if older(found, floor.least):
        said = f"{found}: before {floor.least}, {floor.before}"
        yield Line(floor.package, State.WRONG, said, floor.install)
    else:
        yield Line(floor.package, State.OK, found)


def _gpu() -> Line:
    """What of the graphics processor torch and FAISS see."""
    seen = []
    with suppress(Exception):  # a broken installation is no reason to stop
        import faiss

        if count := faiss.get_num_gpus():
            seen.append(f"FAISS sees {count}")
    with suppress(Exception):
        import importlib

        torch = importlib.import_module("torch")  # not for search: see tests/test_floors.py
        if torch.cuda.is_available():
            seen.append(f"torch sees {torch.cuda.get_device_name()}")
    return Line("gpu", State.OK, ", ".join(seen) or "none: everything runs on the processor")


def _files(encoder: Encoder) -> Line:
    altered = encoder.altered()
    if altered:
        said = f"{encoder.name}: {', '.join(altered)} altered or missing"
        return Line("model", State.WRONG, said, "install mmsearch, or the model, again")
    return Line("model", State.OK, f"{encoder.name} ({encoder.fingerprint[:8]}), files unaltered")


def _pairs(encoder: Encoder) -> Line:
    """Two sentences and two plain pictures: each sentence has to find its own."""
    if not {Modality.IMAGE, Modality.TEXT} <= encoder.modalities:
        return Line("known pairs", State.OK, f"{encoder.name} has no pictures and texts to compare")
    size = encoder.image_input.size
    pictures = [np.full((size, size, 3), colour, np.uint8) for colour in _PAIRS.values()]
    scores = encoder.encode(Modality.TEXT, list(_PAIRS)) @ (
        encoder.encode(Modality.IMAGE, pictures).T
    )
    if bool((scores.argmax(axis=1) == np.arange(len(_PAIRS))).all()):
        return Line("known pairs", State.OK, f"{len(_PAIRS)} of {len(_PAIRS)} found")
    return Line(
        "known pairs", State.WRONG, f"{encoder.name} mistakes red for blue: {scores.round(3)}",
        "install onnxruntime and mmsearch again",
    )  # fmt: skip


def _place(folder: Path) -> Iterator[Line]:
    """The disk that the library is on, or would be."""
    there = next(p for p in (folder, *folder.absolute().parents) if p.is_dir())
    free = shutil.disk_usage(there).free
    size = sum(_size(file) for file in (folder / "library.db", *folder.glob("cache/*")))
    said = f"{free / 1e9:,.1f} GB free at {there}"
    if free < max(_ROOM, size):
        remedy = f"make room: repair and backup need {size / 1e9:,.1f} GB beside the library"
        yield Line("disk", State.WARNING, said, remedy)
    else:
        yield Line("disk", State.OK, said)
    kind = _file_system(there)
    if kind in _REMOTE:
        yield Line(
            "file system", State.WARNING, f"{there} is on {kind}: locks and syncs may not hold",
            "keep the library on a local disk",
        )  # fmt: skip
    if not os.access(there, os.W_OK):
        yield Line(
            "locks", State.WARNING, f"{there} cannot be written: searching works, no more",
            "make it writable to you, or keep the library elsewhere: --index DIR",
        )  # fmt: skip
        return
    probe = there / f".doctor-{os.getpid()}"
    try:
        yield _locks(probe)
    except MmsearchError as error:
        yield Line("locks", State.WRONG, str(error), "keep the library on a local disk")
    finally:
        with suppress(OSError):
            probe.unlink()


def _locks(probe: Path) -> Line:
    """Whether a lock keeps a second writer out. Raises StorageFailed where there are none."""
    with WriterLock(probe):
        try:
            with WriterLock(probe):
                said = f"{probe.parent} lets two writers in at once: locks hold nobody there"
                return Line("locks", State.WRONG, said, "keep the library on a local disk")
        except LibraryLocked:
            return Line("locks", State.OK, "one writer at a time")


def _library(folder: Path) -> Iterator[Line]:
    """The library itself, as far as opening it tells."""
    if not (folder / "library.db").exists():
        yield Line("library", State.OK, f"nothing is indexed in {folder} yet")
        return
    try:
        with Catalog.open(folder / "library.db") as catalog:
            counts = catalog.counts()
            yield Line("library", State.OK, f"{counts['files']:,} files in {folder}")
            for row in catalog.spaces():
                state = Space(catalog, folder / "cache", row).state()
                if state.problem:
                    yield Line("cache", State.WARNING, state.problem, "run mmsearch index")
                else:
                    said = f"{row[1]}: {state.rows:,} rows, {state.fresh:,} newer"
                    yield Line("cache", State.OK, said)
    except MmsearchError as error:
        yield Line(
            "library", State.WRONG, str(error), "mmsearch check says more; mmsearch repair mends it"
        )


def _file_system(folder: Path) -> str:
    """Of which kind it is; "" where the system does not say."""
    best = ("", "")
    with suppress(OSError):
        real = os.path.realpath(folder)
        for line in Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
            _, point, kind, *_ = line.split(" ")
            inside = real == point or real.startswith(point.rstrip("/") + "/")
            best = max(best, (point, kind)) if inside else best
    return best[1]


def _size(file: Path) -> int:
    with suppress(OSError):
        return file.stat().st_size
    return 0
