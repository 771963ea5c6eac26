"""A foreign tower to a graph, with the inputs and outputs of our own."""

from __future__ import annotations

import onnx
import torch
from torch import Tensor, nn

from mmsearch.encoders.foreign.tracing import traced
from mmsearch.errors import ModelError
from mmsearch.training.export.graph import sign
from mmsearch.training.foreign.parts import Pictures, Texts

LARGEST = 2**31 - 1  # bytes that an ONNX file can have


class _Bytes(nn.Module):
    """What encoders hand in: uint8 RGB, channels last."""

    def __init__(self, tower: Pictures):
        super().__init__()
        self.tower = tower

    def forward(self, pixels: Tensor) -> Tensor:
        out: Tensor = self.tower(pixels.permute(0, 3, 1, 2).float())
        return out


class _Ids(nn.Module):
    """The same with the inputs by name."""

    def __init__(self, tower: Texts):
        super().__init__()
        self.tower = tower

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = self.tower(ids, mask)
        return out


def traced_graph(tower: Pictures | Texts) -> onnx.ModelProto:
    """The graph of a tower. Raises ModelError for one too large for one file."""
    weights = sum(p.numel() * p.element_size() for p in tower.parameters())
    if weights > LARGEST:
        raise ModelError(
            f"the tower has {weights / 1e9:.1f} GB of weights, and a graph holds 2.1 GB"
        )
    n = torch.export.Dim("n")
    if isinstance(tower, Pictures):
        pixels = torch.zeros(2, tower.size, tower.size, 3, dtype=torch.uint8)
        return sign(traced(_Bytes(tower), {"pixels": pixels}, ({0: n},)), tower)
    t = torch.export.Dim("t", max=tower.context)
    row = torch.ones(2, min(5, tower.context), dtype=torch.int64)
    inputs = {"ids": row, "mask": row.clone()}
    return sign(traced(_Ids(tower), inputs, ({0: n, 1: t}, {0: n, 1: t})), tower)
