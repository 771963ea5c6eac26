"""Make a data folder for rclip whose image tower has its architecture and random weights.

    python benchmarks/peer_weights.py FOLDER        # needs numpy and onnx

rclip 3.3 runs ViT-B/32 at 256 pixels (12 blocks of width 768, 12 heads, 65 tokens, 512
dimensions out) under ONNX Runtime in fp32. Its speed does not depend on what the weights
are. The text tower and the vocabulary are empty files: indexing only asks that they exist.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH, HEADS, BLOCKS, PATCH, SIZE, OUT = 768, 12, 12, 32, 256, 512
TOKENS = (SIZE // PATCH) ** 2 + 1


class Tower:
    """Collects nodes and weights; every method gives the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(0)

    def node(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, *shape: int) -> str:
        values = self._random.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
        return self.constant(values)

    def norm(self, x: str) -> str:
        scale, shift = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)
        return self.node("LayerNormalization", x, self.constant(scale), self.constant(shift))

    def linear(self, x: str, inner: int, outer: int) -> str:
        return self.node(
            "Add", self.node("MatMul", x, self.weight(inner, outer)), self.weight(outer)
        )

    def shaped(self, x: str, *shape: int) -> str:
        return self.node("Reshape", x, self.constant(np.array(shape, np.int64)))

    def block(self, x: str) -> str:
        """(n, tokens, width) in and out: attention, then two layers with GELU between."""
        joint = self.linear(self.norm(x), WIDTH, 3 * WIDTH)
        heads = self.shaped(joint, 0, TOKENS, 3, HEADS, WIDTH // HEADS)
        heads = self.node("Transpose", heads, perm=[2, 0, 3, 1, 4])  # (3, n, heads, tokens, 64)
        q, k, v = (
            self.node("Gather", heads, self.constant(np.array(part, np.int64)), axis=0)
            for part in range(3)
        )
        q = self.node("Mul", q, self.constant(np.array((WIDTH // HEADS) ** -0.5, np.float32)))
        scores = self.node("MatMul", q, self.node("Transpose", k, perm=[0, 1, 3, 2]))
        mixed = self.node("MatMul", self.node("Softmax", scores, axis=-1), v)
        mixed = self.shaped(self.node("Transpose", mixed, perm=[0, 2, 1, 3]), 0, TOKENS, WIDTH)
        x = self.node("Add", x, self.linear(mixed, WIDTH, WIDTH))
        wide = self.node("Gelu", self.linear(self.norm(x), WIDTH, 4 * WIDTH))
        return self.node("Add", x, self.linear(wide, 4 * WIDTH, WIDTH))


def image_tower() -> onnx.ModelProto:
    """`input` (n, 3, 256, 256) float32 -> `output` (n, 512)."""
    tower = Tower()
    x = tower.node("Conv", "input", tower.weight(WIDTH, 3, PATCH, PATCH), strides=[PATCH, PATCH])
    x = tower.node("Transpose", tower.shaped(x, 0, WIDTH, TOKENS - 1), perm=[0, 2, 1])
    # the class token in front: the first row again, which costs the same
    one = [tower.constant(np.array([at], np.int64)) for at in (0, 1)]
    x = tower.node("Concat", tower.node("Slice", x, *one, one[1]), x, axis=1)
    x = tower.norm(tower.node("Add", x, tower.weight(TOKENS, WIDTH)))
    for _ in range(BLOCKS):
        x = tower.block(x)
    x = tower.node("Gather", tower.norm(x), tower.constant(np.array(0, np.int64)), axis=1)
    last = tower.node("MatMul", x, tower.weight(WIDTH, OUT))
    tower.nodes[-1].output[0] = "output"
    assert last != "output"
    graph = helper.make_graph(
        tower.nodes,
        "vit-b-32-256",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", OUT])],
        tower.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    model = folder / "ViT-B-32-256-datacomp_s34b_b86k"
    (folder / "tokenizer").mkdir(parents=True, exist_ok=True)
    model.mkdir(exist_ok=True)
    onnx.save(image_tower(), str(model / "visual.onnx"))
    (model / "textual.onnx").touch()
    (folder / "tokenizer" / "bpe_simple_vocab_16e6.txt.gz").touch()
