"""Real vectors in number: crops of photographs and captions, by the built-in model.

    python benchmarks/real_vectors.py --data DATA --out FOLDER [--count N]

Crops of Flickr8k's photos (16 each) and of tiny-ImageNet's (4 each), at random places, at a
third to the whole of their area, half of them mirrored; and the sentences of `captions_text`.
Written in parts to FOLDER, which may be stopped and run again, or by several processes at once.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from mmsearch.embedding import embed
from mmsearch.records import Modality

PART = 512  # crops in a file: a few seconds of work
PART_TEXTS = 8192


class Crops:
    """Numbered crops of photographs, in an order that is shuffled once and for all."""

    def __init__(self, data: Path) -> None:
        photos = sorted((data / "flickr8k" / "images").glob("*.jpg"))
        self._small = zipfile.ZipFile(data / "tiny_imagenet_20k.zip")
        names = sorted(name for name in self._small.namelist() if name.endswith(".JPEG"))
        sources: list[Path | str] = [photo for photo in photos for _ in range(16)]
        sources += [name for name in names for _ in range(4)]
        order = np.random.default_rng(0).permutation(len(sources))
        self._sources = [sources[at] for at in order]

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, number: int) -> Image.Image:
        source = self._sources[number]
        data = self._small.read(source) if isinstance(source, str) else source.read_bytes()
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        random = np.random.default_rng([1, number])
        side = np.sqrt(random.uniform(1 / 3, 1))
        width, height = (max(1, round(side * size)) for size in picture.size)
        left = int(random.integers(picture.width - width + 1))
        top = int(random.integers(picture.height - height + 1))
        crop = picture.crop((left, top, left + width, top + height))
        return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else crop


def sentences(data: Path) -> list[str]:
    """The English sentences of `captions_text`, each once, shuffled."""
    found: dict[str, None] = {}
    for name in ("images.en.txt.gz", "sounds.en.txt.gz"):
        with gzip.open(data / "captions_text" / name, "rt", encoding="utf-8") as file:
            found |= dict.fromkeys(line.strip() for line in file if line.strip())
    words = list(found)
    return [words[at] for at in np.random.default_rng(2).permutation(len(words))]


def parts(count: int, size: int) -> Iterator[tuple[int, range]]:
    """(number, what is in it) of every part."""
    for number, start in enumerate(range(0, count, size)):
        yield number, range(start, min(start + size, count))


def encode(data: Path, out: Path, count: int) -> None:
    """Write the parts that are not there yet; another process may be at others meanwhile."""
    out.mkdir(parents=True, exist_ok=True)
    words = sentences(data)
    for number, members in parts(len(words), PART_TEXTS):
        path = out / f"text-{number:05}.npy"
        if claimed(path):
            write(path, embed([words[member] for member in members], Modality.TEXT))
    crops = Crops(data)
    for number, members in parts(min(count, len(crops)), PART):
        path = out / f"image-{number:05}.npy"
        if claimed(path):
            write(path, embed((crops[member] for member in members), Modality.IMAGE))


def read(out: Path, kind: str) -> np.ndarray:
    """(n, dim) float16 unit rows of "image" or "text": the parts without a gap."""
    found = []
    while (path := out / f"{kind}-{len(found):05}.npy").exists():
        found.append(np.load(path, allow_pickle=False))
    return np.concatenate(found)


def claimed(path: Path) -> bool:
    """True when this process is the one to write it."""
    if path.exists():
        return False
    try:
        os.close(os.open(path.with_suffix(".claim"), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def write(path: Path, rows: np.ndarray) -> None:
    """As a whole or not at all, in half precision, as the catalog keeps them."""
    temporary = path.with_suffix(".new.npy")
    np.save(temporary, rows.astype(np.float16))
    temporary.rename(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=205_000)
    options = parser.parse_args()
    encode(options.data, options.out, options.count)
