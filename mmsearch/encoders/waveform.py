"""Sounds to unit rows from their samples as they are."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmsearch.encoders.runtime import Graph, a_call_a_core

if TYPE_CHECKING:
    from mmsearch.records import Samples, Vectors


class WaveformTower:
    """`audio.onnx` of a folder, for sounds of any length, as PE-AV hears: the end of one is
    mirrored until it is a multiple of `hop` samples.
    """

    def __init__(self, folder: Path, hop: int) -> None:
        self._folder, self._hop = folder, hop

    def __call__(self, sounds: Sequence[Samples]) -> Vectors:
        """(n, dim) unit rows of at least one sound, a call of the graph each."""
        return a_call_a_core(self._row, sounds)

    @functools.cached_property
    def _graph(self) -> Graph:
        return Graph(self._folder / "audio.onnx", threads=1)  # calls are shared out, not layers

    def _row(self, sound: Samples) -> Vectors:
        whole = np.pad(sound, (0, -len(sound) % self._hop), mode="reflect")
        row: Vectors = np.asarray(self._graph(samples=whole[None]), np.float32)
        return row
