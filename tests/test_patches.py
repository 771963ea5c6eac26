"""Patches of a sound: cut as a loop would, and none of it lost."""

from __future__ import annotations

import numpy as np
import pytest

from mmsearch.encoders.patches import HOP, PATCH, cut_patches


def ramp(length):
    """Samples that tell where they stood: 1, 2, 3, ..."""
    return np.arange(1, length + 1, dtype=np.float32)


@pytest.mark.parametrize(
    ("length", "starts"),
    [
        (PATCH, [0]),
        (PATCH + 1, [0, 1]),
        (PATCH + HOP, [0, HOP]),
        (PATCH + HOP + 5, [0, HOP, HOP + 5]),
        (80_000, [*range(0, 64_000, HOP), 64_400]),  # 5 s
    ],
)
def test_patches_start_every_hop_and_the_last_ends_with_the_sound(length, starts):
    """A tail that does not fill a hop gets a last patch that ends where the sound does."""
    patches = cut_patches(ramp(length))
    assert patches.shape == (len(starts), PATCH)
    assert patches.dtype == np.float32
    for patch, start in zip(patches, starts, strict=True):
        assert (patch == np.arange(start + 1, start + PATCH + 1)).all()


@pytest.mark.parametrize("length", [0, 1, 7_000, PATCH - 1])
def test_a_sound_shorter_than_a_patch_is_followed_by_silence(length):
    """One patch: the samples as they are, then zeros."""
    (patch,) = cut_patches(ramp(length))
    assert (patch[:length] == ramp(length)).all()
    assert patch.shape == (PATCH,)
    assert not patch[length:].any()
