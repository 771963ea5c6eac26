"""Halves of other libraries' networks as an encoder calls them: plain inputs, unit rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import TextTransformer, text_global_pool
from torch import Tensor, nn


class PictureRows(nn.Module):
    """A network for normalised pixels, from pixels as they are."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], deviation: Sequence[float]):
        super().__init__()
        self.network = network
        for name, values in (("mean", mean), ("deviation", deviation)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels: (n, size, size, 3) uint8 -> (n, dim) unit rows."""
        x = pixels.permute(0, 3, 1, 2).to(self.mean.dtype) / 255
        return F.normalize(self.network((x - self.mean) / self.deviation), dim=-1)


class TextRows(nn.Module):
    """A text network that was trained on texts of one length, padding included."""

    def __init__(self, network: Any, context: int, pad_id: int):
        super().__init__()
        self.network, self.context, self.pad_id = network, context, pad_id

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids, mask: (n, t), t not above the context -> (n, dim) unit rows."""
        ids = ids.masked_fill(mask == 0, self.pad_id)
        ids = F.pad(ids, (0, self.context - ids.shape[1]), value=self.pad_id)
        return F.normalize(self.network(ids), dim=-1)


class CausalTextRows(TextRows):
    """One whose tokens see only what stands before them, and whose row is that of the token which
    ends a text: what comes after it changes nothing, and is left out.
    """

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """See TextRows; the same rows, for t tokens in place of the whole context."""
        ids = ids.masked_fill(mask == 0, self.pad_id)
        text, t = self.network, ids.shape[1]
        x = text.token_embedding(ids) + text.positional_embedding[:t]
        x = text.ln_final(text.transformer(x, attn_mask=text.attn_mask[:t, :t]))
        row = text_global_pool(x, ids, pool_type=text.pool_type, eos_token_id=text.eos_id)
        if isinstance(text.text_projection, nn.Linear):
            row = text.text_projection(row)
        elif text.text_projection is not None:
            row = row @ text.text_projection
        return F.normalize(row, dim=-1)


class Attention(nn.Module):
    """torch's MultiheadAttention of a sequence to itself, written so that it can be traced for
    any length: the same weights, the same sums.
    """

    def __init__(self, own: nn.MultiheadAttention):
        super().__init__()
        assert own.batch_first and own.in_proj_weight is not None
        self.own, self.heads = own, own.num_heads

    def forward(
        self, x: Tensor, _keys: Tensor, _values: Tensor, *, attn_mask: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, None]:  # fmt: skip
        """x: (n, t, width); attn_mask: (t, t), added to the logits."""
        parts = F.linear(x, self.own.in_proj_weight, self.own.in_proj_bias).chunk(3, dim=-1)
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts
        )  # (n, heads, t, width / heads)
        logits = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
        if attn_mask is not None:
            logits = logits + attn_mask
        out = (logits.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)
        return self.own.out_proj(out), None


def text_rows(network: Any, context: int, pad_id: int) -> TextRows:
    """The half for texts, that stops where the text does if it may."""
    stops = (
        isinstance(network, TextTransformer)
        and network.attn_mask is not None
        and network.cls_emb is None
        and network.pool_type in ("argmax", "eos")
    )
    if isinstance(network, TextTransformer):
        for block in network.transformer.resblocks:
            if isinstance(block.attn, nn.MultiheadAttention):
                block.attn = Attention(block.attn)
    return (CausalTextRows if stops else TextRows)(network, context, pad_id)
