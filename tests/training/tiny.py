"""A dual encoder small enough to train in a test: the mean colours of a picture, a bag of words.

Its pictures are 8 x 8, its sounds a tenth of a second; a word has the row of its first letters.
"""

from __future__ import annotations

import json

import numpy as np
import torch
from torch import nn

from mmsearch.records import AudioInput, ImageInput, Modality
from mmsearch.training.towers import LogitScale

WIDTH = 24
DIM = 8


class TinyTower(nn.Module):
    """Features by one linear map and a non-linearity, and a head."""

    def __init__(self, inputs, dropout):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, WIDTH), nn.GELU(), nn.Dropout(dropout))
        self.head = nn.Linear(WIDTH, DIM)


class TinyEncoder(nn.Module):
    """See DualEncoder."""

    image_input = ImageInput(size=8)
    audio_input = AudioInput(rate=8000, window=0.1)

    def __init__(self, dropout=0.1):
        super().__init__()
        self.towers = nn.ModuleDict(
            {
                "image": TinyTower(8 * 8 * 3, dropout),
                "text": TinyTower(64, dropout),
                "audio": TinyTower(401, dropout),
            }
        )
        self.logit_scale = LogitScale()

    def collate(self, kind, batch):
        """Numbers for a list of pixels, waves or texts."""
        return (torch.from_numpy(np.stack([INPUT[kind](item) for item in batch])),)

    def features(self, kind, inputs):
        """(n, 24)."""
        return self.towers[kind].body(*inputs)

    def head(self, kind, features):
        """(n, 8) unit rows."""
        return nn.functional.normalize(self.towers[kind].head(features), dim=-1)

    def export(self, folder, name, facts):
        """Weights as JSON: enough to see that all is there."""
        card = {"name": name, **facts}
        (folder / "text.onnx").write_bytes(b"weights")
        (folder / "model.json").write_text(json.dumps(card))


def _pixels(pixels):
    return pixels.astype(np.float32).ravel() / 127.5 - 1


def _words(text):
    row = np.zeros(64, np.float32)
    for word in text.split():
        row[sum(word.encode()) % 64] += 1
    return row / max(np.linalg.norm(row), 1)


def _spectrum(wave):
    return np.log1p(np.abs(np.fft.rfft(np.resize(wave, 800)))).astype(np.float32)


INPUT = {Modality.IMAGE: _pixels, Modality.TEXT: _words, Modality.AUDIO: _spectrum}


def start(init):
    """See mmsearch.training.dual.start."""
    return TinyEncoder(dropout=0.0 if init == "tiny-sober" else 0.1)
