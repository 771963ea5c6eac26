"""A library against the files themselves: read again, and a sample of them encoded again."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmsearch.decoding import DecoderPool, Job, Limits, Piece, Wants
from mmsearch.errors import LoadError
from mmsearch.files import Stat, display, opened
from mmsearch.records import Modality

if TYPE_CHECKING:
    from mmsearch.catalog import Catalog
    from mmsearch.catalog.inspection import Indexed
    from mmsearch.records import Vectors
    from mmsearch.settings import Settings
    from mmsearch.spaces import Opened

    Towers = Mapping[Modality, Opened]

LEAST = 0.999  # cosine of a vector and the same content's encoded again; float16 leaves 0.9999
_AT_ONCE = 32  # pieces encoded at a time


def compared(
    catalog: Catalog, towers: Towers, settings: Settings, sample: int, seed: int
) -> Iterator[str]:
    """What files say otherwise than the library, a sentence each.

    Every file that looks as it did when it was read is hashed; `sample` of those, chosen by
    `seed`, are decoded and encoded again. A file that is not there, or that has another size
    or date, is no fault of the library: the next `mmsearch index` sees to it. `towers` have of
    each modality the space that files are cut into parts for.
    """
    same: list[Indexed] = []
    for file in catalog.indexed():
        digest = _digest(file)
        if digest is None or file.digest[len(digest) :]:  # an older model's, see `supersede`
            continue
        if digest == file.digest:
            same.append(file)
        else:
            yield (
                f"{display(file.path)} has other bytes than when it was indexed, with the same "
                "size and date; run mmsearch index --rehash"
            )
    same = [file for file in same if file.modality in towers]
    chosen = random.Random(seed).sample(same, min(sample, len(same)))
    once = {file.content_id: file for file in chosen}
    rows = {id: catalog.rows_of(id, towers[file.modality].space.id) for id, file in once.items()}
    there = [file for id, file in once.items() if len(rows[id])]
    yield from _encoded(there, rows, towers, settings)


def _digest(file: Indexed) -> bytes | None:
    """The digest of its bytes now; None when it is not there, not readable, or has changed."""
    try:
        if Stat.of(os.lstat(file.path)).figures != file.state:
            return None
        found = hashlib.sha256()
        with opened(file.path) as (data, _):
            while block := data.read(1 << 20):
                found.update(block)
        return found.digest()
    except (OSError, LoadError):  # it cannot be read now: nothing is known of it
        return None


def _encoded(
    files: Sequence[Indexed], rows: dict[int, Vectors], towers: Towers, settings: Settings
) -> Iterator[str]:
    """Compare stored rows with those of these files' contents encoded again."""
    by_path = {file.path: file for file in files}
    nearest = {file.path: 1.0 for file in files}
    failed: dict[bytes, str] = {}
    pool = _pool(towers, settings)
    try:
        for file in files:
            pool.submit(Job(file.path))
        pieces: list[Piece] = []
        while pool.waiting:
            answer = pool.next()
            if isinstance(answer, Piece):
                pieces.append(answer)
            elif answer.reason is not None:
                failed[answer.job.path] = answer.message
            elif answer.parts != len(rows[by_path[answer.job.path].content_id]):
                failed[answer.job.path] = f"it has {answer.parts} parts now"
            if len(pieces) >= _AT_ONCE or not pool.waiting:
                for piece, row in _rows(towers, pieces):
                    path = piece.job.path
                    stored = rows[by_path[path].content_id][piece.number : piece.number + 1]
                    cosines = stored @ row / np.linalg.norm(stored, axis=1)
                    nearest[path] = min(nearest[path], *cosines.tolist())
                pieces = []
    finally:
        pool.close()
    for path in sorted(by_path):
        again = "mmsearch forget it and run mmsearch index"
        if path in failed:
            yield f"{display(path)} was indexed and cannot be read so now: {failed[path]}; {again}"
        elif not nearest[path] >= LEAST:
            yield (
                f"{display(path)} encoded again is another vector (cosine {nearest[path]:.4f}); "
                f"mmsearch doctor looks at the model, then {again}"
            )


def _pool(towers: Towers, settings: Settings) -> DecoderPool:
    """Decoders as an indexing run has them, but one alone."""
    image, audio = (towers.get(kind) for kind in (Modality.IMAGE, Modality.AUDIO))
    wants = Wants(
        image.encoder.image_input if image else None,
        audio.encoder.audio_input if audio else None,
        Modality.TEXT in towers,
    )
    limits = Limits(
        settings.timeout, settings.max_megapixels, settings.max_file_mb, settings.max_hours,
        settings.max_text_mb,
    )  # fmt: skip
    return DecoderPool(1, wants, limits)


def _rows(towers: Towers, pieces: Sequence[Piece]) -> Iterator[tuple[Piece, Vectors]]:
    """Each piece with its (dim,) row."""
    for kind in Modality:
        mine = [piece for piece in pieces if piece.modality is kind]
        if mine:
            data = [piece.data for piece in mine]
            yield from zip(mine, towers[kind].encoder.encode(kind, data), strict=True)
