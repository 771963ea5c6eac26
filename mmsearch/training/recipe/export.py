"""Stages sounds and export: the model's files, from what the training left."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mmsearch.encoders.builtin import Builtin
from mmsearch.encoders.patches import RATE
from mmsearch.records import Modality
from mmsearch.training import esc50, pairs
from mmsearch.training.export import audio_graph, check_parity, image_graph, text_graph, write
from mmsearch.training.recipe.config import BuiltinConfig
from mmsearch.training.recipe.loop import save
from mmsearch.training.recipe.photos import pixels_of, squashed
from mmsearch.training.recipe.sentences import SOUND_TEMPLATES, class_sentences, sound_sentences
from mmsearch.training.recipe.sounds import Heard, clip_features, samples_of, train_sound_head
from mmsearch.training.recipe.teachers import sound_teacher
from mmsearch.training.recipe.towers import Towers, averaged
from mmsearch.training.towers import AudioTower

NAME = "builtin-2"
Floats = npt.NDArray[np.float32]


def write_model(
    config: BuiltinConfig, work: Path, towers: Towers, sound: AudioTower | None = None
) -> Path:
    """The folder of a model that ``Builtin`` opens; without a sound tower, one for the rest."""
    folder = work / "model"
    folder.mkdir(exist_ok=True)
    tokenizer = (work / "tokenizer.json").read_bytes()
    (folder / "tokenizer.json").write_bytes(tokenizer)
    files = {
        "image.onnx": write(image_graph(towers.image), folder / "image.onnx"),
        "text.onnx": write(text_graph(towers.text), folder / "text.onnx"),
        "tokenizer.json": hashlib.sha256(tokenizer).hexdigest(),
    }
    facts: dict[str, Any] = {
        "name": NAME,
        "dim": towers.image.head.linear.out_features,
        "modalities": ["image", "text"],
        "languages": ["en", "zh"],
        "image": {"size": config.size, "fit": "squash", "resample": "bicubic"},
        "text": {"max_tokens": config.max_tokens, "pad_id": 0},
        "files": files,
        "training": {"config": asdict(config)},
    }
    if sound is not None:
        files["audio.onnx"] = write(audio_graph(sound), folder / "audio.onnx")
        facts["modalities"].append("audio")
        facts["audio"] = {"rate": RATE, "window": 5.0}
    (folder / "model.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return folder


def hear(encoder: Builtin, data: Path, work: Path) -> Heard:
    """What a head for sounds is taught with, in the space of this model's pictures and texts."""
    clips = esc50.clips(data)
    categories = sorted({clip.category for clip in clips})
    pictured = esc50.pictured(data)
    photos = pairs.tiny_imagenet(data, held_out=False)
    labels = np.array([photo.label for photo in photos])
    size = encoder.image_input.size
    pixels = pixels_of("tiny", BuiltinConfig(), data, work)
    path = work / f"tiny_rows_{encoder.fingerprint[:16]}.npy"
    if not path.exists():
        starts = range(0, len(pixels), 64)
        some = ([squashed(p, size) for p in pixels[s : s + 64]] for s in starts)
        np.save(path, np.concatenate([encoder.encode(Modality.IMAGE, batch) for batch in some]))
    names = sound_sentences(data)
    rows = encoder.encode(Modality.TEXT, [text for several in names for text in several])
    texts = torch.from_numpy(rows).view(len(names), len(SOUND_TEMPLATES), encoder.dim)
    _, weight, bias = sound_teacher(data)
    return Heard(
        features=torch.from_numpy(np.array(clip_features(data, work))),
        folds=np.array([clip.fold for clip in clips]),
        labels=np.array([categories.index(clip.category) for clip in clips]),
        names=texts[len(weight) :],
        audioset=texts[: len(weight)],
        photos=torch.from_numpy(np.load(path)),
        shows=torch.from_numpy(
            np.stack([np.isin(labels, pictured.get(category, [])) for category in categories])
        ),
        weight=weight,
        bias=bias,
    )


def train_sounds(config: BuiltinConfig, data: Path, work: Path) -> None:
    """The head of the shipped sound tower, on all folds, beside the finished towers."""
    heard = hear(
        Builtin(NAME, write_model(config, work, averaged(config, work / "refit.pt"))), data, work
    )
    head, _ = train_sound_head(config, heard)
    save(work / "sounds.pt", head=head.state_dict())


def unrelated(encoder: Builtin, data: Path, work: Path) -> dict[str, dict[str, list[float]]]:
    """Mean and standard deviation of the scores of pairs that have nothing to do with each other.

    For each modality of a query and of an item. From the photos of Flickr8k dev and their captions,
    the names of classes, and the clips of ESC-50, each paired with those of other photos, names,
    or classes.
    """
    photos = pairs.flickr8k(data, "dev")
    clips = esc50.clips(data)[::4]
    categories = [clip.category for clip in clips]
    size = encoder.image_input.size
    pixels = pixels_of("dev", BuiltinConfig(), data, work)
    captions = [photo.captions[0] for photo in photos]
    names = [several[2] for several in class_sentences(data)]
    sounds = [SOUND_TEMPLATES[1].format(esc50.spoken(category)) for category in categories]
    here = np.arange(len(photos))
    rows: dict[str, tuple[Floats, npt.NDArray[Any]]] = {
        "image": (encoder.encode(Modality.IMAGE, [squashed(p, size) for p in pixels]), here),
        "text": (
            encoder.encode(Modality.TEXT, [*captions, *names, *sounds]),
            np.array([*here, *(f"name {i}" for i in range(len(names))), *categories], object),
        ),
        "audio": (
            encoder.encode(Modality.AUDIO, [samples_of(clip.path) for clip in clips]),
            np.array(categories, object),
        ),
    }
    found: dict[str, dict[str, list[float]]] = {name: {} for name in rows}
    for first, second in combinations_with_replacement(rows, 2):
        (a, ours), (b, theirs) = rows[first], rows[second]
        scores = (a @ b.T)[ours[:, None] != theirs[None, :]]
        figures = [round(float(scores.mean()), 4), round(float(scores.std()), 4)]
        found[first][second] = found[second][first] = figures
    return found


def export(config: BuiltinConfig, data: Path, work: Path, out: Path) -> None:
    """Write the model's files, sounds and backgrounds included, and compare them with torch."""
    towers = averaged(config, work / "refit.pt")
    sound = AudioTower(config.hidden)
    sound.backbone = sound_teacher(data)[0]
    sound.head.load_state_dict(torch.load(work / "sounds.pt")["head"])
    folder = write_model(config, work, towers, sound.eval())
    check_parity((towers.image, towers.text, sound), folder)
    path = folder / "model.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    facts["backgrounds"] = unrelated(Builtin(NAME, folder), data, work)
    path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    shutil.copytree(folder, out, dirs_exist_ok=True)
