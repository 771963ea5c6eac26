"""A network of timm for pictures, beside the built-in model's text tower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
from timm.data.config import resolve_model_data_config

from mmsearch.errors import ModelError
from mmsearch.records import ImageInput, Modality
from mmsearch.training.dual import DualEncoder
from mmsearch.training.dual import start as start_from
from mmsearch.training.foreign.parts import Pictures
from mmsearch.training.towers import DIM, Head


class TimmImage(Pictures):
    """A network of timm without its classifier, and a projection head."""

    def __init__(self, name: str, hidden: int = 512, dim: int = DIM, trunk: Any = None):
        trunk = trunk or timm.create_model(name, num_classes=0)
        wants = resolve_model_data_config(trunk)
        size = wants["input_size"][-1]
        super().__init__(
            trunk, Head(trunk.num_features, hidden, dim), size, wants["mean"], wants["std"]
        )
        self.arguments = {"name": name, "hidden": hidden, "dim": dim}


def start(said: str) -> DualEncoder:
    """NAME: random weights. NAME.TAG: those of a release, which may be fetched.
    NAME/FILE.safetensors: those of a file. Raises ModelError.
    """
    name, _, place = said.partition("/")
    if not timm.is_model(name):
        raise ModelError(f"timm has no model {name!r}; it lists: timm.list_models()")
    if place and Path(place).suffix != ".safetensors":
        raise ModelError(f"{place} is not a safetensors file")
    overlay = {"file": place} if place else None
    try:
        trunk = timm.create_model(
            name,
            pretrained=bool(place) or "." in name,
            pretrained_cfg_overlay=overlay,
            num_classes=0,
        )
    except Exception as error:  # of the hub, of safetensors, of torch
        raise ModelError(f"timm:{said} cannot be loaded: {error}") from error
    base = start_from("builtin")
    image = TimmImage(name, dim=base.dim, trunk=trunk)
    return DualEncoder(
        {Modality.IMAGE: image, Modality.TEXT: base.tower(Modality.TEXT)},
        base.tokenizer,
        max_tokens=base.max_tokens,
        pad_id=base.pad_id,
        image_input=ImageInput(image.size),
    )
