"""From a written file back to the tower it was made from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from mmsearch.errors import ModelError
from mmsearch.training.export.graph import SCALE
from mmsearch.training.towers import AudioTower, ImageTower, TextTower

TOWERS: dict[str, type[ImageTower | TextTower | AudioTower]] = {
    tower.__name__: tower for tower in (ImageTower, TextTower, AudioTower)
}


def read_tower(path: Path) -> ImageTower | TextTower | AudioTower:
    """The tower in an ONNX file that ``image_graph``, ``text_graph`` or ``audio_graph`` made.

    Weights are what the file has: float16, or int8 times a scale, widened. Raises ModelError for
    a file of another make.
    """
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf raises a type of its own for each cause
        raise ModelError(f"{path} is not a usable model: {error}") from error
    facts = {entry.key: entry.value for entry in model.metadata_props}
    kind = TOWERS.get(facts.get("tower", ""))
    if kind is None:
        raise ModelError(
            f"{path} has no weights that training can start from: it was written by an older "
            "mmsearch, or is another's; start from a newer model"
        )
    tower = kind(**json.loads(facts["arguments"]))
    stored = {
        entry.name: numpy_helper.to_array(entry).astype(np.float32)
        for entry in model.graph.initializer
    }
    state: dict[str, Tensor] = {}
    for name in tower.state_dict():
        values = stored[name] * stored.get(name + SCALE, np.float32(1))
        state[name] = torch.from_numpy(values)
    tower.load_state_dict(state)
    return tower.eval()
