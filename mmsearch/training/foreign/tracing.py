"""A foreign tower to a graph, as torch traces it: float32, so that its rows stay what they were."""

from __future__ import annotations

import onnx
import torch
from torch import Tensor, nn

from mmsearch.errors import ModelError
from mmsearch.training.export.graph import OPSET, sign
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
    """The graph of a tower: inputs and output have the names and shapes of our own.

    Raises ModelError for one too large for one file.
    """
    n = torch.export.Dim("n")
    if isinstance(tower, Pictures):
        module: nn.Module = _Bytes(tower)
        inputs = {"pixels": torch.zeros(2, tower.size, tower.size, 3, dtype=torch.uint8)}
        shapes: tuple[dict[int, object], ...] = ({0: n},)
    else:
        module = _Ids(tower)
        t = torch.export.Dim("t", max=tower.context)
        row = torch.ones(2, min(5, tower.context), dtype=torch.int64)
        inputs = {"ids": row, "mask": row.clone()}
        shapes = ({0: n, 1: t}, {0: n, 1: t})
    bytes_in_all = sum(p.numel() * p.element_size() for p in tower.parameters())
    if bytes_in_all > LARGEST:
        raise ModelError(
            f"the tower has {bytes_in_all / 1e9:.1f} GB of weights, and a graph holds 2.1 GB"
        )
    program = torch.onnx.export(
        module.eval(),
        tuple(inputs.values()),
        input_names=list(inputs),
        dynamic_shapes=shapes,
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    _rename(model.graph, "embedding", "embedding_inside")  # as torch calls a looked-up row
    _rename(model.graph, model.graph.output[0].name, "embedding")
    return sign(model, tower)


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Give a value of a graph another name."""
    for entry in (*graph.initializer, *graph.value_info, *graph.output):
        if entry.name == old:
            entry.name = new
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
