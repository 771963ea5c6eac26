"""Running an ONNX graph on the CPU."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.errors import ModelError

if TYPE_CHECKING:
    from mmsearch.records import Vectors


class Graph:
    """An ONNX graph with one output. Loaded on first use, then kept; threads may share it.

    One that is not `prepared` keeps its weights where they are mapped, and is not rewritten: it is
    there at once, and takes two or three times as long for a call.
    """

    def __init__(self, path: Path, threads: int = 0, *, prepared: bool = True) -> None:
        self.path, self.threads, self.prepared = path, threads, prepared
        self._guard = threading.Lock()

    def __call__(self, **inputs: Any) -> Any:
        """Run it on arrays by input name; return the output array."""
        with self._guard:
            session = self._session
        return session.run(None, inputs)[0]

    @functools.cached_property
    def _session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised: what a user should read, we say
        options.intra_op_num_threads = self.threads
        # a thread that spins while it waits burns the CPU time of the decoders beside it
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # without VNNI, products of unsigned and signed bytes would overflow on x64, silently
        options.add_session_config_entry("session.x64quantprecision", "1")
        if not self.prepared:
            options.add_session_config_entry("session.disable_prepacking", "1")
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            return onnxruntime.InferenceSession(
                self.path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises a type of its own for each cause
            raise ModelError(f"{self.path} is not a usable model: {error}") from error


def a_call_a_core(call: Callable[[Any], Vectors], parts: Sequence[Any]) -> Vectors:
    """The rows of all parts.

    One call shared out over the cores would hand over at every layer, which costs CPU
    time (benchmarks/indexing.py has the image tower with one thread and with two).
    """
    if len(parts) == 1:
        return call(parts[0])
    with ThreadPoolExecutor(min(len(parts), os.cpu_count() or 1)) as pool:
        return np.concatenate(list(pool.map(call, parts)))
