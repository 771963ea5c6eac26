"""The stages of indexing, each by itself in this process, beside the bare limit of each.

- walk: `files.walk` over the folder; its limit: `os.scandir` and `stat` alone
- read: files read carefully, and their SHA-256; the same bytes by `open().read()`
- decode: what the loaders take beyond preprocessing, with all their checks, scaled decoding and
  windows of sound; Pillow's scaled decode, libsndfile's read, UTF-8 alone
- preprocess: decoded pictures made what the encoder wants; Pillow's `resize` alone
- encode: `Encoder.encode`, 32 at a time; the same graph by ONNX Runtime alone, a thread a core (of
  an encoder without one, or where there is more than pictures: all in one call)
- commit: contents, vectors and files written through the catalog, 256 a transaction; the same
  blobs written by SQLite alone, to one table

`stages` takes turns: a stage, then its limit, `repeat` times; figures are medians. A run of
`mmsearch index` overlaps them, so its wall time is less than their sum, and its CPU time should be
about their sum: what is more is the price of handing over between processes.
"""

from __future__ import annotations

import io
import os
import sqlite3
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.catalog import Catalog, Content, Part
from mmsearch.decoding import SUFFIXES
from mmsearch.encoders import Encoder
from mmsearch.errors import BenchmarkError, LoadError
from mmsearch.evaluation.costs import Spent, spent
from mmsearch.files import WalkRules, digest, opened, read_regular, walk
from mmsearch.loaders import load_image, to_pixels
from mmsearch.records import Modality

if TYPE_CHECKING:
    from mmsearch.records import Vectors

_ENCODE = 32  # handed to the encoder at a time
_COMMIT = 256  # files a transaction
_MEGAPIXELS = 64.0
_LARGEST = 256e6  # bytes


@dataclass(frozen=True, slots=True)
class Stage:
    """Seconds a file, of CPU and of wall time, and those of the bare limit; None: without one."""

    cpu: float
    wall: float
    limit_cpu: float | None = None
    limit_wall: float | None = None

    def as_dict(self) -> dict[str, float | None]:
        """Milliseconds a file."""
        names = ("cpu", "wall", "limit_cpu", "limit_wall")
        values = ((name, getattr(self, name)) for name in names)
        return {f"{name}_ms": None if v is None else round(1e3 * v, 4) for name, v in values}


@dataclass(slots=True)
class _File:
    """A file, and what its stages have made of it so far."""

    path: Path
    kind: Modality
    data: bytes
    picture: Any = None  # decoded by Pillow alone, before preprocessing
    pieces: Sequence[Any] = ()  # as the encoder wants them


def supported(folder: Path, encoder: Encoder) -> list[Path]:
    """The files below a folder that a model has towers for, in the order of a walk."""
    endings = set().union(*(SUFFIXES[kind] for kind in encoder.modalities))
    return [
        Path(os.fsdecode(os.path.join(here.path, name)))
        for here in walk(os.path.realpath(os.fsencode(folder)), WalkRules())
        for name, _ in here.files
        if os.path.splitext(name)[1].lower() in endings
    ]


def stages(
    folder: Path, paths: Sequence[Path], encoder: Encoder, work: Path, repeat: int = 3
) -> dict[str, Stage]:
    """What each stage takes of some of a folder's files, by its name; `work` is an empty folder.

    Files that cannot be read are left out. Raises BenchmarkError when nothing is left.
    """
    sample = list(_readable(paths, encoder))
    if not sample:
        raise BenchmarkError(f"{folder}: none of {len(paths)} files can be read")
    count = len(sample)
    want = encoder.image_input

    def load() -> None:
        for file in sample:
            file.pieces = _pieces(file, encoder)

    def bare_decode() -> None:
        for file in sample:
            _decode_barely(file, want.size)

    def preprocess() -> None:
        for file in pictures:
            to_pixels(file.picture, want)

    def bare_resize() -> None:
        for file in pictures:
            file.picture.resize((want.size, want.size), _bicubic())

    bare_decode()
    pictures = [file for file in sample if file.picture is not None]
    walked = _walk(folder)
    found = {
        "walk": _turns(lambda: _walk(folder), lambda: _scan(folder), walked, repeat),
        "read": _turns(lambda: _read(sample), lambda: _read_barely(sample), count, repeat),
    }
    loading = _turns(load, bare_decode, count, repeat)
    if pictures:
        found["preprocess"] = _turns(preprocess, bare_resize, count, repeat)
        cpu, wall = found["preprocess"].cpu, found["preprocess"].wall
        loading = Stage(
            max(loading.cpu - cpu, 0), max(loading.wall - wall, 0),
            loading.limit_cpu, loading.limit_wall,
        )  # fmt: skip
    found["decode"] = loading
    rows: dict[Modality, Vectors] = {}

    def encode() -> None:
        rows.update({kind: _encode(sample, kind, encoder, _ENCODE) for kind in kinds})

    kinds = sorted({file.kind for file in sample})
    encode()  # loads the model
    found["encode"] = _turns(encode, _bare_encode(sample, kinds, encoder), count, repeat)
    places = iter(range(2 * repeat))
    found["commit"] = _turns(
        lambda: _commit(sample, rows, encoder, work / f"{next(places)}.db"),
        lambda: _commit_barely(sample, rows, work / f"{next(places)}.db"),
        count, repeat,
    )  # fmt: skip
    order = ("walk", "read", "decode", "preprocess", "encode", "commit")
    return {name: found[name] for name in order if name in found}


def _turns(
    work: Callable[[], Any], limit: Callable[[], Any] | None, count: int, repeat: int
) -> Stage:
    """A stage and its limit, one after the other: medians, a file."""
    mine: list[Spent] = []
    bare: list[Spent] = []
    for _ in range(repeat):
        mine.append(spent(work))
        if limit is not None:
            bare.append(spent(limit))
    figures = [
        statistics.median(one) / count if one else None
        for costs in (mine, bare)
        for one in ([cost.cpu for cost in costs], [cost.wall for cost in costs])
    ]
    return Stage(figures[0] or 0.0, figures[1] or 0.0, *figures[2:])


# -- walk and read -------------------------------------------------------------------------


def _walk(folder: Path) -> int:
    top = os.path.realpath(os.fsencode(folder))
    return sum(len(here.files) for here in walk(top, WalkRules()))


def _scan(folder: Path) -> None:
    waiting = [os.fspath(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)


def _readable(paths: Sequence[Path], encoder: Encoder) -> Iterator[_File]:
    for path in paths:
        suffix = os.fsencode(path.suffix.lower())
        kind = next(kind for kind in encoder.modalities if suffix in SUFFIXES[kind])
        with suppress(LoadError):
            file = _File(path, kind, _bytes_of(path))
            file.pieces = _pieces(file, encoder)
            yield file


def _bytes_of(path: Path) -> bytes:
    return read_regular(os.fsencode(path), _LARGEST, lambda head: None)[0]


def _read(sample: Sequence[_File]) -> None:
    for file in sample:
        digest(_bytes_of(file.path))


def _read_barely(sample: Sequence[_File]) -> None:
    for file in sample:
        file.path.read_bytes()


# -- decode and preprocess -----------------------------------------------------------------


def _pieces(file: _File, encoder: Encoder) -> list[Any]:
    """What the encoder gets of a file, by the loaders that indexing uses."""
    if file.kind is Modality.IMAGE:
        want = encoder.image_input
        return [load_image(file.data, want, max_megapixels=_MEGAPIXELS).pixels]
    with opened(os.fsencode(file.path)) as (source, _):
        if file.kind is Modality.AUDIO:
            from mmsearch.loaders import sounds

            assert encoder.audio_input is not None  # it has a tower for sounds
            return [window.samples for window in sounds.windows(source, encoder.audio_input)]
        from mmsearch.loaders import texts

        return list(texts.passages(source, markdown=file.path.suffix == ".md"))


def _decode_barely(file: _File, size: int) -> None:
    if file.kind is Modality.IMAGE:
        from PIL import Image

        file.picture = Image.open(io.BytesIO(file.data))
        file.picture.draft("RGB", (3 * size // 2, 3 * size // 2))  # of use to a JPEG alone
        file.picture.load()
    elif file.kind is Modality.AUDIO:
        import soundfile

        soundfile.read(file.path, dtype="float32")
    else:
        file.data.decode("utf-8", "replace")


def _bicubic() -> Any:
    from PIL import Image

    return Image.Resampling.BICUBIC


# -- encode --------------------------------------------------------------------------------


def _encode(sample: Sequence[_File], kind: Modality, encoder: Encoder, size: int) -> Vectors:
    pieces = [piece for file in sample if file.kind is kind for piece in file.pieces]
    starts = range(0, len(pieces), size)
    return np.concatenate([encoder.encode(kind, pieces[s : s + size]) for s in starts])


def _bare_encode(
    sample: Sequence[_File], kinds: Sequence[Modality], encoder: Encoder
) -> Callable[[], Any]:
    """The pictures by their graph in ONNX Runtime alone; where that is not all, in one call."""
    graph = encoder.folder / "image.onnx" if encoder.folder else None
    if list(kinds) != [Modality.IMAGE] or graph is None or not graph.is_file():
        return lambda: [_encode(sample, kind, encoder, 1 << 30) for kind in kinds]
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # one that is shared out hands over, and spins, at every layer
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    (name,) = (one.name for one in session.get_inputs())
    pixels = np.stack([file.pieces[0] for file in sample])

    def call(start: int) -> None:
        session.run(None, {name: pixels[start : start + 2]})  # as many as fit a core's cache

    def run() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(call, range(0, len(pixels), 2)))

    return run


# -- commit --------------------------------------------------------------------------------


def _commit(
    sample: Sequence[_File], rows: dict[Modality, Vectors], encoder: Encoder, place: Path
) -> None:
    with Catalog.create(place) as catalog:
        with catalog.transaction():
            space_id = catalog.put_space(encoder.name, encoder.fingerprint, encoder.dim)
        for batch in _batches(sample, rows):
            with catalog.transaction():
                for number, file, mine in batch:
                    said = file.pieces if file.kind is Modality.TEXT else [None] * len(mine)
                    parts = tuple(Part(None, None, text) for text in said)
                    content = Content(
                        number.to_bytes(32, "big"), file.kind, "made",
                        parts=() if file.kind is Modality.IMAGE else parts,
                    )  # fmt: skip
                    content_id = catalog.put_content(content, space_id, mine)
                    catalog.put_file(
                        os.fsencode(file.path), (1, 1, number + 1), content_id=content_id,
                        modality=file.kind,
                    )  # fmt: skip


def _commit_barely(sample: Sequence[_File], rows: dict[Modality, Vectors], place: Path) -> None:
    connection = sqlite3.connect(place, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE made (path BLOB, digest BLOB, data BLOB)")
    for batch in _batches(sample, rows):
        connection.execute("BEGIN")
        for number, file, mine in batch:
            row = os.fsencode(file.path), number.to_bytes(32, "big"), mine.astype("<f2").tobytes()
            connection.execute("INSERT INTO made VALUES (?, ?, ?)", row)
        connection.execute("COMMIT")
    connection.close()


def _batches(
    sample: Sequence[_File], rows: dict[Modality, Vectors]
) -> Iterator[list[tuple[int, _File, Vectors]]]:
    """(number, file, its rows) of all files, as many as one transaction has."""
    used = dict.fromkeys(rows, 0)
    batch = []
    for number, file in enumerate(sample):
        first = used[file.kind]
        used[file.kind] += len(file.pieces)
        batch.append((number, file, rows[file.kind][first : used[file.kind]]))
        if len(batch) == _COMMIT:
            yield batch
            batch = []
    if batch:
        yield batch
