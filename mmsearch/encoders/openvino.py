"""An image graph run by OpenVINO, which knows what ONNX Runtime does not: bfloat16 on a CPU."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.errors import ModelError

if TYPE_CHECKING:
    from mmsearch.records import Pixels, Vectors

LEAST = 0.999  # the cosine of rows in bfloat16 with those in float32
_TOGETHER = 8  # pictures a request; as many requests are under way as there are cores


class OpenVinoImages:
    """A graph with one input, `pixels`, compiled for this processor: "f32" or "bf16".

    A graph that holds int8 products (QuantizeLinear nodes) keeps them in either. Raises
    ImportError where OpenVINO is not installed, ModelError for a graph that it does not take.
    """

    def __init__(self, path: Path, precision: str) -> None:
        import openvino

        cores = os.cpu_count() or 1
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_NUM_THREADS": cores,
            "NUM_STREAMS": cores,
        }
        try:
            core = openvino.Core()
            model = core.read_model(path)
            shape = model.input(0).partial_shape
            model.reshape({0: [_TOGETHER, *(shape[axis].get_length() for axis in (1, 2, 3))]})
            self._queue: Any = openvino.AsyncInferQueue(
                core.compile_model(model, "CPU", settings), cores
            )
        except RuntimeError as error:  # what all its errors are
            raise ModelError(f"OpenVINO does not take {path}: {error}") from error
        self._guard = threading.Lock()

    def __call__(self, pictures: Sequence[Pixels]) -> Vectors:
        """(n, dim) unit rows of (size, size, 3) pictures, at least one."""
        found: dict[int, Vectors] = {}
        with self._guard:  # the queue calls back what was asked last
            self._queue.set_callback(
                lambda request, at: found.update({at: request.get_output_tensor(0).data.copy()})
            )
            for at in range(0, len(pictures), _TOGETHER):
                some = list(pictures[at : at + _TOGETHER])
                some += [some[-1]] * (_TOGETHER - len(some))  # the graph's batch is fixed
                self._queue.start_async({0: np.stack(some)}, at)
            self._queue.wait_all()
        return np.concatenate([found[at] for at in sorted(found)])[: len(pictures)]


def in_bfloat16(
    folder: Path, size: int, exact: Callable[[Sequence[Pixels]], Vectors]
) -> OpenVinoImages | None:
    """The graph of a folder in bfloat16. None where OpenVINO or the processor has none, or where
    its rows differ from the `exact` ones: that is measured once a processor, and kept beside it.
    """
    try:
        import openvino
    except ImportError:
        return None
    core = openvino.Core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return None
    here = f"{core.get_property('CPU', 'FULL_DEVICE_NAME')}, openvino {openvino.__version__}"
    path = folder / "parity.json"
    measured = _measured(path)
    if measured.get(here, 1.0) < LEAST:
        return None
    images = OpenVinoImages(folder / "image.onnx", "bf16")
    if here not in measured:
        pictures = drawn(size)
        cosines = (exact(pictures) * images(pictures)).sum(axis=1)
        measured[here] = round(float(cosines.min()), 6)
        with suppress(OSError):  # a cache that cannot be written is measured again
            path.write_text(json.dumps(measured, indent=2), encoding="utf-8")
    return images if measured[here] >= LEAST else None


def _measured(path: Path) -> dict[str, float]:
    try:
        found: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError):
        return {}


def drawn(size: int) -> list[Pixels]:
    """Pictures to compare two graphs with: of large patches and small ones, since noise alone is
    like no picture.
    """
    draw = np.random.default_rng(0)
    found = []
    for blocks in (2, 3, 5, 8, 13, 21, 34, size):
        coarse = draw.integers(0, 256, (blocks, blocks, 3), dtype=np.uint8)
        at = np.arange(size) * blocks // size
        found.append(coarse[at][:, at])
    return found
