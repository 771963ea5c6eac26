"""How many inputs an encoder is given at a time: found by itself where it runs on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.encoders import Encoder
from mmsearch.errors import ModelError
from mmsearch.records import Modality

if TYPE_CHECKING:
    from mmsearch.records import Vectors

FIRST = 32  # inputs at a time, at first; on a CPU for good: more at a time is no faster there
_GAIN = 1.1  # twice as many at a time have to be this much faster
# Errors of torch by the names of their classes, which tell them without importing it.
_NO_MEMORY = frozenset({"OutOfMemoryError"})
_NO_DEVICE = frozenset({"AcceleratorError", "CudaError"})


@dataclass(slots=True)
class _Size:
    now: int
    rate: float = 0.0  # inputs a second with half as many at a time
    calls: int = 0  # with as many as now
    settled: bool = False


class Batches:
    """An encoder that is given as many inputs at a time as serve it.

    It begins with `first`. On a GPU (its attribute `device`, "cpu" where it has none, begins with
    another word) batches double, up to `most`, until they are no faster, and are halved where
    memory runs out. Where that happens with a single input, or the driver fails, `to_cpu` is called
    on the encoder, which from there on computes the same on the CPU; `notes` say so. The first call
    of a size is not timed: it is the one that allocates.
    """

    def __init__(
        self, encoder: Encoder, most: int = 512, clock: Callable[[], float] = time.perf_counter,
        first: int = FIRST,
    ) -> None:  # fmt: skip
        self.encoder = encoder
        self.notes: list[str] = []
        self._most, self._clock, self._first = most, clock, first
        self._sizes: dict[Modality, _Size] = {}

    def size(self, modality: Modality) -> int:
        """How many inputs of this kind are best handed over together now."""
        return min(self._size(modality).now, self._most)

    def encode(self, modality: Modality, inputs: Sequence[Any]) -> Vectors:
        """(n, dim) unit rows of n inputs. Raises ModelError where the device fails for good."""
        rows: list[Vectors] = []
        done = 0
        while done < len(inputs) or not rows:
            batch = inputs[done : done + self.size(modality)]
            began = self._clock()
            try:
                found = self.encoder.encode(modality, batch)
            except Exception as error:  # torch's own, which is not imported to be told
                self._yield_to(error, modality, len(batch))
                continue
            self._learn(modality, len(batch), self._clock() - began)
            rows.append(found)
            done += len(batch)
        return np.concatenate(rows) if len(rows) > 1 else rows[0]

    def _size(self, modality: Modality) -> _Size:
        return self._sizes.setdefault(modality, _Size(self._first))

    def _on_cpu(self) -> bool:
        return str(getattr(self.encoder, "device", "cpu")).startswith("cpu")

    def _learn(self, modality: Modality, count: int, seconds: float) -> None:
        """Double the batch while that makes it faster; go back one step where it does not."""
        size = self._size(modality)
        if size.settled or count < size.now or self._on_cpu():
            return
        size.calls += 1
        if size.calls < 2:
            return
        rate = count / max(seconds, 1e-9)
        if rate < _GAIN * size.rate:
            size.now, size.settled = size.now // 2, True
        elif 2 * size.now > self._most:
            size.settled = True
        else:
            size.now, size.rate, size.calls = 2 * size.now, rate, 0

    def _yield_to(self, error: Exception, modality: Modality, count: int) -> None:
        """Make do with less after an error of the device; raises any other."""
        names = {kind.__name__ for kind in type(error).__mro__}
        if names & _NO_MEMORY and count > 1:
            size = self._size(modality)
            size.now, size.settled = count // 2, True
            return
        if not names & (_NO_MEMORY | _NO_DEVICE):
            raise error
        what = str(error).split("\n", maxsplit=1)[0]
        to_cpu = getattr(self.encoder, "to_cpu", None)
        if to_cpu is None or self._on_cpu():
            raise ModelError(f"{self.encoder.name} cannot compute here: {what}") from error
        to_cpu()
        self.notes.append(f"{self.encoder.name} goes on on the CPU: {what}")
