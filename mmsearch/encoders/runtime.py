"""Running an ONNX graph on the CPU."""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import Any

from mmsearch.errors import ModelError


class Graph:
    """An ONNX graph with one output. Loaded on first use, then kept; threads may share it."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        self.path = path
        self.threads = threads
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
        options.log_severity_level = 3  # errors only: what a user should read, we say
        options.intra_op_num_threads = self.threads
        # a thread that spins while it waits burns the CPU time of the decoders beside it
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # without VNNI, products of unsigned and signed bytes would overflow on x64, silently
        options.add_session_config_entry("session.x64quantprecision", "1")
        try:
            return onnxruntime.InferenceSession(
                self.path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises a type of its own for each cause
            raise ModelError(f"{self.path} is not a usable model: {error}") from error
