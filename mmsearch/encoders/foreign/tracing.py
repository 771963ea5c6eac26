"""A network of torch to an ONNX graph, as torch traces it: float32, for rows that stay the same."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from mmsearch.errors import ModelError

OPSET = 20
LARGEST = 2**31 - 1  # bytes that an ONNX file can have
Shapes = dict[int, object]  # axis to torch.export.Dim


def check_size(module: nn.Module) -> None:
    """Raise ModelError for weights too large for one file."""
    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    if weights > LARGEST:
        raise ModelError(
            f"the tower has {weights / 1e9:.1f} GB of weights, and a graph holds 2.1 GB"
        )


def traced(
    module: nn.Module, inputs: Mapping[str, Tensor], shapes: tuple[Shapes, ...]
) -> onnx.ModelProto:
    """A module's graph: `inputs` by name, with the axes that vary, to an output `embedding`.

    Raises ModelError for weights too large for one file.
    """
    check_size(module)
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
    return _named(program.model_proto)


def scripted(
    module: nn.Module, inputs: Mapping[str, Tensor], shapes: tuple[Shapes, ...]
) -> onnx.ModelProto:
    """The same by torch's older exporter: twenty times as fast, but it takes some sizes that it
    sees for constants. Whoever calls compares the graph with the module on other sizes.
    """
    axes = {
        name: {axis: f"{name}_{axis}" for axis in varying}
        for name, varying in zip(inputs, shapes, strict=True)
    }
    written: Any = io.BytesIO()
    torch.onnx.export(
        module.eval(),
        tuple(inputs.values()),
        written,
        input_names=list(inputs),
        output_names=["embedding"],
        dynamic_axes=axes | {"embedding": {0: "n"}},
        opset_version=17,
        dynamo=False,
        verbose=False,
    )
    return onnx.load_from_string(written.getvalue())


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    _rename(model.graph, "embedding", "embedding_inside")  # as torch calls a looked-up row
    _rename(model.graph, model.graph.output[0].name, "embedding")
    return model


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Give a value of a graph another name."""
    for entry in (*graph.initializer, *graph.value_info, *graph.output):
        if entry.name == old:
            entry.name = new
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
