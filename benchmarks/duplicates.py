"""Which altered pictures the threshold of duplicates.py folds, and which different ones it spares.

python benchmarks/duplicates.py --data DATA/flickr8k --out benchmarks/results/duplicates.json

Of every test photo (or the first `--limit`) altered copies are made in memory. Measured: the
share of them whose cosine with the original reaches the threshold, and the share of photos
that another photo of the set reaches. Flickr8k has series of one scene; they count as others.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measuring import machine, origin
from PIL import Image, ImageEnhance

from mmsearch.datasets.captions import data_hash, read_captions
from mmsearch.duplicates import SAME
from mmsearch.embedding import embed
from mmsearch.encoders import open_encoder
from mmsearch.metrics import Floats

THRESHOLDS = (0.90, 0.93, 0.95, 0.97, 0.98, 0.99)


def compressed(photo: Image.Image) -> Image.Image:
    """As a JPEG of quality 40."""
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=40)
    return Image.open(file)


def cropped(photo: Image.Image, share: float) -> Image.Image:
    """Without this share of the width and the height, from the middle."""
    x, y = (round(side * share / 2) for side in photo.size)
    return photo.crop((x, y, photo.width - x, photo.height - y))


ALTERED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half the size": lambda photo: photo.resize((photo.width // 2, photo.height // 2)),
    "a quarter of the size": lambda photo: photo.resize((photo.width // 4, photo.height // 4)),
    "JPEG of quality 40": compressed,
    "5 % cropped": lambda photo: cropped(photo, 0.05),
    "15 % cropped": lambda photo: cropped(photo, 0.15),
    "a fifth brighter": lambda photo: ImageEnhance.Brightness(photo).enhance(1.2),
    "in shades of grey": lambda photo: photo.convert("L"),
    "mirrored": lambda photo: photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def shares(cosines: Floats) -> dict[str, float]:
    """Percent of these that reach each threshold, and their median."""
    reached = {f">= {t}": round(100 * float((cosines >= t).mean()), 2) for t in THRESHOLDS}
    return reached | {"median": round(float(np.median(cosines)), 4)}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    photos = read_captions(options.data, "test")[: options.limit]
    began = {"machine": machine(), "origin": origin(["mmsearch", "numpy", "pillow"])}
    pictures = [Image.open(photo.path).convert("RGB") for photo in photos]
    rows = embed(pictures, "image")
    among = rows @ rows.T
    np.fill_diagonal(among, -1)
    found = {"another photo": shares(among.max(axis=1))}
    for name, alter in ALTERED.items():
        altered = embed([alter(picture) for picture in pictures], "image")
        found[name] = shares((rows * altered).sum(axis=1))
        print(name, found[name])
    encoder = open_encoder("builtin")
    model = {"model": encoder.name, "fingerprint": encoder.fingerprint}
    data = {"photos": len(photos), "data": data_hash(photos), "threshold": SAME}
    figures = {**began, **model, **data, "percent": found}
    options.out.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
