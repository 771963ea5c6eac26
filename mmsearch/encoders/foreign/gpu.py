"""A tower for pictures on a GPU, in half precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from mmsearch.encoders.foreign import hub
from mmsearch.encoders.openvino import LEAST, drawn
from mmsearch.errors import ModelError
from mmsearch.records import Modality

if TYPE_CHECKING:
    from mmsearch.records import Pixels, Vectors


class GpuImages:
    """A module from pixels to unit rows, on a device. What torch raises there is not translated:
    `mmsearch.encoders.batches` knows it, takes fewer pictures at a time, or the CPU.
    """

    def __init__(
        self, module: nn.Module, device: str = "cuda", dtype: torch.dtype = torch.float16
    ) -> None:
        self._module = module.eval().to(device=device, dtype=dtype)
        self._device = device

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Pixels]) -> Vectors:
        """(n, dim) float32 unit rows of (size, size, 3) pictures."""
        pixels = torch.from_numpy(np.stack(pictures)).to(self._device)
        found: Vectors = self._module(pixels).float().cpu().numpy()
        return found


def on_gpu(name: str, size: int, exact: Callable[[Sequence[Pixels]], Vectors]) -> GpuImages | None:
    """The tower for pictures of a model, on the GPU. None where there is none that torch can use,
    where the weights are no longer here, and where its rows differ from the `exact` ones.
    """
    from mmsearch.encoders.foreign import exporting

    if not torch.cuda.is_available():
        return None
    with suppress(ModelError, RuntimeError), hub.fetching(False):  # the latter of the driver
        images = GpuImages(exporting.load(name).towers[Modality.IMAGE].module)
        pictures = drawn(size)
        if float((images(pictures) * exact(pictures)).sum(axis=1).min()) >= LEAST:
            return images
    return None
