"""Texts: a BERT-shaped Transformer encoder (post-norm), mean pooling and a projection head."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsearch.training.towers.parts import DIM, Head, Tower


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


class TextTower(Tower):
    """Token ids to unit rows."""

    head: Head

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
        dim: int = DIM,
    ):
        super().__init__()
        self.arguments = {
            "vocabulary": vocabulary,
            "layers": layers,
            "width": width,
            "heads": heads,
            "inner": inner,
            "max_tokens": max_tokens,
            "hidden": hidden,
            "dim": dim,
        }
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(max_tokens, width) * 0.02)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(
            [TransformerLayer(width, heads, inner, dropout) for _ in range(layers)]
        )
        self.head = Head(width, hidden, dim)

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

    def features(self, *inputs: Tensor) -> Tensor:
        """ids, mask: (n, t) -> (n, width), see ``sentence``."""
        ids, mask = inputs
        return self.sentence(ids, mask)
