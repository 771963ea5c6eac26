"""Sounds to unit rows by way of a picture of them: loudness by mel band and time."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.encoders.runtime import Graph, a_call_a_core

if TYPE_CHECKING:
    from mmsearch.records import Samples, Vectors

_QUIETEST = 1e-10  # of a band's power, so that silence has a logarithm


class SoundTower:
    """`bands.npy` (frequencies, bands) and `audio.onnx` of a folder, as CLAP hears.

    A sound shorter than `samples` is repeated as often as it fits, and silence follows; of one
    that is longer, the row is the renormalised mean of those of its beginning and its end.
    """

    def __init__(self, folder: Path, samples: int, frame: int, hop: int, repeat: bool) -> None:
        self._folder, self._samples, self._frame, self._hop = folder, samples, frame, hop
        self._repeat = repeat

    def __call__(self, sounds: Sequence[Samples]) -> Vectors:
        """(n, dim) unit rows of at least one sound, a call of the graph each."""
        return a_call_a_core(self._row, sounds)

    @functools.cached_property
    def _graph(self) -> Graph:
        return Graph(self._folder / "audio.onnx", threads=1)  # calls are shared out, not layers

    @functools.cached_property
    def _bands(self) -> Any:
        return np.load(self._folder / "bands.npy", allow_pickle=False)

    def _row(self, sound: Samples) -> Vectors:
        ends = [sound[: self._samples], sound[-self._samples :]]
        parts = ends if len(sound) > self._samples else ends[:1]
        features = np.stack([self.features(part) for part in parts])
        rows: Vectors = np.asarray(self._graph(features=features), np.float32)
        if len(rows) == 1:
            return rows
        mean: Vectors = rows.sum(axis=0, keepdims=True)
        mean /= np.linalg.norm(mean)
        return mean

    def features(self, sound: Samples) -> Any:
        """(n,) samples, at most as many as are heard at a time -> (1, frames, bands) decibels."""
        if self._repeat:
            sound = np.tile(sound, self._samples // len(sound))
        sound = np.pad(sound, (0, self._samples - len(sound)))
        half = self._frame // 2
        whole = np.pad(sound.astype(np.float64), half, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(whole, self._frame)[:: self._hop]
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self._frame) / self._frame)  # Hann's
        power = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2
        return (10 * np.log10(np.maximum(power @ self._bands, _QUIETEST))).astype(np.float32)[None]
