"""The two towers of a built-in model, in plain PyTorch.

``ImageTower``: MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381) and a projection head.
``TextTower``: a BERT-shaped Transformer encoder (post-norm), mean pooling and a projection head.

Both end in unit rows of one shared space. Their start weights come from teachers under Apache-2.0:
``mobilenet_from_tflite`` dequantises an int8 TensorFlow Lite file, ``minilm`` reads
all-MiniLM-L6-v2, and ``student_of`` keeps some of a teacher's layers and vocabulary.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

DIM = 256  # of the shared space
FEATURES = 1280  # of MobileNetV2's pooled features

# (expansion, channels, repeats, stride) of each run of inverted residual blocks: table 2 of the
# paper.
BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class Convolution(nn.Module):
    """A convolution with a bias (its batch norm is folded in) and, unless it is linear, ReLU6.

    Stride 2 pads as TensorFlow's 'same' does on even sizes: nothing before, one row and column
    after.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        *,
        depthwise: bool = False,
        linear: bool = False,
    ):
        super().__init__()
        self.stride, self.linear = stride, linear
        self.kernel = kernel
        padding = kernel // 2 if stride == 1 else 0
        groups = inputs if depthwise else 1
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, height, width) -> (n, outputs, height / stride, width / stride)."""
        if self.stride == 2:
            x = F.pad(x, (0, 1, 0, 1))
        x = self.convolution(x)
        return x if self.linear else F.relu6(x)


class InvertedResidual(nn.Module):
    """Expand with a 1x1 convolution, filter each channel with a 3x3 one, project back linearly."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int):
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        layers = [Convolution(inputs, hidden, 1)] if expansion != 1 else []
        layers.append(Convolution(hidden, hidden, 3, stride, depthwise=True))
        layers.append(Convolution(hidden, outputs, 1, linear=True))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, height, width) -> (n, outputs, height / stride, width / stride)."""
        out: Tensor = self.layers(x)
        return x + out if self.residual else out


class MobileNetV2(nn.Module):
    """MobileNetV2 1.0 up to its 1280 feature maps, without the classifier."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [Convolution(3, 32, 3, 2)]
        inputs = 32
        for expansion, outputs, repeats, stride in BLOCKS:
            for repeat in range(repeats):
                layers.append(
                    InvertedResidual(inputs, outputs, stride if repeat == 0 else 1, expansion)
                )
                inputs = outputs
        layers.append(Convolution(inputs, FEATURES, 1))
        self.layers = nn.Sequential(*layers)

    def convolutions(self) -> list[Convolution]:
        """Every convolution, in the order in which a picture passes them."""
        return [module for module in self.modules() if isinstance(module, Convolution)]

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels: (n, 3, 224, 224), 0 to 255 -> pooled features (n, 1280), not negative."""
        # The teacher's input is quantised with scale 1/127.5 and zero point 127.
        return self.late((pixels - 127.0) / 127.5, 0)

    def late(self, maps: Tensor, first: int) -> Tensor:
        """Pooled features (n, 1280) from the maps that enter layer ``first`` of the 19."""
        for layer in list(self.layers)[first:]:
            maps = layer(maps)
        return maps.float().mean((2, 3))


class Head(nn.Module):
    """A projection into the shared space: a linear map plus a correction by one hidden layer."""

    def __init__(self, inputs: int, hidden: int, dim: int = DIM, dropout: float = 0.0):
        super().__init__()
        self.linear = nn.Linear(inputs, dim)
        self.hidden = nn.Linear(inputs, hidden)
        self.output = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs) -> (n, dim) unit rows."""
        x = self.dropout(x)
        out = self.linear(x) + self.output(self.dropout(F.gelu(self.hidden(x))))
        return F.normalize(out, dim=-1)


class ImageTower(nn.Module):
    """Pictures to unit rows."""

    def __init__(self, hidden: int = 512, dropout: float = 0.0):
        super().__init__()
        self.backbone = MobileNetV2()
        self.head = Head(FEATURES, hidden, dropout=dropout)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels: (n, 3, 224, 224), 0 to 255 -> (n, 256) unit rows."""
        return self.embed(self.backbone(pixels))

    def embed(self, features: Tensor) -> Tensor:
        """features: (n, 1280) pooled -> (n, 256) unit rows."""
        out: Tensor = self.head(features)
        return out


class TransformerLayer(nn.Module):
    """One post-norm layer of BERT: self-attention and a feed-forward net, added and normalised."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float = 0.0):
        super().__init__()
        self.heads = heads
        self.dropout = nn.Dropout(dropout)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_output = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=1e-12)
        self.inner = nn.Linear(width, inner)
        self.output = nn.Linear(inner, width)
        self.output_norm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x: (n, t, width); mask: (n, t), true for real tokens -> (n, t, width)."""
        n, t, width = x.shape
        parts = self.query_key_value(x).view(n, t, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each (n, heads, t, width / heads)
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask[:, None, None, :]
        )
        attended = attended.transpose(1, 2).reshape(n, t, width)
        x = self.attention_norm(x + self.dropout(self.attention_output(attended)))
        out: Tensor = self.output_norm(x + self.dropout(self.output(F.gelu(self.inner(x)))))
        return out


class TextTower(nn.Module):
    """Token ids to unit rows."""

    def __init__(
        self,
        vocabulary: int,
        layers: int,
        width: int = 384,
        heads: int = 12,
        inner: int = 1536,
        max_tokens: int = 64,
        hidden: int = 512,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(max_tokens, width) * 0.02)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(
            [TransformerLayer(width, heads, inner, dropout) for _ in range(layers)]
        )
        self.head = Head(width, hidden)

    def sentence(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The mean of the last layer over real tokens, before the head.

        ids, mask: (n, t) integers; mask is 1 for real tokens.
        Returns (n, width) unit rows.
        """
        real = mask.bool()
        x = self.norm(self.tokens(ids) + self.positions[: ids.shape[1]])
        for layer in self.layers:
            x = layer(x, real)
        weights = mask.to(torch.float32)[:, :, None]
        return F.normalize((x.float() * weights).sum(1) / weights.sum(1), dim=-1)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids, mask: (n, t) -> (n, 256) unit rows."""
        return self.embed(self.sentence(ids, mask))

    def embed(self, sentences: Tensor) -> Tensor:
        """sentences: (n, width) unit rows -> (n, 256) unit rows."""
        out: Tensor = self.head(sentences)
        return out


def mobilenet_from_tflite(path: Path) -> tuple[MobileNetV2, Tensor, Tensor]:
    """Dequantise MobileNetV2 from an int8 TensorFlow Lite file.

    Returns the network, and the classifier's weight (1001, 1280) and bias (1001,); row 0 is
    'background'.
    """
    from ai_edge_litert.interpreter import Interpreter

    # Without the default delegate the constant tensors stay readable.
    interpreter: Any = Interpreter(str(path))
    constants: list[tuple[Tensor, Tensor]] = []  # (weight, bias) of each convolution in order
    details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}

    def real(index: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        quantised = interpreter.get_tensor(index).astype(np.float32)
        parameters = details[index]["quantization_parameters"]
        shape = [1] * quantised.ndim
        shape[parameters["quantized_dimension"]] = -1
        zero = parameters["zero_points"].reshape(shape).astype(np.float32)
        values: np.ndarray[Any, np.dtype[np.float32]] = (quantised - zero) * parameters[
            "scales"
        ].reshape(shape)
        return values

    for operation in interpreter._get_ops_details():
        if operation["op_name"] not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            continue
        _, weight, bias = operation["inputs"]
        axes = (0, 3, 1, 2) if operation["op_name"] == "CONV_2D" else (3, 0, 1, 2)
        constants.append(
            (torch.from_numpy(real(weight).transpose(axes).copy()), torch.from_numpy(real(bias)))
        )

    network = MobileNetV2()
    *backbone, (weight, bias) = constants
    with torch.no_grad():
        for module, (start, offset) in zip(network.convolutions(), backbone, strict=True):
            assert module.convolution.bias is not None
            module.convolution.weight.copy_(start)
            module.convolution.bias.copy_(offset)
    return network, weight.flatten(1), bias


def minilm(folder: Path) -> TextTower:
    """The teacher of texts, all-MiniLM-L6-v2; use ``sentence``, for its head is untrained."""
    from safetensors.torch import load_file

    saved = {
        name.removeprefix("bert."): value.float()
        for name, value in load_file(folder / "model.safetensors").items()
    }
    tower = TextTower(saved["embeddings.word_embeddings.weight"].shape[0], layers=6, max_tokens=512)
    state = tower.state_dict()

    def put(ours: str, theirs: str) -> None:
        for part in ("weight", "bias"):
            state[f"{ours}.{part}"] = saved[f"{theirs}.{part}"]

    state["tokens.weight"] = saved["embeddings.word_embeddings.weight"]
    # Every token has type 0 here, so its vector is part of the position's.
    state["positions"] = (
        saved["embeddings.position_embeddings.weight"]
        + saved["embeddings.token_type_embeddings.weight"][0]
    )
    put("norm", "embeddings.LayerNorm")
    for i in range(6):
        ours, theirs = f"layers.{i}", f"encoder.layer.{i}"
        for part in ("weight", "bias"):
            parts = [
                saved[f"{theirs}.attention.self.{name}.{part}"]
                for name in ("query", "key", "value")
            ]
            state[f"{ours}.query_key_value.{part}"] = torch.cat(parts)
        put(f"{ours}.attention_output", f"{theirs}.attention.output.dense")
        put(f"{ours}.attention_norm", f"{theirs}.attention.output.LayerNorm")
        put(f"{ours}.inner", f"{theirs}.intermediate.dense")
        put(f"{ours}.output", f"{theirs}.output.dense")
        put(f"{ours}.output_norm", f"{theirs}.output.LayerNorm")
    tower.load_state_dict(state)
    return tower.eval()


def student_of(
    teacher: TextTower,
    layers: tuple[int, ...],
    token_ids: list[int],
    max_tokens: int,
    dropout: float = 0.0,
) -> TextTower:
    """A smaller text tower that starts from some of a teacher's layers and tokens.

    token_ids: the teacher's id of each of the student's tokens.
    """
    student = TextTower(len(token_ids), len(layers), max_tokens=max_tokens, dropout=dropout)
    with torch.no_grad():
        student.tokens.weight.copy_(teacher.tokens.weight[token_ids])
        student.positions.copy_(teacher.positions[:max_tokens])
        student.norm.load_state_dict(teacher.norm.state_dict())
        for ours, theirs in enumerate(layers):
            student.layers[ours].load_state_dict(teacher.layers[theirs].state_dict())
    return student


class LogitScale(nn.Module):
    """The learnable inverse temperature of CLIP, a logarithm, clamped to at most ``maximum``."""

    def __init__(self, start: float = 1 / 0.07, maximum: float = 100.0):
        super().__init__()
        self.logarithm = nn.Parameter(torch.tensor(math.log(start)))
        self.maximum = maximum

    def forward(self) -> Tensor:
        """A scalar, not above the maximum."""
        return self.logarithm.clamp(max=math.log(self.maximum)).exp()
