"""Real vectors in number: windows of photographs and captions, by the built-in model.

    python benchmarks/real_vectors.py --data DATA --out FOLDER

Each of Flickr8k's photos and of tiny-ImageNet's gives 32 vectors: the whole photo's, and those
of 31 windows, a quarter of it or more. A window is not cut out and seen anew: the model's own
last feature map is averaged over the window instead of over the photo, which costs one pass for
all of them; 7,424 photos give 237,568 vectors. Texts are sentences of `captions_text`. Written in
parts to FOLDER: it may be stopped and run again. Needs the package onnx, which cuts the
image tower in two.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from mmsearch.embedding import embed
from mmsearch.encoders import open_encoder
from mmsearch.loaders import to_pixels
from mmsearch.records import Modality

WINDOWS = 32  # of a photo, the whole one included
PART = {"image": 256, "text": 4096}  # photos, sentences in a file
TEXTS = 4096  # sentences: queries, not what is searched
PHOTOS = 7424  # of the 28,091 there are


class Tower:
    """The image tower, cut where it averages its last feature map."""

    def __init__(self) -> None:
        encoder = open_encoder("builtin")
        self._input = encoder.image_input
        model = onnx.load(encoder.folder / "image.onnx")
        pool = next(node for node in model.graph.node if node.op_type == "GlobalAveragePool")
        cut = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model))
        ends = model.graph.input[0].name, model.graph.output[0].name
        self._body = _session(cut.extract_model([ends[0]], [pool.input[0]]))
        self._head = _session(cut.extract_model([pool.output[0]], [ends[1]]))

    def windows(self, photos: Sequence[Image.Image], numbers: Sequence[int]) -> NDArray[Any]:
        """(n, 32, dim) unit rows of n photos; their numbers choose their windows."""
        found = []
        for photo, number in zip(photos, numbers, strict=True):
            pixels = to_pixels(photo, self._input)[None]
            maps = self._run(self._body, pixels)  # (1, channels, 6, 6)
            high, wide = maps.shape[2:]
            random = np.random.default_rng([1, number])
            means = [maps.mean(axis=(2, 3))]
            for _ in range(WINDOWS - 1):
                height, width = random.integers(3, [high, wide])  # 3 to 5 of 6: a quarter or more
                top, left = random.integers(0, [high - height + 1, wide - width + 1])
                window = maps[:, :, top : top + height, left : left + width]
                means.append(window.mean(axis=(2, 3)))
            found.append(self._run(self._head, np.concatenate(means)[:, :, None, None]))
        return np.stack(found)

    @staticmethod
    def _run(session: Any, values: NDArray[Any]) -> NDArray[Any]:
        rows: NDArray[Any] = session.run(None, {session.get_inputs()[0].name: values})[0]
        return rows


def _session(model: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def photographs(data: Path) -> list[Path | str]:
    """Paths, and names in the archive of tiny-ImageNet, shuffled once and for all."""
    sources: list[Path | str] = [*sorted((data / "flickr8k" / "images").glob("*.jpg"))]
    with zipfile.ZipFile(data / "tiny_imagenet_20k.zip") as archive:
        sources += sorted(name for name in archive.namelist() if name.endswith(".JPEG"))
    return [sources[at] for at in np.random.default_rng(0).permutation(len(sources))[:PHOTOS]]


def sentences(data: Path) -> list[str]:
    """English sentences of `captions_text` about pictures, each once, shuffled."""
    with gzip.open(data / "captions_text" / "images.en.txt.gz", "rt", encoding="utf-8") as file:
        words = list(dict.fromkeys(line.strip() for line in file if line.strip()))
    return [words[at] for at in np.random.default_rng(2).permutation(len(words))[:TEXTS]]


def encode(data: Path, out: Path) -> None:
    """Write the parts that are not there yet."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.json").write_text(json.dumps({"model": open_encoder("builtin").name}))
    words, photos = sentences(data), photographs(data)
    for path, members in _missing(out, "text", len(words)):
        _write(path, embed([words[member] for member in members], Modality.TEXT))
    tower = Tower()
    with zipfile.ZipFile(data / "tiny_imagenet_20k.zip") as archive:
        for path, members in _missing(out, "image", len(photos)):
            pictures = []
            for source in photos[members.start : members.stop]:
                raw = archive.read(source) if isinstance(source, str) else source.read_bytes()
                pictures.append(Image.open(io.BytesIO(raw)).convert("RGB"))
            _write(path, tower.windows(pictures, members))


def read(out: Path, kind: str) -> NDArray[np.float16]:
    """(n, dim) of texts, (n, 32, dim) of photos: unit rows, the parts from the first on."""
    found = []
    while (path := out / f"{kind}-{len(found):05}.npy").exists():
        found.append(np.load(path, allow_pickle=False))
    return np.concatenate(found)


def _missing(out: Path, kind: str, count: int) -> Iterator[tuple[Path, range]]:
    size = PART[kind]
    for number, start in enumerate(range(0, count, size)):
        path = out / f"{kind}-{number:05}.npy"
        if not path.exists():
            yield path, range(start, min(start + size, count))


def _write(path: Path, rows: NDArray[Any]) -> None:
    """As a whole or not at all, in half precision, as the catalog keeps them."""
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        np.save(file, rows.astype(np.float16))
    temporary.rename(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    encode(options.data, options.out)
