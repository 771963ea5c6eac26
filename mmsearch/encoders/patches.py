"""Cutting a sound into the patches that the audio tower reads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATE = 16_000  # samples a second
PATCH = 15_600  # samples: 0.975 s
HOP = 7_800


def cut_patches(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,) samples at 16 kHz -> (p, 15600) overlapping patches that cover all of them.

    A sound shorter than a patch is padded with zeros; the last patch ends where the sound ends.
    """
    samples = np.asarray(samples, np.float32)
    if len(samples) <= PATCH:
        return np.pad(samples, (0, PATCH - len(samples)))[None]
    starts = np.arange(0, len(samples) - PATCH + 1, HOP)
    if starts[-1] + PATCH < len(samples):
        starts = np.append(starts, len(samples) - PATCH)
    patches: NDArray[np.float32] = samples[starts[:, None] + np.arange(PATCH)]
    return patches
