"""What the built-in model knows of sounds: the classes of ESC-50, and pictures of what sounds.

The shipped head was trained on all four folds that are at hand, so its figures on them say little.
As its trunk is YAMNet, which never saw them, a fold is held out by training the head alone on the
other three, by the recipe's own function.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pictures import held_out, percent, rows

from mmsearch.encoders.builtin import Builtin
from mmsearch.errors import MissingExtra
from mmsearch.loaders import sounds
from mmsearch.metrics import Floats, accuracy, mean_average_precision, precision_at_k
from mmsearch.records import AudioInput, Modality
from mmsearch.training import esc50

PROMPT = "the sound of {}"


def measure(encoder: Builtin, data: Path, work: Path) -> dict[str, Any]:
    """Both measures, or why there are none. work: where the recipe keeps what it worked out.

    Raises MissingExtra without what training needs.
    """
    want = encoder.audio_input
    if want is None:
        missing = {"skipped": f"{encoder.name} has no tower for sounds"}
        return {"esc50": missing, "sound_to_picture": missing}
    clips = esc50.clips(data)
    shipped = np.stack([as_shipped(encoder, want, clip.path) for clip in clips])
    folds = np.array([clip.fold for clip in clips])
    unseen = through_unseen_heads(encoder, folds, data, work)
    categories = [clip.category for clip in clips]
    return {
        "esc50": _classes(encoder, categories, folds, unseen, shipped),
        "sound_to_picture": _pictures(encoder, data, categories, unseen, shipped),
    }


def through_unseen_heads(
    encoder: Builtin, folds: npt.NDArray[np.int64], data: Path, work: Path
) -> Floats:
    """(clips, dim): each clip through a head that was trained without its fold.

    Exits where the shipped trunk is not YAMNet: then no fold is held out.
    """
    try:
        from mmsearch.training.export import read_tower
        from mmsearch.training.recipe.config import BuiltinConfig
        from mmsearch.training.recipe.export import hear
        from mmsearch.training.recipe.sounds import train_sound_head
        from mmsearch.training.towers import yamnet_from_tflite
    except ModuleNotFoundError as error:
        raise MissingExtra("measuring the head for sounds", "train") from error
    trunk = read_tower(encoder.folder / "audio.onnx").backbone.state_dict()
    yamnet, _, _ = yamnet_from_tflite(data / "teachers" / "yamnet_int8.tflite")
    for name, weight in yamnet.state_dict().items():
        if not (trunk[name] - weight).norm() <= 1e-3 * weight.norm():
            sys.exit(f"{name} of the audio tower is not YAMNet's: train the trunk without the fold")
    heard = hear(encoder, data, work)
    unseen = np.empty((len(folds), encoder.dim), np.float32)
    for fold in np.unique(folds):
        _, head = train_sound_head(BuiltinConfig(), heard, exclude_fold=int(fold))
        unseen[folds == fold] = head(heard.features[folds == fold]).numpy()
    return unseen


def as_shipped(encoder: Builtin, want: AudioInput, path: Path) -> Floats:
    """(dim,): the renormalised mean of a file's windows, as `mmsearch.embed` has it."""
    with path.open("rb") as file:
        parts = [window.samples for window in sounds.windows(file, want)]
    row = encoder.encode(Modality.AUDIO, parts).sum(axis=0)
    return row / np.linalg.norm(row)


def _classes(
    encoder: Builtin,
    categories: list[str],
    folds: npt.NDArray[np.int64],
    unseen: Floats,
    shipped: Floats,
) -> dict[str, Any]:
    """Clips name their class, and classes find their clips within a fold; the mean of folds."""
    names, labels = np.unique(categories, return_inverse=True)
    texts = rows(encoder, Modality.TEXT, [PROMPT.format(esc50.spoken(str(name))) for name in names])

    def figures(images: Floats) -> dict[str, Any]:
        by_fold = {}
        for fold in np.unique(folds):
            inside = folds == fold
            scores = images[inside] @ texts.T  # (clips, classes)
            own = labels[inside, None] == np.arange(len(names))[None, :]
            by_fold[str(fold)] = {
                "top1": percent(accuracy(scores, labels[inside])),
                "text_to_sound_map": percent(mean_average_precision(scores.T, own.T)),
            }
        keys = ("top1", "text_to_sound_map")
        mean = {key: round(float(np.mean([f[key] for f in by_fold.values()])), 2) for key in keys}
        return mean | {"folds": by_fold}

    return {
        "clips": len(categories),
        "classes": len(names),
        "prompt": PROMPT,
        "held_out_fold": figures(unseen),
        "shipped_on_its_training_folds": figures(shipped),
    }


def _pictures(
    encoder: Builtin, data: Path, categories: list[str], unseen: Floats, shipped: Floats
) -> dict[str, Any]:
    """Clips find photos of what sounds among tiny-ImageNet's held-out ones: precision at 10,
    the mean over clips of a class, and of that over classes."""
    pictures, labels = held_out(data)
    images = rows(encoder, Modality.IMAGE, pictures)
    pictured = esc50.pictured(data)
    heard = np.array(categories)

    def figures(clips: Floats) -> dict[str, Any]:
        by_class = {}
        for category, classes in pictured.items():
            scores = clips[heard == category] @ images.T
            relevant = np.broadcast_to(np.isin(labels, classes), scores.shape)
            by_class[category] = percent(precision_at_k(scores, relevant, 10))
        mean = round(float(np.mean(list(by_class.values()))), 2)
        return {"precision@10": mean, "classes": by_class}

    return {
        "photos": len(labels),
        "chance": percent(
            float(np.mean([np.isin(labels, classes).mean() for classes in pictured.values()]))
        ),
        "held_out_fold": figures(unseen),
        "shipped_on_its_training_folds": figures(shipped),
    }
