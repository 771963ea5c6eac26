"""What several towers are made of."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DIM = 256  # of the shared space


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


class Head(nn.Module):
    """A projection into the shared space: a linear map plus a correction by one hidden layer."""

    def __init__(self, inputs: int, hidden: int, dim: int = DIM, dropout: float = 0.0):
        super().__init__()
        self.dim = dim
        self.linear = nn.Linear(inputs, dim)
        self.hidden = nn.Linear(inputs, hidden)
        self.output = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs) -> (n, dim) unit rows."""
        x = self.dropout(x)
        out = self.linear(x) + self.output(self.dropout(F.gelu(self.hidden(x))))
        return F.normalize(out, dim=-1)


class Tower(nn.Module, ABC):
    """One modality's way into the space, in two halves: inputs to features, features to unit rows.

    So a head can be trained on features that were computed once. ``arguments``, values that JSON
    has, make another tower of this shape.
    """

    arguments: dict[str, Any]
    head: Any  # a module from features to unit rows, which says of how many numbers: ``dim``

    @abstractmethod
    def features(self, *inputs: Tensor) -> Tensor:
        """One row of features an item, (n, features)."""

    def embed(self, features: Tensor) -> Tensor:
        """(n, features) -> (n, dim) unit rows."""
        out: Tensor = self.head(features)
        return out

    def forward(self, *inputs: Tensor) -> Tensor:
        """(n, dim) unit rows."""
        return self.embed(self.features(*inputs))


class LogitScale(nn.Module):
    """The learnable inverse temperature of CLIP, a logarithm, clamped to at most ``maximum``."""

    def __init__(self, start: float = 1 / 0.07, maximum: float = 100.0):
        super().__init__()
        self.logarithm = nn.Parameter(torch.tensor(math.log(start)))
        self.maximum = maximum

    def forward(self) -> Tensor:
        """A scalar, not above the maximum."""
        return self.logarithm.clamp(max=math.log(self.maximum)).exp()
