"""What the tests of towers and of their graphs share."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import torch

DATA = Path(__file__).parents[3] / "shared" / "data"


def alive(kind, seed=0):
    """A randomly initialised convolutional tower whose activations neither vanish nor saturate."""
    torch.manual_seed(seed)
    tower = kind(hidden=16).eval()
    for module in tower.backbone.convolutions():
        torch.nn.init.kaiming_normal_(module.convolution.weight)
    return tower


def run(model, **inputs):
    """The output of a graph."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)[0]
