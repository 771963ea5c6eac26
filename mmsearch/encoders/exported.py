"""Models of other libraries, exported once to a folder of the cache: they need no torch here."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.encoders.runtime import Graph, a_call_a_core
from mmsearch.encoders.texts import TextTower
from mmsearch.errors import ModelError
from mmsearch.records import AudioInput, ImageInput, Modality

if TYPE_CHECKING:
    from mmsearch.encoders.openvino import OpenVinoImages
    from mmsearch.records import Pixels, Samples, Vectors

_PICTURES = 4  # a call of the graph
_TEXTS = 16
_FEW = 16  # texts: what a command asks, not what a library that stays open or is made reads
_MANY = 8  # from so many pictures at a time on it pays to compile a faster graph


class Exported:
    """An encoder in a folder that `mmsearch.encoders.foreign.exporting` wrote.

    With `precision` "fp32" every picture is decoded in full and encoded in float32, as the model's
    own library does; "auto" takes the fastest graph for many pictures whose rows were measured to
    be the same on this machine, to a cosine of 0.999 at least. Vectors of both compare, and may
    stand in one library: the fingerprint is of the weights and the preprocessing. Texts and sounds
    are always float32.
    """

    backgrounds: Mapping[Modality, Mapping[Modality, tuple[float, float]]] = {}

    def __init__(self, name: str, folder: Path, precision: str = "auto") -> None:
        self.name, self.folder, self.precision = name, folder, precision
        try:
            card = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(
                f"{folder / 'model.json'} cannot be read; remove {folder}, and "
                f"{name} is exported again"
            ) from error
        self.card: dict[str, Any] = card
        self.fingerprint: str = card["fingerprint"]
        self.dim: int = card["dim"]
        self.modalities = frozenset(Modality(kind) for kind in card["modalities"])
        exact = precision == "fp32"
        image = card.get("image")
        self.image_input = ImageInput(**image, exact=exact) if image else ImageInput(1)
        self.audio_input = AudioInput(**card["audio"]) if "audio" in card else None
        self._texts = TextTower(
            folder,
            **card["text"],
            together=_TEXTS,
            repaired=card.get("repaired", False),
            few=_FEW,
        )

    def encode(self, modality: Modality, batch: Sequence[Any]) -> Vectors:
        """See Encoder."""
        if modality not in self.modalities:
            raise ModelError(f"{self.name} has no tower for {modality}")
        if not len(batch):
            return np.empty((0, self.dim), np.float32)
        if modality is Modality.TEXT:
            return self._texts(batch)
        if modality is Modality.IMAGE:
            many = len(batch) >= _MANY or "_gpu" in self.__dict__
            if self.precision == "auto" and many:
                return (self._gpu or self._fast or self._exact)(batch)
            return self._exact(batch)
        return self._sounds(batch)

    @property
    def device(self) -> str:
        """Where many pictures are encoded: "cuda", or "cpu"."""
        return "cuda" if self._gpu else "cpu"

    def to_cpu(self) -> None:
        """Leave the GPU: from now on the CPU computes the same."""
        self.__dict__["_gpu"] = None

    def altered(self) -> list[str]:
        """Names of the folder's files that are absent or not what was exported."""
        from mmsearch.encoders.builtin import file_sha256

        return [
            name
            for name, expected in self.card["files"].items()
            if file_sha256(self.folder / name) != expected
        ]

    def _exact(self, pictures: Sequence[Pixels]) -> Vectors:
        """The rows of pictures in float32."""
        parts = [pictures[s : s + _PICTURES] for s in range(0, len(pictures), _PICTURES)]
        return a_call_a_core(lambda part: self._image_graph(pixels=np.stack(part)), parts)

    @functools.cached_property
    def _gpu(self) -> Callable[[Sequence[Pixels]], Vectors] | None:
        """The same in half precision on a GPU; torch is not looked for where no driver is."""
        here = Modality.IMAGE in self.modalities and self.precision == "auto"
        if not here or not os.path.exists("/proc/driver/nvidia/version"):
            return None
        try:
            from mmsearch.encoders.foreign.gpu import on_gpu
        except ImportError:
            return None
        return on_gpu(self.name, self.image_input.size, self._exact)

    @functools.cached_property
    def _fast(self) -> OpenVinoImages | None:
        """The same in bfloat16, where the processor has it and the rows compare."""
        from mmsearch.encoders.openvino import in_bfloat16

        return in_bfloat16(self.folder, self.image_input.size, self._exact)

    @functools.cached_property
    def _image_graph(self) -> Graph:
        return Graph(self.folder / "image.onnx", threads=1)

    @functools.cached_property
    def _sounds(self) -> Callable[[Sequence[Samples]], Vectors]:
        if "waveform" in self.card:
            from mmsearch.encoders.waveform import WaveformTower

            return WaveformTower(self.folder, **self.card["waveform"])
        from mmsearch.encoders.spectrogram import SoundTower

        return SoundTower(self.folder, **self.card["spectrogram"])
