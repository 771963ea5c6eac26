"""From a written file back to the tower it was made from."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from mmsearch.errors import ModelError
from mmsearch.training.export.graph import SCALE
from mmsearch.training.towers import Tower

# Where each kind of tower lives: foreign ones are imported only when a file names them.
KINDS = {
    "ImageTower": "mmsearch.training.towers",
    "TextTower": "mmsearch.training.towers",
    "AudioTower": "mmsearch.training.towers",
    "TimmImage": "mmsearch.training.foreign.timm",
    "OpenClipImage": "mmsearch.training.foreign.open_clip",
    "OpenClipText": "mmsearch.training.foreign.open_clip",
    "TransformersImage": "mmsearch.training.foreign.transformers",
    "TransformersText": "mmsearch.training.foreign.transformers",
}


def read_tower(path: Path, weights: Mapping[str, Tensor] | None = None) -> Tower:
    """The tower that an ONNX file of ours was made from.

    weights: by the names of torch's parameters. Without them, those in the file: float16, or int8
    times a scale, widened; a file of a traced tower has none. Raises ModelError.
    """
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf raises a type of its own for each cause
        raise ModelError(f"{path} is not a usable model: {error}") from error
    facts = {entry.key: entry.value for entry in model.metadata_props}
    kind = facts.get("tower")
    if kind not in KINDS:
        raise ModelError(
            f"{path} does not say what it was made from, so that training cannot start from it: "
            "an older mmsearch wrote it, or another program; start from a newer model"
        )
    tower: Tower = getattr(importlib.import_module(KINDS[kind]), kind)(
        **json.loads(facts["arguments"])
    )
    try:
        tower.load_state_dict(
            _stored(model, list(tower.state_dict())) if weights is None else weights
        )
    except RuntimeError as error:
        raise ModelError(f"{path}: the weights are of another tower: {error}") from error
    return tower.eval()


def _stored(model: onnx.ModelProto, names: list[str]) -> dict[str, Tensor]:
    wanted = {*names, *(name + SCALE for name in names)}
    values = {
        entry.name: numpy_helper.to_array(entry).astype(np.float32)
        for entry in model.graph.initializer
        if entry.name in wanted
    }
    one = np.float32(1)
    return {
        name: torch.from_numpy(values[name] * values.get(name + SCALE, one))
        for name in names
        if name in values
    }
