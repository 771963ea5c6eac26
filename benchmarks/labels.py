"""Choose and measure what labels are made of: prompts, the softmax's scale, the parts of a sound.

    python benchmarks/labels.py --data ../shared/data --work WORK --out FILE [--folder MODEL]

Photos: twenty of each of tiny-ImageNet's 200 classes, which neither trained the model nor are
measured elsewhere, to choose by ("dev"), and the ten that are held out ("test"). Sounds: ESC-50,
each clip through a head that never saw its fold (benchmarks/sounds.py; WORK keeps them). Sounds of
several windows are made of clips of one fold: all of one class, or of any. Needs the extra `train`.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from measuring import machine, origin
from pictures import percent, rows
from PIL import Image
from sounds import through_unseen_heads

from mmsearch.encoders import BUILTIN, Encoder
from mmsearch.encoders.builtin import MODELS, Builtin
from mmsearch.labels import SCALES, TEMPLATES, class_rows, softmax
from mmsearch.metrics import Floats, accuracy, macro_f1, predicted_classes
from mmsearch.records import Modality
from mmsearch.training import esc50

if TYPE_CHECKING:
    from mmsearch.records import Ids

CANDIDATES = {
    Modality.IMAGE: (
        "{}", "a {}", "a photo of a {}", "a photo of the {}", "a picture of a {}",
        "an image of a {}", "a close-up photo of a {}", "a cropped photo of a {}",
        "a blurry photo of a {}", "a bright photo of a {}", "a photo of a large {}",
        "a photo of a small {}", "a photo of many {}", "a drawing of a {}", "{} in a photo",
    ),
    Modality.AUDIO: (
        "{}", "the sound of {}", "the sound of a {}", "the noise of {}", "a recording of {}",
        "audio of {}", "{} can be heard", "someone hears {}", "a {} makes a sound", "loud {}",
    ),
}  # fmt: skip
DEV = slice(50, 70)  # of a class's photos; the recipe holds out the first ten and trains on forty
TEST = slice(0, 10)
FACTORS = (10, 15, 20, 25, 30, 33, 40, 60)
WINDOWS = (2, 4, 8)
MADE = 2000  # sounds of several windows
PACKAGES = ("numpy", "onnxruntime", "pillow", "tokenizers", "soundfile", "torch")


def photos(encoder: Encoder, data: Path, part: slice) -> tuple[Floats, Ids, list[str]]:
    """(n, dim) rows, (n,) labels, and the first name of each class."""
    with zipfile.ZipFile(data / "tiny_imagenet_20k.zip") as archive:
        lines = archive.read("tiny_imagenet_20k/classes.tsv").decode().splitlines()
        members: dict[str, list[str]] = {}
        for name in sorted(archive.namelist()):
            if name.endswith(".JPEG"):
                members.setdefault(name.split("/")[1], []).append(name)
        chosen = [members[line.split("\t")[0]][part] for line in lines]
        files = [Image.open(io.BytesIO(archive.read(name))) for names in chosen for name in names]
    labels = np.repeat(np.arange(len(lines)), [len(names) for names in chosen])
    return rows(encoder, Modality.IMAGE, files), labels, [_first(line) for line in lines]


def _first(line: str) -> str:
    return line.split("\t")[1].split(", ", maxsplit=1)[0]


def clips(encoder: Builtin, data: Path, work: Path) -> tuple[Floats, Ids, Ids, list[str]]:
    """(n, dim) rows, (n,) labels, (n,) folds, and the names of the classes."""
    listed = esc50.clips(data)
    folds = np.array([clip.fold for clip in listed])
    kept = work / f"unseen_{encoder.fingerprint[:16]}.npy"
    if not kept.exists():
        np.save(kept, through_unseen_heads(encoder, folds, data, work))
    names, labels = np.unique([clip.category for clip in listed], return_inverse=True)
    return np.load(kept), labels, folds, [esc50.spoken(str(name)) for name in names]


def templates(
    encoder: Encoder, kind: Modality, names: Sequence[str], sets: dict[str, tuple[Floats, Ids]]
) -> dict[str, Any]:
    """Accuracy with each template alone, with all of them, and with those that are built in."""

    def measured(several: Sequence[str]) -> dict[str, Any]:
        classes = class_rows(encoder, dict.fromkeys(names, ()), kind, several)
        found: dict[str, Any] = {}
        for name, (vectors, labels) in sets.items():
            scores = vectors @ classes.T
            predicted = predicted_classes(scores, labels)
            found[name] = {
                "accuracy": percent(accuracy(scores, labels)),
                "macro_f1": percent(macro_f1(predicted, labels, len(names))),
            }
        return found

    return {
        "alone": {template: measured([template]) for template in CANDIDATES[kind]},
        "all": measured(CANDIDATES[kind]),
        "built_in": {"templates": list(TEMPLATES[kind]), **measured(TEMPLATES[kind])},
    }


def scales(kind: Modality, scores: Floats, labels: Ids) -> dict[str, Any]:
    """What each inverse temperature makes of the best label: how sure, how often right, and the
    mean negative log-likelihood of the right one."""
    found: dict[str, Any] = {}
    for factor in FACTORS:
        shares = softmax(np.float32(factor) * scores)
        right = shares[np.arange(len(labels)), labels]
        found[str(factor)] = {
            "sure": percent(float(shares.max(axis=1).mean())),
            "log_loss": round(float(-np.log(right).mean()), 4),
        }
    best = min(found, key=lambda factor: found[factor]["log_loss"])
    return {"built_in": SCALES[kind], "least_log_loss": best, "factors": found}


def pooled(vectors: Floats, labels: Ids, folds: Ids, classes: Floats) -> dict[str, Any]:
    """How four ways of making one answer of several windows fare."""
    generator = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for count in WINDOWS:
        same, mixed = [], []
        for _ in range(MADE):
            one = generator.integers(len(labels))
            fold = np.flatnonzero(folds == folds[one])
            alike = fold[labels[fold] == labels[one]]
            same.append(generator.choice(alike, count))
            mixed.append(generator.choice(fold, count))
        found[str(count)] = {
            "same_class": _judged(vectors[same], labels[same], classes),
            "any_classes": _judged(vectors[mixed], labels[mixed], classes),
        }
    return found


def _judged(windows: Floats, labels: Ids, classes: Floats) -> dict[str, Any]:
    """windows: (n, windows, dim), labels: (n, windows). `first`: the best label is one of them;
    `recall`: the share of them among as many labels as there are windows."""
    mean = windows.mean(axis=1)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    scores = windows @ classes.T  # (n, windows, labels)
    flat = softmax(np.float32(SCALES[Modality.AUDIO]) * scores.reshape(-1, len(classes)))
    shares = flat.reshape(scores.shape)
    ways = {
        "mean of rows": mean @ classes.T,
        "maximum of scores": scores.max(axis=1),
        "maximum of softmax": shares.max(axis=1),
        "mean of softmax": shares.mean(axis=1),
    }
    found = {}
    for way, values in ways.items():
        order = np.argsort(-values, axis=1, kind="stable")[:, : labels.shape[1]]
        right = [set(row.tolist()) for row in labels]
        first = [row[0] in these for row, these in zip(order, right, strict=True)]
        recall = [
            len(these & set(row.tolist())) / len(these)
            for row, these in zip(order, right, strict=True)
        ]
        found[way] = {"first": percent(np.mean(first)), "recall": percent(np.mean(recall))}
    return found


def main() -> int:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=MODELS / BUILTIN)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = machine() | origin(PACKAGES)
    encoder = Builtin(given.folder.name, given.folder)
    *dev, names = photos(encoder, given.data, DEV)
    *test, _ = photos(encoder, given.data, TEST)
    vectors, labels, folds, sounds = clips(encoder, given.data, given.work)
    pictured = class_rows(encoder, dict.fromkeys(names, ()), Modality.IMAGE)
    heard = class_rows(encoder, dict.fromkeys(sounds, ()), Modality.AUDIO)
    found |= {
        "model": encoder.name,
        "fingerprint": encoder.fingerprint,
        "photos": {
            "dev": len(dev[1]),
            "test": len(test[1]),
            "classes": len(names),
            "templates": templates(
                encoder, Modality.IMAGE, names,
                {"dev": (dev[0], dev[1]), "test": (test[0], test[1])},
            ),
            "scale": scales(Modality.IMAGE, dev[0] @ pictured.T, dev[1]),
        },
        "sounds": {
            "clips": len(labels),
            "classes": len(sounds),
            "templates": templates(
                encoder, Modality.AUDIO, sounds, {"fold held out": (vectors, labels)}
            ),
            "scale": scales(Modality.AUDIO, vectors @ heard.T, labels),
            "several_windows": pooled(vectors, labels, folds, heard),
        },
    }  # fmt: skip
    given.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    for part in ("photos", "sounds"):
        print(part, json.dumps(found[part]["templates"]["built_in"], indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
