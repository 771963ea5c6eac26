"""Texts to unit rows: a tokenizer and a graph."""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.encoders.runtime import Graph, a_call_a_core

if TYPE_CHECKING:
    from mmsearch.records import Vectors

# What ftfy and HTML have nothing to say to: most queries.
_PLAIN = re.compile(r"[\t\n\r\x20-\x25\x27-\x7e]*")


class TextTower:
    """`tokenizer.json` and `text.onnx` of a folder.

    A text longer than `max_tokens` is the renormalised mean of its windows, each as long as the
    tower reads, with the marks of begin and end around it: the row of a text that fits is that of
    the first window, as the model's own pipeline, which cuts, has it. `together` texts are read in
    one call. `repaired` texts are first cleaned as open_clip does, wrongly decoded ones put right.
    The first `few` texts of a process are read by the graph as it lies on the disk: rearranging
    the weights of a large one takes longer than a query does.
    """

    def __init__(
        self, folder: Path, max_tokens: int, pad_id: int, *, together: int, repaired: bool = False,
        few: int = 0,
    ) -> None:  # fmt: skip
        self._left = few
        self._folder, self._max_tokens, self._pad_id = folder, max_tokens, pad_id
        self._together, self._repaired = together, repaired

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """(n, dim) unit rows of at least one text."""
        self._left -= len(texts)
        # as long as one another: a call takes as long as its longest text, times their number
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        parts = [order[s : s + self._together] for s in range(0, len(order), self._together)]
        found = a_call_a_core(lambda part: self._rows([texts[at] for at in part]), parts)
        rows = np.empty_like(found)
        rows[order] = found
        return rows

    @functools.cached_property
    def _graph(self) -> Graph:
        return Graph(self._folder / "text.onnx", threads=1)  # calls are shared out, not layers

    @functools.cached_property
    def _graph_as_it_is(self) -> Graph:
        return Graph(self._folder / "text.onnx", threads=1, prepared=False)

    @functools.cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
        tokenizer.enable_truncation(self._max_tokens)
        tokenizer.enable_padding(pad_id=self._pad_id)
        return tokenizer

    def _rows(self, texts: Sequence[str]) -> Vectors:
        whole = self._tokenizer.encode_batch(
            [repaired(text) for text in texts] if self._repaired else list(texts)
        )
        windows = [
            (row, part) for row, first in enumerate(whole) for part in (first, *first.overflowing)
        ]
        width = max(1, *(sum(part.attention_mask) for _, part in windows))
        ids = np.full((len(windows), width), self._pad_id, np.int64)
        mask = np.zeros((len(windows), width), np.int64)
        for line, (_, part) in enumerate(windows):
            said = sum(part.attention_mask)
            ids[line, :said], mask[line, :said] = part.ids[:said], 1
        graph = self._graph if self._left < 0 else self._graph_as_it_is
        rows = np.asarray(graph(ids=ids, mask=mask), np.float32)  # (windows, dim)
        if len(windows) == len(whole):
            return rows
        sums = np.zeros((len(whole), rows.shape[1]), np.float32)
        np.add.at(sums, [row for row, _ in windows], rows)
        sums /= np.linalg.norm(sums, axis=1, keepdims=True)
        return sums


def repaired(text: str) -> str:
    """What open_clip makes of a text before anything else: wrongly decoded letters put right
    (by ftfy, where it is installed), entities of HTML replaced.
    """
    if _PLAIN.fullmatch(text):
        return text
    try:
        from ftfy import fix_text
    except ImportError:  # the tokenizer's own rules know the commonest of its repairs
        pass
    else:
        text = fix_text(text)
    return html.unescape(html.unescape(text))
