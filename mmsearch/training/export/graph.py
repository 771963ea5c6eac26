"""An ONNX graph under construction, and how it stores a tower's weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from mmsearch.training.towers import Convolution, Head, Tower

OPSET = 20
SCALE = ".scale"  # after the name of an int8 weight: what its rows are multiplied with
Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]


class Graph:
    """Methods add nodes and return the name of their output.

    Weights that are parameters of ``tower`` are stored under their names there.
    """

    def __init__(self, tower: nn.Module) -> None:
        self.tower = tower
        self.names = {id(parameter): name for name, parameter in tower.named_parameters()}
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def add(self, operation: str, *inputs: str, **attributes: Any) -> str:
        """One node with one output."""
        return self.split(operation, *inputs, outputs=1, **attributes)[0]

    def split(self, operation: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """One node with several outputs."""
        name = f"{operation.lower()}_{len(self.nodes)}"
        names = [name, *(f"{name}_{i}" for i in range(1, outputs))]
        self.nodes.append(helper.make_node(operation, list(inputs), names, name=name, **attributes))
        return names

    def constant(self, value: Array, name: str | None = None) -> str:
        """A stored tensor; one without a name is shared where the same value is asked for again."""
        value = np.ascontiguousarray(value)
        if name is None:
            content = f"{value.dtype}{value.shape}".encode() + value.tobytes()
            name = hashlib.sha256(content).hexdigest()[:16]
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(value, name)
        return name

    def ints(self, *values: int) -> str:
        """A stored list of integers."""
        return self.constant(np.array(values, np.int64))

    def number(self, value: float) -> str:
        """A stored float32 scalar."""
        return self.constant(np.array(value, np.float32))

    def half(self, weight: Tensor) -> str:
        """A weight stored as float16, as float32."""
        stored = self.constant(_array(weight).astype(np.float16), self.names.get(id(weight)))
        return self.add("Cast", stored, to=TensorProto.FLOAT)

    def single(self, weight: Tensor) -> str:
        """A weight stored as float32: for biases and norms, which are small."""
        return self.constant(_array(weight), self.names.get(id(weight)))

    def eighth(self, weight: Tensor) -> str:
        """A weight (outputs, ...) stored as int8 with a scale an output, as float32."""
        stored, scale = self.quantised(weight)
        return self.add("Mul", self.add("Cast", stored, to=TensorProto.FLOAT), scale)

    def quantised(self, weight: Tensor) -> tuple[str, str]:
        """The int8 values of a weight and the scales of its rows."""
        values = _array(weight)
        small, scale = quantise(values, axis=tuple(range(1, values.ndim)))
        name = self.names.get(id(weight))
        return self.constant(small, name), self.constant(scale, name and name + SCALE)

    def transposed(self, matrix: str) -> str:
        """torch has (outputs, inputs), MatMul wants (inputs, outputs)."""
        return self.add("Transpose", matrix, perm=[1, 0])

    def unit(self, x: str) -> str:
        """Rows divided by their length."""
        return self.add(
            "Div",
            x,
            self.add("Max", self.add("ReduceL2", x, self.ints(1), keepdims=1), self.number(1e-12)),
        )

    def linear(self, module: nn.Linear, x: str, *, wide: bool = False) -> str:
        """A layer's map of x; its weight is float16 where ``wide``, else the products are int8."""
        if wide:
            product = self.add("MatMul", x, self.transposed(self.half(module.weight)))
        else:
            product = self.product(module, x)
        return self.add("Add", product, self.single(module.bias))

    def product(self, module: nn.Linear, x: str) -> str:
        """x (..., inputs) times an int8 weight in whole numbers: (..., outputs).

        Each row of x gets a scale of its own, so that a row comes out the same whatever stands
        beside it. ONNX Runtime is quick where the left side is unsigned: 128 stands for 0.
        """
        weight, scale = self.quantised(module.weight)
        highest = self.add("ReduceMax", self.add("Abs", x), self.ints(-1), keepdims=1)
        step = self.add("Mul", self.add("Max", highest, self.number(1e-6)), self.number(1 / 127))
        # A cast cuts off, so that the half rounds.
        level = self.add("Add", self.add("Div", x, step), self.number(128.5))
        whole = self.add("Cast", level, to=TensorProto.UINT8)
        zero = self.constant(np.array(128, np.uint8))
        total = self.add("MatMulInteger", whole, self.transposed(weight), zero)
        scaled = self.add("Mul", self.add("Cast", total, to=TensorProto.FLOAT), step)
        return self.add("Mul", scaled, self.transposed(scale))

    def head(self, module: Head, x: str, *, wide: bool = False) -> str:
        """Unit rows of the shared space."""
        hidden = self.add("Gelu", self.linear(module.hidden, x, wide=wide))
        straight = self.linear(module.linear, x, wide=wide)
        return self.unit(self.add("Add", straight, self.linear(module.output, hidden, wide=wide)))

    def convolution(self, module: Convolution, x: str, *, wide: bool = True) -> str:
        """A layer's maps, cut at 0 and 6 unless it is linear."""
        convolution = module.convolution
        assert convolution.bias is not None
        before, after = (0, 1) if module.stride == 2 else (module.kernel // 2,) * 2
        x = self.add(
            "Conv",
            x,
            self.half(convolution.weight) if wide else self.eighth(convolution.weight),
            self.single(convolution.bias),
            strides=[module.stride] * 2,
            pads=[before, before, after, after],
            group=convolution.groups,
        )
        return x if module.linear else self.add("Clip", x, self.number(0.0), self.number(6.0))

    def model(
        self,
        inputs: list[onnx.ValueInfoProto],
        output: str,
        shape: Sequence[int | str],
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


def _array(weight: Tensor) -> Floats:
    values: Floats = weight.detach().cpu().float().numpy()
    return values


def quantise(values: Floats, axis: int | tuple[int, ...]) -> tuple[npt.NDArray[np.int8], Floats]:
    """Symmetric int8 values and their scales: the maximum over ``axis`` becomes 127."""
    scale = np.maximum(np.abs(values).max(axis=axis, keepdims=True) / 127.0, 1e-12).astype(
        np.float32
    )
    return np.rint(values / scale).astype(np.int8), scale


def sign(model: onnx.ModelProto, tower: Tower) -> onnx.ModelProto:
    """Say in the file which tower it is, so that ``reading`` can make it again."""
    facts = {"tower": type(tower).__name__, "arguments": json.dumps(tower.arguments)}
    helper.set_model_props(model, facts)
    return model


def write(model: onnx.ModelProto | bytes, path: Path) -> str:
    """Save a model, or what stands beside it, and return the SHA-256 of the file."""
    data = model if isinstance(model, bytes) else model.SerializeToString(deterministic=True)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()
