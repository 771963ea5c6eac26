"""What makes a network of another library a tower of ours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsearch.training.towers import Tower


class Projection(nn.Module):
    """A square linear map that starts as no map at all: a head for features that had none."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim
        self.weight = nn.Parameter(torch.eye(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(n, dim) -> (n, dim) unit rows."""
        return F.normalize(x @ self.weight.T, dim=-1)


class Pictures(Tower):
    """An image network: ``trunk`` has rows of features for normalised pixels."""

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        trunk: nn.Module,
        head: nn.Module,
        size: int,
        mean: Sequence[float],
        deviation: Sequence[float],
    ):
        super().__init__()
        self.trunk, self.head, self.size = trunk, head, size
        for name, values in (("mean", mean), ("deviation", deviation)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def features(self, *inputs: Tensor) -> Tensor:
        """pixels: (n, 3, size, size), 0 to 255 -> (n, features)."""
        (pixels,) = inputs
        out: Tensor = self.trunk((pixels / 255 - self.mean) / self.deviation)
        return out


class Texts(Tower):
    """A text network that was trained on texts of one length, padding included."""

    def __init__(self, trunk: nn.Module, head: nn.Module, context: int, pad_id: int):
        super().__init__()
        self.trunk, self.head = trunk, head
        self.context, self.pad_id = context, pad_id

    def features(self, *inputs: Tensor) -> Tensor:
        """ids, mask: (n, t), t not above ``context`` -> (n, features)."""
        ids, mask = inputs
        ids = ids.masked_fill(mask == 0, self.pad_id)
        ids = F.pad(ids, (0, self.context - ids.shape[1]), value=self.pad_id)
        out: Tensor = self.trunk(ids)
        return out
