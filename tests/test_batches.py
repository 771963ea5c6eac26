"""How many inputs an encoder is given at a time: grown on a GPU, halved where memory ends."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import FakeEncoder

import mmsearch
from mmsearch.encoders.batches import FIRST, Batches
from mmsearch.errors import ModelError
from mmsearch.records import Modality

TEXTS = [f"{'red ' * (n % 7)}{'blue ' * (n % 5)}green" for n in range(1000)]


class OutOfMemoryError(RuntimeError):
    """Called as torch's own is."""


class AcceleratorError(RuntimeError):
    """Called as torch's own is."""


class OnGpu(FakeEncoder):
    """The fake encoder on a device with room for `room` inputs, whose calls take `seconds(n)`."""

    def __init__(self, room: int = 10**6, seconds=lambda count: 1.0) -> None:
        super().__init__("gpu", "6b" * 32)
        self.device = "cuda:0"
        self.room, self.seconds = room, seconds
        self.now = 0.0
        self.calls: list[int] = []
        self.fails: Exception | None = None

    def encode(self, modality, batch):
        if self.device != "cpu":
            self.calls.append(len(batch))
            self.now += self.seconds(len(batch))
            if self.fails:
                raise self.fails
            if len(batch) > self.room:
                raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand more")
        return super().encode(modality, batch)

    def to_cpu(self) -> None:
        self.device = "cpu"


def encoded(encoder, texts=TEXTS, most=512):
    """The rows, and what encoded them."""
    batches = Batches(encoder, most, clock=lambda: encoder.now)
    return batches.encode(Modality.TEXT, texts), batches


EXPECTED = FakeEncoder().encode(Modality.TEXT, TEXTS)


def test_on_a_cpu_nothing_is_tried():
    """Batches stay as they are, whatever a call takes."""
    encoder = FakeEncoder()
    encoder.now = 0.0
    rows, batches = encoded(encoder)
    assert np.array_equal(rows, EXPECTED)
    assert batches.size(Modality.TEXT) == FIRST


def test_batches_double_while_that_is_faster():
    """A call that costs the same whatever it is given: up to the most, two calls of each size."""
    encoder = OnGpu()
    rows, batches = encoded(encoder, TEXTS * 3, most=128)
    assert encoder.calls[:7] == [32, 32, 64, 64, 128, 128, 128]
    assert batches.size(Modality.TEXT) == 128
    assert np.array_equal(rows, np.concatenate([EXPECTED] * 3))


def test_batches_stop_where_nothing_is_gained():
    """From 64 on a call takes its inputs' time: 128 are no faster, and 64 it is."""
    encoder = OnGpu(seconds=lambda count: max(count, 64) / 1000)
    _, batches = encoded(encoder, TEXTS * 3)
    assert encoder.calls[:6] == [32, 32, 64, 64, 128, 128]
    assert set(encoder.calls[6:-1]) == {64}
    assert batches.size(Modality.TEXT) == 64


def test_kinds_grow_by_themselves():
    """What texts allow says nothing of pictures."""
    encoder = OnGpu()
    _, batches = encoded(encoder)
    assert (batches.size(Modality.TEXT) > FIRST, batches.size(Modality.IMAGE)) == (True, FIRST)


@pytest.mark.parametrize("room", [1, 7, 20, 100])
def test_row_58_halved_until_it_fits(room):
    """Row 58: every input is encoded once, none is lost; it does not grow again."""
    encoder = OnGpu(room=room)
    rows, batches = encoded(encoder)
    assert np.array_equal(rows, EXPECTED)
    assert encoder.device == "cuda:0"
    assert room / 2 < batches.size(Modality.TEXT) <= room
    assert batches.notes == []


@pytest.mark.parametrize(
    "error", [OutOfMemoryError("CUDA out of memory"), AcceleratorError("CUDA error: 719\nhint")]
)
def test_row_58_the_cpu_answers_the_same(error):
    """Row 58: no memory for one, or a driver that fails: on the CPU, the same rows, and a note."""
    encoder = OnGpu(room=100)
    encoder.fails = error
    rows, batches = encoded(encoder)
    assert np.array_equal(rows, EXPECTED)
    said = str(error).split("\n", maxsplit=1)[0]
    assert batches.notes == [f"gpu goes on on the CPU: {said}"]


def test_row_58_without_a_cpu_to_go_to():
    """Row 58: an encoder that cannot leave its device says so in one line."""
    encoder = OnGpu(room=0)
    encoder.to_cpu = None
    with pytest.raises(ModelError, match=r"^gpu cannot compute here: CUDA out of memory[^\n]*$"):
        encoded(encoder)


def test_other_errors_are_nobody_elses():
    """A bug is not taken for a lack of memory."""
    encoder = OnGpu()
    encoder.fails = ValueError("shapes do not fit")
    with pytest.raises(ValueError, match="shapes"):
        encoded(encoder)
    assert encoder.calls == [32]


def test_nothing_is_no_batch():
    """No inputs give no rows, of the encoder's width."""
    assert encoded(OnGpu(), [])[0].shape == (0, 3)


def test_row_58_embed_goes_on_on_the_cpu(monkeypatch):
    """What a script asks for at once is grown, halved and moved as an index is, and says so."""
    encoder = OnGpu(room=10)
    monkeypatch.setattr("mmsearch.embedding.open_encoder", lambda name, precision: encoder)
    np.testing.assert_array_equal(mmsearch.embed(TEXTS, modality="text", model="gpu"), EXPECTED)
    assert (encoder.calls[:6], encoder.device) == ([256, 128, 64, 32, 16, 8], "cuda:0")
    encoder.fails = AcceleratorError("CUDA error: unspecified launch failure")
    with pytest.warns(RuntimeWarning, match="gpu goes on on the CPU: CUDA error"):
        rows = mmsearch.embed(TEXTS, modality="text", model="gpu")
    np.testing.assert_array_equal(rows, EXPECTED)
    assert encoder.device == "cpu"
