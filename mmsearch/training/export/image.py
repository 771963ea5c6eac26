"""The image tower as a graph."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper
from torch import Tensor

from mmsearch.training.export.graph import Graph, sign
from mmsearch.training.towers import (
    FEATURES,
    SIZE,
    Convolution,
    ImageTower,
    InvertedResidual,
    MobileNetV2,
)


def image_graph(tower: ImageTower) -> onnx.ModelProto:
    """``pixels`` uint8 (n, size, size, 3) RGB -> ``embedding`` float32 (n, dim), unit rows."""
    graph = Graph(tower)
    rows = graph.head(tower.head, _pooled(graph, tower.backbone), wide=True)
    model = graph.model([_pixels(tower.size)], rows, [tower.head.linear.out_features])
    return sign(model, tower)


def features_graph(
    backbone: MobileNetV2, layers: int | None = None, *, size: int = SIZE
) -> onnx.ModelProto:
    """The backbone alone: ``pixels`` -> pooled features (n, 1280).

    With ``layers``, the maps that leave the first so many layers: (n, channels, height, width)
    float16.
    """
    graph = Graph(backbone)
    if layers is None:
        return graph.model([_pixels(size)], _pooled(graph, backbone), [FEATURES])
    maps = graph.add("Cast", _maps(graph, backbone, layers), to=TensorProto.FLOAT16)
    outputs = ["channels", "height", "width"]
    return graph.model([_pixels(size)], maps, outputs, TensorProto.FLOAT16)


def classifier_graph(backbone: MobileNetV2, weight: Tensor, bias: Tensor) -> onnx.ModelProto:
    """Plain MobileNetV2 with its classifier, to compare times with. weight: (1001, 1280)."""
    graph = Graph(backbone)
    scores = graph.add("MatMul", _pooled(graph, backbone), graph.transposed(graph.half(weight)))
    logits = graph.add("Add", scores, graph.single(bias))
    return graph.model([_pixels(SIZE)], graph.add("Softmax", logits, axis=-1), [len(bias)])


def _pixels(size: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", size, size, 3])


def _pooled(graph: Graph, backbone: MobileNetV2) -> str:
    maps = _maps(graph, backbone, len(backbone.layers))
    return graph.add("Flatten", graph.add("GlobalAveragePool", maps))


def _maps(graph: Graph, backbone: MobileNetV2, layers: int) -> str:
    x = graph.add("Transpose", graph.add("Cast", "pixels", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    x = graph.add("Mul", graph.add("Sub", x, graph.number(127.0)), graph.number(1 / 127.5))
    for layer in list(backbone.layers)[:layers]:
        if isinstance(layer, Convolution):
            x = graph.convolution(layer, x)
        elif isinstance(layer, InvertedResidual):
            inner = x
            for module in layer.layers:
                assert isinstance(module, Convolution)
                inner = graph.convolution(module, inner)
            x = graph.add("Add", x, inner) if layer.residual else inner
    return x
