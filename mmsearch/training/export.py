"""Trained towers to ONNX files, built node by node.

The graphs are written by hand rather than traced: there are few kinds of node, every dynamic
dimension is meant, and the same weights give the same bytes on any version of torch.

Weights are stored small and widened when a session starts, by nodes that ONNX Runtime folds away:
    image   float16, then Cast: halves the file
    text    int8 with one scale an output channel, then Cast and Mul: quarters it. The token table
            stays int8 in memory, since only the rows of a query's tokens are widened.
All arithmetic is float32.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from mmsearch.training.towers import (
    FEATURES,
    Convolution,
    Head,
    ImageTower,
    InvertedResidual,
    MobileNetV2,
    TextTower,
    TransformerLayer,
)

OPSET = 20
Array = npt.NDArray[np.generic]


class Graph:
    """An ONNX graph under construction. Methods add nodes and return the name of their output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def add(self, operation: str, *inputs: str, **attributes: Any) -> str:
        """One node with one output."""
        name = f"{operation.lower()}_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(operation, list(inputs), [name], name=name, **attributes)
        )
        return name

    def constant(self, value: Array) -> str:
        """A stored tensor, shared where the same value is asked for again."""
        value = np.ascontiguousarray(value)
        key = hashlib.sha256(f"{value.dtype}{value.shape}".encode() + value.tobytes()).hexdigest()[
            :16
        ]
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(value, key)
        return key

    def ints(self, *values: int) -> str:
        """A stored list of integers."""
        return self.constant(np.array(values, np.int64))

    def number(self, value: float) -> str:
        """A stored float32 scalar."""
        return self.constant(np.array(value, np.float32))

    def half(self, value: torch.Tensor) -> str:
        """A tensor stored as float16, as float32."""
        return self.add(
            "Cast", self.constant(value.detach().numpy().astype(np.float16)), to=TensorProto.FLOAT
        )

    def single(self, value: torch.Tensor) -> str:
        """A tensor stored as float32: for biases and norms, which are small."""
        return self.constant(value.detach().numpy().astype(np.float32))

    def eighth(self, value: torch.Tensor) -> str:
        """A matrix (inputs, outputs) stored as int8 with a scale an output, as float32."""
        quantised, scale = quantise(value.detach().numpy(), axis=0)
        return self.add(
            "Mul",
            self.add("Cast", self.constant(quantised), to=TensorProto.FLOAT),
            self.constant(scale),
        )

    def unit(self, x: str) -> str:
        """Rows divided by their length."""
        return self.add(
            "Div",
            x,
            self.add("Max", self.add("ReduceL2", x, self.ints(1), keepdims=1), self.number(1e-12)),
        )

    def model(
        self,
        inputs: list[onnx.ValueInfoProto],
        output: str,
        shape: list[int | str],
        dtype: int = TensorProto.FLOAT,
    ) -> onnx.ModelProto:
        """The finished model, its one output named 'embedding', (n, *shape)."""
        self.nodes.append(helper.make_node("Identity", [output], ["embedding"], name="embedding"))
        embedding = helper.make_tensor_value_info("embedding", dtype, ["n", *shape])
        graph = helper.make_graph(
            self.nodes, "tower", inputs, [embedding], list(self.constants.values())
        )
        # The oldest format that knows this opset, so that older runtimes read it too.
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            producer_name="mmsearch",
            ir_version=9,
        )
        onnx.checker.check_model(model)
        return model


def quantise(
    values: npt.NDArray[np.float32], axis: int
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Symmetric int8 values and their scales: the maximum over ``axis`` becomes 127."""
    scale = np.maximum(np.abs(values).max(axis=axis, keepdims=True) / 127.0, 1e-12).astype(
        np.float32
    )
    return np.rint(values / scale).astype(np.int8), scale


def image_graph(tower: ImageTower) -> onnx.ModelProto:
    """``pixels`` uint8 (n, 224, 224, 3) RGB -> ``embedding`` float32 (n, 256), unit rows."""
    graph = Graph()
    pooled = _backbone(graph, tower.backbone)
    return graph.model(
        [_pixels()], _head(graph, tower.head, pooled, wide=True), [tower.head.linear.out_features]
    )


def features_graph(backbone: MobileNetV2, layers: int | None = None) -> onnx.ModelProto:
    """The backbone alone: ``pixels`` -> pooled features (n, 1280).

    With ``layers``, the maps that leave the first so many layers: (n, channels, height, width)
    float16.
    """
    graph = Graph()
    if layers is None:
        return graph.model([_pixels()], _backbone(graph, backbone), [FEATURES])
    maps = graph.add("Cast", _maps(graph, backbone, layers), to=TensorProto.FLOAT16)
    return graph.model([_pixels()], maps, ["channels", "height", "width"], TensorProto.FLOAT16)


def classifier_graph(
    backbone: MobileNetV2, weight: torch.Tensor, bias: torch.Tensor
) -> onnx.ModelProto:
    """Plain MobileNetV2 with its classifier, to compare times with. weight: (1001, 1280)."""
    graph = Graph()
    pooled = _backbone(graph, backbone)
    logits = graph.add("Add", graph.add("MatMul", pooled, graph.half(weight.T)), graph.single(bias))
    return graph.model([_pixels()], graph.add("Softmax", logits, axis=-1), [len(bias)])


def _pixels() -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", 224, 224, 3])


def _backbone(graph: Graph, backbone: MobileNetV2) -> str:
    maps = _maps(graph, backbone, len(backbone.layers))
    return graph.add("Flatten", graph.add("GlobalAveragePool", maps))


def _maps(graph: Graph, backbone: MobileNetV2, layers: int) -> str:
    x = graph.add("Transpose", graph.add("Cast", "pixels", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    x = graph.add("Mul", graph.add("Sub", x, graph.number(127.0)), graph.number(1 / 127.5))
    for layer in list(backbone.layers)[:layers]:
        if isinstance(layer, Convolution):
            x = _convolution(graph, layer, x)
        elif isinstance(layer, InvertedResidual):
            inner = x
            for module in layer.layers:
                assert isinstance(module, Convolution)
                inner = _convolution(graph, module, inner)
            x = graph.add("Add", x, inner) if layer.residual else inner
    return x


def _convolution(graph: Graph, module: Convolution, x: str) -> str:
    convolution = module.convolution
    assert convolution.bias is not None
    before, after = (0, 1) if module.stride == 2 else (module.kernel // 2,) * 2
    x = graph.add(
        "Conv",
        x,
        graph.half(convolution.weight),
        graph.single(convolution.bias),
        strides=[module.stride] * 2,
        pads=[before, before, after, after],
        group=convolution.groups,
    )
    return x if module.linear else graph.add("Clip", x, graph.number(0.0), graph.number(6.0))


def _linear(graph: Graph, module: nn.Linear, x: str, *, wide: bool = False) -> str:
    weight = graph.half(module.weight.T) if wide else graph.eighth(module.weight.T)
    return graph.add("Add", graph.add("MatMul", x, weight), graph.single(module.bias))


def _head(graph: Graph, head: Head, x: str, *, wide: bool) -> str:
    hidden = graph.add("Gelu", _linear(graph, head.hidden, x, wide=wide))
    return graph.unit(
        graph.add(
            "Add",
            _linear(graph, head.linear, x, wide=wide),
            _linear(graph, head.output, hidden, wide=wide),
        )
    )


def _norm(graph: Graph, module: nn.LayerNorm, x: str) -> str:
    return graph.add(
        "LayerNormalization",
        x,
        graph.single(module.weight),
        graph.single(module.bias),
        axis=-1,
        epsilon=module.eps,
    )


def text_graph(tower: TextTower, *, sentence: bool = False) -> onnx.ModelProto:
    """``ids``, ``mask`` int64 (n, t) -> ``embedding`` float32 (n, 256), unit rows.

    With ``sentence``, the rows before the head, (n, width).
    """
    graph = Graph()
    real = graph.add("Cast", "mask", to=TensorProto.FLOAT)  # (n, t)
    # Padding gets a logit so low that its softmax is exactly 0, and so its value never matters.
    bias = graph.add("Mul", graph.add("Sub", real, graph.number(1.0)), graph.number(1e9))
    bias = graph.add("Unsqueeze", bias, graph.ints(1, 2))  # (n, 1, 1, t)

    table, scale = quantise(tower.tokens.weight.detach().numpy(), axis=1)
    x = graph.add("Cast", graph.add("Gather", graph.constant(table), "ids"), to=TensorProto.FLOAT)
    x = graph.add("Mul", x, graph.add("Gather", graph.constant(scale), "ids"))  # (n, t, width)
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
    return graph.model(
        inputs, _head(graph, tower.head, pooled, wide=False), [tower.head.linear.out_features]
    )


def _layer(graph: Graph, layer: TransformerLayer, x: str, bias: str) -> str:
    width = layer.attention_output.in_features
    each = width // layer.heads
    weight, offset = layer.query_key_value.weight, layer.query_key_value.bias
    split = []  # query, key, value: each (n, heads, t, width / heads), the key transposed
    for part, order in ((0, [0, 2, 1, 3]), (1, [0, 2, 3, 1]), (2, [0, 2, 1, 3])):
        rows = slice(part * width, (part + 1) * width)
        y = graph.add(
            "Add", graph.add("MatMul", x, graph.eighth(weight[rows].T)), graph.single(offset[rows])
        )
        split.append(
            graph.add(
                "Transpose",
                graph.add("Reshape", y, graph.ints(0, 0, layer.heads, each)),
                perm=order,
            )
        )
    query, key, value = split
    logits = graph.add("Mul", graph.add("MatMul", query, key), graph.number(each**-0.5))
    attention = graph.add("Softmax", graph.add("Add", logits, bias), axis=-1)
    attended = graph.add("Transpose", graph.add("MatMul", attention, value), perm=[0, 2, 1, 3])
    attended = graph.add("Reshape", attended, graph.ints(0, 0, width))
    x = _norm(
        graph,
        layer.attention_norm,
        graph.add("Add", x, _linear(graph, layer.attention_output, attended)),
    )
    inner = graph.add("Gelu", _linear(graph, layer.inner, x))
    return _norm(graph, layer.output_norm, graph.add("Add", x, _linear(graph, layer.output, inner)))


def write(model: onnx.ModelProto, path: Path) -> str:
    """Save a model and return the SHA-256 of the file."""
    data = model.SerializeToString(deterministic=True)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


@torch.inference_mode()
def check_parity(towers: tuple[ImageTower, TextTower], folder: Path) -> None:
    """Compare the written files with torch; a cosine below 0.999 stops the export."""
    image_tower, text_tower = towers
    generator = np.random.default_rng(0)
    # Blocks of colour rather than noise, which is like no picture.
    blocks = generator.integers(0, 256, (4, 7, 7, 3), dtype=np.uint8)
    pixels = blocks.repeat(32, axis=1).repeat(32, axis=2)
    ids = generator.integers(5, text_tower.tokens.num_embeddings, (4, 9))
    mask = np.ones_like(ids)
    expected = (
        image_tower(torch.from_numpy(pixels).permute(0, 3, 1, 2).float()),
        text_tower(torch.from_numpy(ids), torch.from_numpy(mask)),
    )
    inputs = ({"pixels": pixels}, {"ids": ids, "mask": mask})
    names = ("image.onnx", "text.onnx")
    for name, feed, rows in zip(names, inputs, expected, strict=True):
        session = onnxruntime.InferenceSession(
            str(folder / name), providers=["CPUExecutionProvider"]
        )
        worst = float((session.run(None, feed)[0] * rows.numpy()).sum(1).min())
        print(f"{name}: cosine with torch at least {worst:.5f}")
        if worst < 0.999:
            raise ValueError(f"{name} differs from the tower it was made from: cosine {worst:.5f}")
