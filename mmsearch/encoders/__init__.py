"""Encoders turn pictures, sounds and words into unit rows of one space."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mmsearch.errors import ModelError
from mmsearch.records import AudioInput, ImageInput, Modality

if TYPE_CHECKING:
    from mmsearch.records import Vectors


class Encoder(Protocol):
    """A model with one space for all of its modalities.

    `fingerprint` is a hash of the weights and the preprocessing: vectors of two
    fingerprints never compare. `image_input` and `audio_input` say how pictures and sounds
    have to be handed in; `audio_input` is None where there is no tower for sounds.
    `backgrounds` has, by the query's modality and then the item's, the mean and the standard
    deviation of the scores of pairs that have nothing to do with each other; it is empty
    where they were not measured.
    """

    name: str
    fingerprint: str
    dim: int
    modalities: frozenset[Modality]
    image_input: ImageInput
    audio_input: AudioInput | None
    backgrounds: Mapping[Modality, Mapping[Modality, tuple[float, float]]]

    @property
    def folder(self) -> Path | None:
        """Where its files are, and beside them what was fitted to them; None: nowhere."""

    def encode(self, modality: Modality, batch: Sequence[Any]) -> Vectors:
        """(n, dim) float32 unit rows for n pictures, sounds or texts.

        A picture is a (size, size, 3) uint8 RGB array, a sound a (samples,) float32 array of
        one window at most, a text a str; lengths may differ.

        Raises ModelError for a modality the model has no tower for.
        """

    def altered(self) -> list[str]:
        """Names of the model's files that are absent or not what was released."""


BUILTIN = "builtin-2"  # what "builtin" stands for: the newest


@functools.lru_cache(maxsize=4)
def open_encoder(name: str) -> Encoder:
    """The encoder of that name, or in that folder; "builtin" is the newest built-in one.

    Raises ModelError for an unknown name. Opening twice gives the same object: weights
    are loaded once a process, and only when something is encoded.
    """
    if name in ("builtin", BUILTIN):
        from mmsearch.encoders.builtin import Builtin

        return Builtin(BUILTIN)
    folder = Path(name)
    if (folder / "model.json").is_file():  # such as `mmsearch train` leaves behind
        from mmsearch.encoders.builtin import Builtin

        return Builtin(folder.name, folder)
    raise ModelError(
        f"no model is called {name!r}; there is: builtin (that is {BUILTIN}), "
        "or the folder of a training run"
    )


def reservations(name: str) -> list[str]:
    """Why the training run of that folder is not offered; empty for any other model."""
    try:
        card = json.loads((Path(name) / "model.json").read_text(encoding="utf-8"))
        return [] if card.get("offered", True) else [str(reason) for reason in card["reasons"]]
    except (OSError, ValueError, KeyError):
        return []
