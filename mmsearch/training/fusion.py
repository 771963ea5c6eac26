"""One row for an item that has several modalities: a photo and its caption."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmsearch.errors import UsageError
from mmsearch.training.towers import Head


class Fusion(nn.Module):
    """Projections of each modality, their sum, and a correction by one hidden layer.

    For the modalities m that an item has, with rows x_m,

        normalise( a + sum of A_m x_m  +  c + C gelu( b + sum of B_m x_m ) )

    which is a ``Head`` over the rows side by side, zeros for those that are absent. A_m starts as
    the identity where x_m has the width ``dim``, and C at zero: an untrained fusion of towers that
    share a space is the mean of their rows. It trains by the losses of the towers, as one more
    modality: {"item": fusion(rows), "query": ...}.
    """

    def __init__(self, widths: Mapping[str, int], dim: int, hidden: int = 512):
        """widths: of the rows of each modality; dim: of the fused rows."""
        super().__init__()
        self.widths = dict(widths)
        self.head = Head(sum(widths.values()), hidden, dim)
        with torch.no_grad():
            for projection in torch.split(self.head.linear.weight, list(widths.values()), dim=1):
                if projection.shape[1] == dim:
                    projection.copy_(torch.eye(dim))
        nn.init.zeros_(self.head.output.weight)
        for bias in (self.head.linear.bias, self.head.output.bias):
            nn.init.zeros_(bias)

    def forward(
        self, rows: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """The fused rows of n items, (n, dim) unit rows.

        rows: (n, width) of each modality that any of the items has; present: (n,) booleans of each
        modality that some of them lack, whose rows may hold anything there. Raises UsageError for
        no modality, or one that the fusion was not made for.
        """
        if not rows or not rows.keys() <= self.widths.keys():
            raise UsageError(f"this fusion takes {list(self.widths)}, not {list(rows)}")
        some = next(iter(rows.values()))
        parts = []
        for name, width in self.widths.items():
            part = rows[name] if name in rows else some.new_zeros(len(some), width)
            if present is not None and name in present:
                part = part.masked_fill(~present[name][:, None], 0.0)
            parts.append(part)
        fused: Tensor = self.head(torch.cat(parts, dim=1))
        return fused
