"""Sounds: YAMNet's spectrogram and network, pooled over a clip, and a projection head.

The network is MobileNetV1 (Howard et al. 2017, arXiv 1704.04861) as TensorFlow's YAMNet uses it:
on patches of 0.975 s, each 96 frames of 64 mel bands. ``mmsearch.encoders.patches`` cuts them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mmsearch.encoders.patches import RATE
from mmsearch.training.towers.parts import DIM, Convolution, Head, Tower

AUDIO_FEATURES = 2048  # mean and maximum of 1,024 channels over a clip's patches

FRAME, HOP, TRANSFORM = 400, 160, 512  # samples: 25 ms, 10 ms, and what the FFT is padded to
BANDS, LOWEST, HIGHEST = 64, 125.0, 7500.0  # mel bands between these frequencies, in Hz
FLOOR = 0.001  # added before the logarithm

# (channels, stride) of each depthwise-separable block: table 1 of the paper.
BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *[(512, 1)] * 5,
    (1024, 2),
    (1024, 1),
)


def mel(frequency: Tensor) -> Tensor:
    """Frequencies in Hz on the mel scale, as HTK defines it."""
    return 1127.0 * torch.log1p(frequency / 700.0)


def mel_weights() -> Tensor:
    """(257, 64): how much of each FFT bin goes into each band; triangles, linear in mel."""
    bins = mel(torch.linspace(0, RATE / 2, TRANSFORM // 2 + 1, dtype=torch.float64))[:, None]
    lowest, highest = mel(torch.tensor([LOWEST, HIGHEST], dtype=torch.float64))
    edges = torch.linspace(lowest.item(), highest.item(), BANDS + 2, dtype=torch.float64)
    low, peak, high = edges[:-2], edges[1:-1], edges[2:]
    weights = torch.minimum((bins - low) / (peak - low), (high - bins) / (high - peak)).clamp(min=0)
    weights[0] = 0  # the constant part is no sound
    return weights.float()


class LogMel(nn.Module):
    """Logarithms of the mel bands of a patch."""

    window: Tensor
    weights: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Not saved: they are the same in every tower.
        self.register_buffer("window", torch.hann_window(FRAME, periodic=True), persistent=False)
        self.register_buffer("weights", mel_weights(), persistent=False)

    def forward(self, patches: Tensor) -> Tensor:
        """patches: (p, 15600) samples in -1 to 1 -> (p, 1, 96, 64)."""
        frames = patches.float().unfold(1, FRAME, HOP) * self.window  # (p, 96, 400)
        with torch.autocast(patches.device.type, enabled=False):  # near silence, float16 is 0
            magnitudes = torch.fft.rfft(frames, n=TRANSFORM).abs()  # (p, 96, 257)
            return torch.log(magnitudes @ self.weights + FLOOR)[:, None]

    def fourier(self) -> Tensor:
        """(2, 257, 400): the windowed cosines and sines that a frame is multiplied with."""
        # Whole turns are taken off as integers, so that the angles stay exact.
        turns = torch.outer(torch.arange(TRANSFORM // 2 + 1), torch.arange(FRAME)) % TRANSFORM
        angles = turns.double() * (2 * math.pi / TRANSFORM)
        return (torch.stack([angles.cos(), angles.sin()]) * self.window.double()).float()


class MobileNetV1(nn.Module):
    """MobileNetV1 1.0 on one channel up to its 1,024 feature maps, without the classifier."""

    def __init__(self) -> None:
        super().__init__()
        layers = [Convolution(1, 32, 3, 2)]
        inputs = 32
        for outputs, stride in BLOCKS:
            layers.append(Convolution(inputs, inputs, 3, stride, depthwise=True))
            layers.append(Convolution(inputs, outputs, 1))
            inputs = outputs
        self.layers = nn.Sequential(*layers)

    def convolutions(self) -> list[Convolution]:
        """Every convolution, in the order in which a spectrogram passes them."""
        return [layer for layer in self.layers if isinstance(layer, Convolution)]

    def forward(self, spectrograms: Tensor) -> Tensor:
        """(p, 1, 96, 64) -> pooled features (p, 1024), not negative."""
        return self.late(spectrograms, 0)

    def late(self, maps: Tensor, first: int) -> Tensor:
        """Pooled features (p, 1024) from the maps that enter layer ``first`` of the 27."""
        for layer in list(self.layers)[first:]:
            maps = layer(maps)
        return maps.float().mean((2, 3))


def pool(features: Tensor, owners: Tensor) -> Tensor:
    """Mean and maximum over the patches of each clip.

    features: (p, channels); owners: (p,) the clip of each patch, from 0, none left out.
    Returns (clips, 2 * channels).
    """
    counts = torch.bincount(owners)
    shape = (len(counts), features.shape[1])
    rows = owners[:, None].expand_as(features)
    total = features.new_zeros(shape).scatter_add(0, rows, features)
    highest = features.new_zeros(shape).scatter_reduce(
        0, rows, features, "amax", include_self=False
    )
    return torch.cat([total / counts[:, None], highest], dim=1)


class AudioTower(Tower):
    """Clips to unit rows. A clip comes as its patches, and several clips as all their patches."""

    head: Head

    def __init__(self, hidden: int = 512, dropout: float = 0.0, dim: int = DIM):
        super().__init__()
        self.arguments = {"hidden": hidden, "dim": dim}
        self.log_mel = LogMel()
        self.backbone = MobileNetV1()
        self.head = Head(AUDIO_FEATURES, hidden, dim, dropout)

    def features(self, *inputs: Tensor) -> Tensor:
        """patches: (p, 15600); owners: (p,) the clip of each -> (clips, 2048), mean and maximum."""
        patches, owners = inputs
        return pool(self.backbone(self.log_mel(patches)), owners)
