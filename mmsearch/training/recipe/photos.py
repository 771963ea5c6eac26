"""Stage prepare, pictures: pixels, the teacher's features and opinions, and random views."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmsearch.training import pairs
from mmsearch.training.drawn import KINDS, drawings
from mmsearch.training.export import features_graph
from mmsearch.training.recipe.config import BuiltinConfig
from mmsearch.training.recipe.teachers import image_teacher, text_teacher
from mmsearch.training.recipe.texts import whole_words
from mmsearch.training.towers import MobileNetV2

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


def kept(path: Path, make: Callable[[], npt.NDArray[np.generic]]) -> npt.NDArray[np.generic]:
    """An array that is worked out once and kept in a file, whole or not at all; it is mapped."""
    if not path.exists():
        began = time.time()
        rows = make()
        part = path.with_suffix(".part.npy")
        np.save(part, rows)
        part.rename(path)
        print(f"{path.name}: {len(rows) / (time.time() - began):.0f} rows/s", flush=True)
    return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]


def squashed(photo: Pixels, size: int) -> Pixels:
    """A photo as the tower wants it: (size, size, 3)."""
    return pairs.squash(Image.fromarray(photo), size)


def view(photo: Pixels, size: int, generator: np.random.Generator) -> Pixels:
    """A random crop of half of a photo or more, perhaps mirrored, brighter or darker; squashed."""
    side = photo.shape[0]
    area, ratio = generator.uniform(0.5, 1.0), np.exp(generator.uniform(-0.25, 0.25))
    width = min(side, round(side * float(np.sqrt(area * ratio))))
    height = min(side, round(side * float(np.sqrt(area / ratio))))
    left, top = generator.integers(0, side - width + 1), generator.integers(0, side - height + 1)
    image = Image.fromarray(photo[top : top + height, left : left + width])
    image = image.resize((size, size), Image.Resampling.BICUBIC)
    if generator.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    gain = generator.uniform(0.8, 1.2, 3) * 0.3 + generator.uniform(0.75, 1.25) * 0.7
    return np.clip(np.asarray(image) * gain, 0, 255).astype(np.uint8)


def run_tower(
    network: MobileNetV2,
    pixels: Pixels,
    prepare: Callable[[int], Pixels],
    *,
    size: int,
    layers: int | None = None,
    threads: int = 2,
    batch: int = 4,
) -> npt.NDArray[np.generic]:
    """What leaves the first ``layers`` (fp16 maps), or the pooled features (n, 1280), of photos.

    prepare: the row of a photo -> (size, size, 3) uint8. By ONNX Runtime, three times as quick as
    torch; a call a core.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    graph = features_graph(network, layers, size=size)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options)

    def some(start: int) -> npt.NDArray[np.generic]:
        rows = range(start, min(start + batch, len(pixels)))
        return session.run(None, {"pixels": np.stack([prepare(row) for row in rows])})[0]  # type: ignore[no-any-return]

    with ThreadPoolExecutor(threads) as pool:
        return np.concatenate(list(pool.map(some, range(0, len(pixels), batch))))


def features(
    network: MobileNetV2, pixels: Pixels, *, size: int, flip: bool = False
) -> npt.NDArray[np.generic]:
    """Pooled features (n, 1280) of photos, mirrored where ``flip``."""

    def prepare(row: int) -> Pixels:
        photo = squashed(pixels[row], size)
        return np.ascontiguousarray(photo[:, ::-1]) if flip else photo

    return run_tower(network, pixels, prepare, size=size)


def photos_of(
    name: str, data: Path
) -> tuple[Sequence[pairs.CaptionedPhoto | pairs.NamedPhoto], int]:
    """The photos of one set and the size at which they are kept."""
    match name:
        case "tiny":
            return pairs.tiny_imagenet(data, held_out=False), 64
        case "tiny_held_out":
            return pairs.tiny_imagenet(data, held_out=True), 64
    return pairs.flickr8k(data, name), pairs.SIZE


def pixels_of(name: str, config: BuiltinConfig, data: Path, work: Path) -> Pixels:
    """Decoded photos of 'train', 'dev', 'tiny', 'tiny_held_out', or drawings ('drawn').

    (n, side, side, 3) uint8, in a file that is mapped, not read.
    """

    def decode() -> Pixels:
        if name == "drawn":
            words = whole_words(text_teacher()[1])[:2000]
            return np.stack(drawings(config.drawings, words, config.seed))
        photos, side = photos_of(name, data)
        return np.stack([pairs.decode(photo, side) for photo in photos])

    return kept(work / f"{name}_pixels.npy", decode)  # type: ignore[return-value]


def kinds_of(rows: npt.NDArray[np.int64], drawn: int) -> npt.NDArray[np.int64]:
    """The kind of each drawing, of ``drawn`` in all: as many of each, one kind after another."""
    return rows * len(KINDS) // drawn


def prepare_photos(config: BuiltinConfig, data: Path, work: Path) -> None:
    """Pixels, the teacher's features at its own size and at ours, and the views."""
    network, _, _ = image_teacher(data)
    for name in ("dev", "train", "tiny_held_out", "tiny", "drawn"):
        pixels = pixels_of(name, config, data, work)
        for size in {config.size, pairs.SIZE} if name in ("train", "tiny") else {config.size}:
            for flip in (False, True) if name == "train" else (False,):
                path = work / f"{name}_{size}{'_flipped' if flip else ''}.npy"
                kept(path, lambda p=pixels, s=size, f=flip: features(network, p, size=s, flip=f))  # type: ignore[misc]
    for i in range(config.views):
        for name in ("drawn", "train", "tiny") if i == 0 else ("train",):
            pixels = pixels_of(name, config, data, work)

            def prepare(row: int, pixels: Pixels = pixels, i: int = i) -> Pixels:
                return view(pixels[row], config.size, np.random.default_rng((config.seed, i, row)))

            kept(
                work / f"{name}_view{i}.npy",
                lambda p=pixels, f=prepare: run_tower(  # type: ignore[misc]
                    network, p, f, size=config.size, layers=config.frozen
                ),
            )


def opinions_of(work: Path, name: str, weight: Tensor, bias: Tensor) -> Tensor:
    """The teacher's probabilities, (n, 1000): the mean over a photo and its mirror image."""
    paths = sorted(work.glob(f"{name}_{pairs.SIZE}*.npy"))
    said = [F.softmax(torch.from_numpy(np.load(path)) @ weight.T + bias, dim=-1) for path in paths]
    return torch.stack(said).mean(0)
