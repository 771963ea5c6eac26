"""Encoding on a GPU, without one: what a device does is played by a module that refuses."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")

from mmsearch.encoders.batches import Batches  # noqa: E402
from mmsearch.encoders.exported import Exported  # noqa: E402
from mmsearch.encoders.foreign.gpu import GpuImages, on_gpu  # noqa: E402
from mmsearch.records import Modality  # noqa: E402


class Device(torch.nn.Module):
    """The mean colour of pictures, of `room` at a time; with more memory runs out."""

    def __init__(self, room, error=torch.OutOfMemoryError):
        super().__init__()
        self.room, self.error, self.calls = room, error, []

    def forward(self, pixels):
        self.calls.append(len(pixels))
        if len(pixels) > self.room:
            raise self.error("no room left on the device")
        return torch.nn.functional.normalize(pixels.float().mean(dim=(1, 2)), dim=-1)


def pictures(n):
    """Random pictures, (4, 4, 3) uint8."""
    return list(np.random.default_rng(0).integers(1, 256, (n, 4, 4, 3), dtype=np.uint8))


def mean_colours(batch):
    """What Device makes of pictures, by numpy: stands for the graph on the CPU."""
    means = np.stack(batch).reshape(len(batch), -1, 3).mean(axis=1)
    return (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)


def encoder_on(device):
    """An encoder of pictures that has found this device."""
    encoder = Exported.__new__(Exported)
    encoder.name, encoder.precision, encoder.dim = "model", "auto", 3
    encoder.modalities = frozenset({Modality.IMAGE})
    encoder.__dict__["_gpu"] = GpuImages(device, "cpu", torch.float32)
    encoder.__dict__["_exact"] = mean_colours
    encoder.__dict__["_fast"] = None
    return encoder


def test_memory_that_runs_out_halves_the_batch():
    """Row 58: the same rows in the same order, and still on the device."""
    device, batch = Device(room=10), pictures(100)
    encoder = encoder_on(device)
    batches = Batches(encoder)
    np.testing.assert_allclose(
        batches.encode(Modality.IMAGE, batch), mean_colours(batch), atol=1e-6
    )
    assert device.calls[:3] == [32, 16, 8]
    assert (encoder.device, batches.notes) == ("cuda", [])


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, torch.AcceleratorError])
def test_the_cpu_goes_on_with_the_same_answers(error):
    """Row 58: not one picture fits, or the driver fails. What was asked is answered, and told."""
    device, batch = Device(0, error), pictures(50)
    encoder = encoder_on(device)
    batches = Batches(encoder)
    np.testing.assert_array_equal(batches.encode(Modality.IMAGE, batch), mean_colours(batch))
    assert encoder.device == "cpu"
    assert batches.notes == ["model goes on on the CPU: no room left on the device"]
    calls = len(device.calls)
    batches.encode(Modality.IMAGE, batch)
    assert len(device.calls) == calls


def test_without_a_device_there_is_none(monkeypatch):
    """CUDA absent: nothing is loaded for it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert on_gpu("ViT-B-32/openai", 224, mean_colours) is None
