"""Encoders turn pictures, sounds and words into unit rows of one space."""

from __future__ import annotations

import functools
import json
import os
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


SOUNDS = ("clap", "pe-av")  # kinds of encoders of sounds, before a colon
BUILTIN = "builtin-2"  # what "builtin" stands for: the newest


@functools.lru_cache(maxsize=8)
def open_encoder(name: str, precision: str = "auto") -> Encoder:
    """The encoder of that name; "builtin" is the newest built-in one.

        builtin                                the model in the package
        FOLDER                                 of a training run, or of open_clip
        ARCHITECTURE/TAG, hf-hub:ORG/NAME      open_clip's releases, and others on the hub
        ARCHITECTURE//PATH/TO/FILE.safetensors weights of one of open_clip's architectures
        clap:ORG/NAME, clap:FOLDER             transformers' encoders of sounds and texts
        pe-av:ORG/NAME, pe-av:FOLDER           and those of pictures, sounds and texts

    `precision` "fp32" is exact, "auto" takes the fastest graph whose rows compare with it.
    Models of other libraries are exported once, which takes torch, and open without it from then
    on. Raises ModelError for an unknown name, MissingExtra where a library is absent. Opening
    twice gives the same object: weights are loaded once a process, when something is encoded.
    """
    if name in ("builtin", BUILTIN):
        from mmsearch.encoders.builtin import Builtin

        return Builtin(BUILTIN)
    folder = Path(name)
    if (folder / "model.json").is_file():  # such as `mmsearch train` leaves behind
        from mmsearch.encoders.builtin import Builtin

        return Builtin(folder.name, folder)
    full = full_name(name)
    if full is None:
        raise ModelError(
            f"no model is called {name!r}; there is: builtin (that is {BUILTIN}), the folder of a "
            "training run, open_clip's ARCHITECTURE/TAG, ARCHITECTURE//FILE.safetensors and "
            "hf-hub:ORG/NAME, clap:ORG/NAME, pe-av:ORG/NAME; mmsearch models list names some"
        )
    from mmsearch.encoders import cache
    from mmsearch.encoders.exported import Exported

    entry = cache.find(full) or cache.make(full)
    return Exported(full, entry.path, precision)


def full_name(name: str) -> str | None:
    """The name of another library's model as it means the same from everywhere: local paths are
    absolute. None for a name that no library's can be.
    """
    if (Path(name) / "open_clip_config.json").is_file():
        return os.path.realpath(name)
    library, colon, rest = name.partition(":")
    if colon and library in ("hf-hub", *SOUNDS) and rest:
        return f"{library}:{os.path.realpath(rest)}" if os.path.isdir(rest) else name
    architecture, slash, rest = name.partition("/")
    if not (architecture and slash and rest) or architecture in (".", "..", "~"):
        return None
    if os.path.isfile(rest) or rest.startswith("/"):
        return f"{architecture}/{os.path.realpath(rest)}"
    return name


def reservations(name: str) -> list[str]:
    """Why the training run of that folder is not offered; empty for any other model."""
    try:
        card = json.loads((Path(name) / "model.json").read_text(encoding="utf-8"))
        return [] if card.get("offered", True) else [str(reason) for reason in card["reasons"]]
    except (OSError, ValueError, KeyError):
        return []
