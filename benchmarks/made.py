"""Libraries of pictures that do not exist, as large as one likes, written as indexing writes them.

Every vector is that of a real photo plus a random one of half its length, renormalised (cosine to
the photo about 0.9), so that many rows compete as they do in real libraries. Names are made of
captions of those photos and end in the picture's number, and one picture in ten has a caption of
its own, as from a sidecar. One in a hundred is 999 pixels wide; heights run from 1 to 1,000, so
that `height <= 10` keeps one in a hundred.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from measuring import REPOSITORY

from mmsearch import backgrounds
from mmsearch.catalog import Catalog, Content
from mmsearch.datasets.captions import read_captions
from mmsearch.embedding import embed
from mmsearch.encoders import Encoder
from mmsearch.records import Modality
from mmsearch.space import Space

if TYPE_CHECKING:
    from mmsearch.records import Vectors

FLICKR8K = REPOSITORY.parent / "shared" / "data" / "flickr8k"

BATCH = 256  # files a transaction, as in indexing
FOLDER = 1000  # files a folder
_NAME = 60  # characters of a caption that become a name


@dataclass(frozen=True)
class Near:
    """What made-up pictures lie near: (n, dim) rows of photos; sentences with their (m, dim)."""

    photos: Vectors
    sentences: list[str] = field(default_factory=list)
    rows: Vectors = field(default_factory=lambda: np.empty((0, 0), np.float32))


def near_photos(flickr8k: Path, count: int | None = None) -> Near:
    """Development photos of Flickr8k, each with a caption, encoded by the built-in model."""
    photos = read_captions(flickr8k, "dev")[:count]
    said = [photo.captions[0] for photo in photos]
    images = embed([photo.path for photo in photos], Modality.IMAGE)
    return Near(images, said, embed(said, Modality.TEXT))


def questions(flickr8k: Path) -> list[str]:
    """Captions of Flickr8k's training photos, all different: these libraries hold none of them."""
    photos = read_captions(flickr8k, "train")
    return list(dict.fromkeys(caption for photo in photos for caption in photo.captions))


def rows_near(near: Near, count: int) -> Iterator[Vectors]:
    """The unit rows of made-up pictures, `BATCH` at a time."""
    random = np.random.default_rng(1)
    for start in range(0, count, BATCH):
        rows = near.photos[np.arange(start, min(start + BATCH, count)) % len(near.photos)]
        noise = random.standard_normal(rows.shape).astype(np.float32)
        rows = rows + noise * np.float32(0.5 / np.sqrt(rows.shape[1]))
        yield rows / np.linalg.norm(rows, axis=1, keepdims=True)


def write_library(
    folder: Path,
    encoder: Encoder,
    near: Near,
    count: int,
    *,
    files: Path | None = None,
    hubness: bool = True,
) -> dict[str, dict[str, float]]:
    """Write a library of `count` pictures; wall and processor seconds of each stage.

    Without `files` the pictures lie below /made, which does not exist. With it an empty file is
    made there for each, and the catalog has its true size, date and inode, so that
    `mmsearch index` finds all of them unchanged. Without `hubness` answers come in the order of
    their scores, which brute force can be held against. Stages: "catalog" (every row, committed),
    "hubness" (the pictures' constants), "cache" (the matrix that queries map).
    """
    root = os.fsencode(files.resolve()) if files else b"/made"
    every = rows_near(near, count)
    spent: dict[str, dict[str, float]] = {}
    folder.mkdir(mode=0o700)
    with Catalog.create(folder / "library.db") as catalog:
        with catalog.transaction():
            space_id = catalog.put_space(encoder.name, encoder.fingerprint, encoder.dim)
            catalog.put_root(root, os.stat(root).st_dev if files else 0)
        said: dict[str, int] = {}  # captions so far, and their contents
        for start in range(0, count, BATCH):
            numbers = range(start, min(start + BATCH, count))
            rows = next(every)
            paths = [_path(root, number, near) for number in numbers]
            states = [_touched(path) if files else (1, 1, 1) for path in paths]
            with _timed(spent, "catalog"), catalog.transaction():
                for number, row, path, state in zip(numbers, rows, paths, states, strict=True):
                    one = Content(
                        number.to_bytes(32, "big"), Modality.IMAGE, "JPEG",
                        999 if number % 100 == 0 else 640, 1 + number % 1000,
                    )  # fmt: skip
                    content_id = catalog.put_content(one, space_id, row[None])
                    file_id = catalog.put_file(path, state, content_id=content_id)
                    if near.sentences and number % 10 == 0:
                        at = number // 10 % len(near.sentences)
                        words = near.sentences[at]
                        if words not in said:
                            said[words] = catalog.put_caption(words, space_id, near.rows[at][None])
                        catalog.put_captions(file_id, [(said[words], "sidecar")])
        space = Space(catalog, folder / "cache", catalog.spaces()[0])
        with _timed(spent, "hubness"):
            if hubness:
                backgrounds.refresh(catalog, space, encoder)
        with _timed(spent, "cache"):
            space.write_cache(always=True)
    return spent


def _path(root: bytes, number: int, near: Near) -> bytes:
    said = near.sentences[number * 7 % len(near.sentences)] if near.sentences else "picture"
    name = said[:_NAME].replace("/", " ").encode()
    return b"%s/%04d/%s %d.jpg" % (root, number // FOLDER, name, number)


def _touched(path: bytes) -> tuple[int, int, int]:
    """Make an empty file: its size, date and inode."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "xb") as file:
        status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns, status.st_ino


@contextmanager
def _timed(spent: dict[str, dict[str, float]], stage: str) -> Iterator[None]:
    """Add what happens inside to a stage."""
    so_far = spent.setdefault(stage, {"wall": 0.0, "cpu": 0.0})
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    so_far["wall"] += time.perf_counter() - wall
    so_far["cpu"] += time.process_time() - cpu
