"""What the built-in model knows of pictures: captions, names of classes, the demo's queries.

Percentages have two decimals; ties count against the model.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

from mmsearch import demo, loaders
from mmsearch.datasets.captions import CaptionedFile, data_hash, read_captions
from mmsearch.encoders import Encoder
from mmsearch.errors import MissingExtra
from mmsearch.evaluation import exact_ranks
from mmsearch.metrics import Floats, Ranks, accuracy, first_ranks, median_rank, recall_at_k, recalls
from mmsearch.records import Modality
from mmsearch.training import pairs

PROMPT = "a photo of a {}"
SURE = 0.5  # the teacher's probability from which on its opinion counts

Teacher = Callable[[Sequence[Image.Image]], Floats]


def rows(encoder: Encoder, modality: Modality, inputs: Sequence[Any]) -> Floats:
    """(n, dim) unit rows of texts, or of pictures (paths, PIL images), a few in memory."""
    chunks = [inputs[start : start + 64] for start in range(0, len(inputs), 64)]
    if modality is Modality.TEXT:
        return np.concatenate([encoder.encode(modality, chunk) for chunk in chunks])
    return np.concatenate(
        [encoder.encode(modality, [pixels(encoder, one) for one in chunk]) for chunk in chunks]
    )


def pixels(encoder: Encoder, picture: Path | Image.Image) -> Any:
    """(size, size, 3) uint8, read and decoded as indexing does."""
    want = encoder.image_input
    if isinstance(picture, Path):
        return loaders.load_image(picture.read_bytes(), want, max_megapixels=64).pixels
    return loaders.to_pixels(picture, want)


def percent(share: float) -> float:
    """A share of 1 as a percentage."""
    return round(100 * share, 2)


# -- captions ----------------------------------------------------------------------------------


def captions(encoder: Encoder, data: Path) -> dict[str, Any]:
    """Recall in both directions: Flickr8k's test photos with English and with Chinese captions,
    and 96 photos of COCO that no stage of the training saw (it may have read their captions)."""
    sets = {
        "flickr8k_test": read_captions(data / "flickr8k", "test"),
        "flickr8k_cn_test": read_captions(data / "flickr8k", "test", Path("Flickr8k-CN.zhc.txt")),
        "coco_free": read_captions(data / "coco_free", "all"),
    }
    return {name: captioned(encoder, photos) for name, photos in sets.items()}


def captioned(encoder: Encoder, photos: Sequence[CaptionedFile]) -> dict[str, Any]:
    """Recall of one set of captions."""
    ranks = exact_ranks(photos, lambda kind, inputs: rows(encoder, kind, inputs))
    return {
        "photos": len(photos),
        "captions": sum(len(photo.captions) for photo in photos),
        "data": data_hash(photos),
        **{way: _figures(found) for way, found in ranks.items()},
    }


def _figures(ranks: Ranks) -> dict[str, float]:
    found = {key: percent(value) for key, value in recalls(ranks).items()}
    return found | {"median_rank": median_rank(ranks)}


# -- names of classes --------------------------------------------------------------------------


def image_teacher(data: Path) -> Teacher:
    """MobileNetV2 with its classifier: pictures to (n, 1000) probabilities of ImageNet's classes.

    Raises MissingExtra without what training needs.
    """
    try:
        from mmsearch.training.export import classifier_graph
        from mmsearch.training.towers import mobilenet_from_tflite
    except ModuleNotFoundError as error:
        raise MissingExtra("measuring the image teacher", "train") from error
    path = data / "teachers" / "mobilenet_v2_1.0_224_int8.tflite"
    graph = classifier_graph(*mobilenet_from_tflite(path)).SerializeToString()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def probabilities(pictures: Sequence[Image.Image]) -> Floats:
        found = [
            session.run(None, {"pixels": pairs.squash(picture, 224)[None]})[0]
            for picture in pictures
        ]
        return np.concatenate(found)[:, 1:]  # the first is 'background'

    return probabilities


def class_rows(encoder: Encoder, data: Path) -> Floats:
    """(1000, dim): "a photo of a ..." with the first name of each ImageNet class."""
    prompts = [pairs.named(PROMPT, names[0]) for names in pairs.class_names(data)]
    return rows(encoder, Modality.TEXT, prompts)


def held_out(data: Path) -> tuple[list[Image.Image], npt.NDArray[np.int64]]:
    """The 2,000 tiny-ImageNet photos that train nothing, and the class of each of the 1,000.

    The image teacher was trained on them, at full size.
    """
    photos = pairs.tiny_imagenet(data, held_out=True)
    pictures = [Image.open(io.BytesIO(photo.data)) for photo in photos]
    return pictures, np.array([photo.label for photo in photos])


def names(encoder: Encoder, teacher: Teacher, data: Path) -> dict[str, Any]:
    """Photos find the name of their class, and names a photo: this model, and its image teacher on
    the same photos; `share` is how much of the teacher's knowledge words reach."""
    pictures, labels = held_out(data)
    scores = rows(encoder, Modality.IMAGE, pictures) @ class_rows(encoder, data).T
    ours, theirs = naming(scores, labels), naming(teacher(pictures), labels)
    return {
        "photos": len(labels),
        "classes": len(np.unique(labels)),
        "prompt": PROMPT,
        "model": ours,
        "image_teacher": theirs,
        "share": {key: round(100 * value / theirs[key], 1) for key, value in ours.items()},
    }


def naming(scores: Floats, labels: npt.NDArray[np.int64]) -> dict[str, float]:
    """Names of photos and photos of names. scores: (photos, 1000), labels: (photos,)."""
    own = np.unique(labels)
    true = labels[:, None] == np.arange(scores.shape[1])[None, :]
    photos_of = np.stack([np.flatnonzero(labels == label) for label in own])  # (classes, 10)
    one_each = [
        recall_at_k(first_ranks(scores[draw][:, own].T, np.eye(len(own), dtype=bool)), 10)
        for draw in photos_of.T
    ]
    return {
        "name_first_of_1000": percent(accuracy(scores, labels)),
        "name_in_first_5_of_1000": percent(recall_at_k(first_ranks(scores, true), 5)),
        "name_first_of_200": percent(accuracy(scores[:, own], np.searchsorted(own, labels))),
        "photo_in_first_10_of_2000": percent(
            recall_at_k(first_ranks(scores[:, own].T, true[:, own].T), 10)
        ),
        "photo_in_first_10_of_200": percent(float(np.mean(one_each))),  # ten draws, one a class
    }


def agreement(encoder: Encoder, teacher: Teacher, data: Path) -> dict[str, Any]:
    """Where the image teacher is sure of a Flickr8k test photo: how often this model puts the
    same of the 1,000 names first, or among the first."""
    paths = [photo.path for photo in read_captions(data / "flickr8k", "test")]
    said = np.concatenate([teacher([Image.open(path)]) for path in paths])
    sure = np.flatnonzero(said.max(axis=1) >= SURE)
    images = rows(encoder, Modality.IMAGE, [paths[row] for row in sure])
    scores = images @ class_rows(encoder, data).T
    ranks = first_ranks(scores, said[sure].argmax(axis=1)[:, None] == np.arange(1000)[None, :])
    found = {f"agreement@{k}": percent(recall_at_k(ranks, k)) for k in (1, 5, 10)}
    return {"photos": len(sure), "probability_at_least": SURE} | found


# -- the demo ----------------------------------------------------------------------------------


def scikit_image(encoder: Encoder) -> dict[str, Any] | None:
    """Where the demo's queries rank their photo among the pictures of the scikit-image wheel.

    None where it is not installed. Most of these are textures, scans and drawings.
    """
    try:
        folder = demo.photographs()
    except MissingExtra:
        return None
    paths = sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg"))
    images = rows(encoder, Modality.IMAGE, paths)
    texts = rows(encoder, Modality.TEXT, list(demo.QUERIES))
    files = np.array([path.name for path in paths])
    relevant = np.array([files == wanted for wanted in demo.QUERIES.values()])
    ranks = first_ranks(texts @ images.T, relevant).tolist()
    return {"pictures": len(paths), "ranks": dict(zip(demo.QUERIES, ranks, strict=True))}
