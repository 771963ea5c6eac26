"""A model in a folder: ONNX towers that need no torch and no download."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.encoders.patches import cut_patches
from mmsearch.encoders.runtime import Graph, a_call_a_core
from mmsearch.encoders.texts import TextTower
from mmsearch.errors import ModelError
from mmsearch.records import AudioInput, ImageInput, Modality

if TYPE_CHECKING:
    from mmsearch.records import Vectors

MODELS = Path(__file__).resolve().parent.parent / "models"

# MobileNetV2's early layers make 5 MB of activations a picture: more pictures at a time
# than this fall out of the cache, fewer pay the call more often.
_PICTURES = 2
_TEXTS = 16


class Builtin:
    """An encoder in a folder: `model.json`, `tokenizer.json`, and of each modality its graph,
    `image.onnx`, `text.onnx` and perhaps `audio.onnx`.
    """

    def __init__(self, name: str, folder: Path | None = None) -> None:
        self.folder = folder or MODELS / name
        try:
            card = json.loads((self.folder / "model.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(
                f"the model {name} is not whole: {self.folder / 'model.json'} cannot be read; "
                "install mmsearch again"
            ) from error
        self.name: str = card["name"]
        self.dim: int = card["dim"]
        self.modalities = frozenset(Modality(name) for name in card["modalities"])
        self.image_input = ImageInput(**card["image"])
        self.audio_input = AudioInput(**card["audio"]) if "audio" in card else None
        self.backgrounds: Mapping[Modality, Mapping[Modality, tuple[float, float]]] = {
            Modality(query): {
                Modality(item): (mean, deviation) for item, (mean, deviation) in items.items()
            }
            for query, items in card.get("backgrounds", {}).items()
        }
        self.files: dict[str, str] = card["files"]
        self._texts = TextTower(self.folder, **card["text"], together=_TEXTS)
        # weights and preprocessing, nothing else: a reworded card is the same model
        said = ("dim", "image", "text", "audio", "files")
        identity = {key: card[key] for key in said if key in card}
        canonical = json.dumps(identity, sort_keys=True).encode()
        self.fingerprint = hashlib.sha256(canonical).hexdigest()

    def encode(self, modality: Modality, batch: Sequence[Any]) -> Vectors:
        """See Encoder."""
        if modality not in self.modalities:
            raise ModelError(f"{self.name} has no tower for {modality}")
        if not len(batch):
            return np.empty((0, self.dim), np.float32)
        if modality == Modality.IMAGE:
            return self._encode_images(batch)
        if modality == Modality.AUDIO:
            return self._encode_sounds(batch)
        return self._texts(batch)

    def altered(self) -> list[str]:
        """Names of the model's files that are absent or not what was released."""
        return [
            name
            for name, expected in self.files.items()
            if file_sha256(self.folder / name) != expected
        ]

    @functools.cached_property
    def _image_graph(self) -> Graph:
        return Graph(self.folder / "image.onnx", threads=1)

    @functools.cached_property
    def _audio_graph(self) -> Graph:
        return Graph(self.folder / "audio.onnx", threads=1)

    def _encode_images(self, pictures: Sequence[Any]) -> Vectors:
        """A few pictures a call."""
        parts = [pictures[s : s + _PICTURES] for s in range(0, len(pictures), _PICTURES)]
        return a_call_a_core(lambda part: self._image_graph(pixels=np.stack(part)), parts)

    def _encode_sounds(self, sounds: Sequence[Any]) -> Vectors:
        """A sound a call: the graph pools over the patches that it is given."""
        return a_call_a_core(
            lambda samples: self._audio_graph(patches=cut_patches(samples)), sounds
        )


def file_sha256(path: Path) -> str | None:
    """The SHA-256 of a file; None where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
