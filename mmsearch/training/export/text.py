"""The text tower as a graph."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper
from torch import nn

from mmsearch.training.export.graph import Graph, sign
from mmsearch.training.towers import TextTower, TransformerLayer


def text_graph(tower: TextTower, *, sentence: bool = False) -> onnx.ModelProto:
    """``ids``, ``mask`` int64 (n, t) -> ``embedding`` float32 (n, dim), unit rows.

    With ``sentence``, the rows before the head, (n, width).
    """
    graph = Graph(tower)
    real = graph.add("Cast", "mask", to=TensorProto.FLOAT)  # (n, t)
    # Padding gets a logit so low that its softmax is exactly 0, and so its value never matters.
    bias = graph.add("Mul", graph.add("Sub", real, graph.number(1.0)), graph.number(1e9))
    bias = graph.add("Unsqueeze", bias, graph.ints(1, 2))  # (n, 1, 1, t)

    table, scale = graph.quantised(tower.tokens.weight)
    x = graph.add("Cast", graph.add("Gather", table, "ids"), to=TensorProto.FLOAT)
    x = graph.add("Mul", x, graph.add("Gather", scale, "ids"))  # (n, t, width)
    length = graph.add("Shape", "ids", start=1, end=2)
    positions = graph.add(
        "Slice", graph.half(tower.positions), graph.ints(0), length, graph.ints(0)
    )
    x = _norm(graph, tower.norm, graph.add("Add", x, positions))
    for layer in tower.layers:
        assert isinstance(layer, TransformerLayer)
        x = _layer(graph, layer, x, bias)

    weights = graph.add("Unsqueeze", real, graph.ints(2))
    total = graph.add("ReduceSum", graph.add("Mul", x, weights), graph.ints(1), keepdims=0)
    pooled = graph.unit(
        graph.add("Div", total, graph.add("ReduceSum", weights, graph.ints(1), keepdims=0))
    )
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "t"])
        for name in ("ids", "mask")
    ]
    if sentence:
        return graph.model(inputs, pooled, [tower.tokens.embedding_dim])
    rows = graph.head(tower.head, pooled)
    return sign(graph.model(inputs, rows, [tower.head.linear.out_features]), tower)


def _layer(graph: Graph, layer: TransformerLayer, x: str, bias: str) -> str:
    width = layer.attention_output.in_features
    each = width // layer.heads
    parts = graph.split(
        "Split", graph.linear(layer.query_key_value, x), outputs=3, axis=-1, num_outputs=3
    )
    # (n, heads, t, width / heads), the key transposed
    query, key, value = (
        graph.add(
            "Transpose", graph.add("Reshape", part, graph.ints(0, 0, layer.heads, each)), perm=order
        )
        for part, order in zip(parts, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True)
    )
    logits = graph.add("Mul", graph.add("MatMul", query, key), graph.number(each**-0.5))
    attention = graph.add("Softmax", graph.add("Add", logits, bias), axis=-1)
    attended = graph.add("Transpose", graph.add("MatMul", attention, value), perm=[0, 2, 1, 3])
    attended = graph.add("Reshape", attended, graph.ints(0, 0, width))
    attended = graph.linear(layer.attention_output, attended)
    x = _norm(graph, layer.attention_norm, graph.add("Add", x, attended))
    inner = graph.add("Gelu", graph.linear(layer.inner, x))
    return _norm(graph, layer.output_norm, graph.add("Add", x, graph.linear(layer.output, inner)))


def _norm(graph: Graph, module: nn.LayerNorm, x: str) -> str:
    return graph.add(
        "LayerNormalization",
        x,
        graph.single(module.weight),
        graph.single(module.bias),
        axis=-1,
        epsilon=module.eps,
    )
