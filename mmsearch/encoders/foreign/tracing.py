"""A network of torch to an ONNX graph, as torch traces it: float32, for rows that stay the same."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

OPSET = 20
Shapes = dict[int, object]  # axis to torch.export.Dim


def traced(
    module: nn.Module, inputs: Mapping[str, Tensor], shapes: tuple[Shapes, ...]
) -> onnx.ModelProto:
    """A module's graph: `inputs` by name, with the axes that vary, to an output `embedding`."""
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
    folder: Path, module: nn.Module, inputs: Mapping[str, Tensor], shapes: tuple[Shapes, ...]
) -> onnx.ModelProto:
    """The same by torch's older exporter: twenty times as fast, but it takes some sizes that it
    sees for constants. Whoever calls compares the graph with the module on other sizes. What it
    writes goes through a folder in `folder`: one file holds 2.1 GB, and of a larger graph the
    weights lie in files of their own.
    """
    axes = {
        name: {axis: f"{name}_{axis}" for axis in varying}
        for name, varying in zip(inputs, shapes, strict=True)
    }
    with tempfile.TemporaryDirectory(dir=folder, prefix=".tracing-") as place:
        written = str(Path(place) / "graph.onnx")
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
        return onnx.load(written)


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
