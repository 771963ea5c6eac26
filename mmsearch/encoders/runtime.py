"""Running an ONNX graph on the CPU."""

from __future__ import annotations

import functools
import platform
from pathlib import Path
from typing import Any

from mmsearch.errors import ModelError


class Graph:
    """An ONNX graph with one output. Loaded on first use, then kept."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        self.path = path
        self.threads = threads
        self._session: Any = None

    def __call__(self, **inputs: Any) -> Any:
        """Run it on arrays by input name; return the output array."""
        if self._session is None:
            self._session = self._load()
        return self._session.run(None, inputs)[0]

    def _load(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only: what a user should read, we say
        options.intra_op_num_threads = self.threads
        # a thread that spins while it waits burns the CPU time of the decoders beside it
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            return onnxruntime.InferenceSession(
                self.path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises a type of its own for each cause
            raise ModelError(f"{self.path} is not a usable model: {error}") from error


@functools.cache
def has_exact_int8() -> bool:
    """True when this processor multiplies 8-bit integers without saturating.

    Older x86 adds pairs of products in 16 bits and clips them, which moves embeddings; VNNI
    and 64-bit Arm add in 32 bits. Where nothing can be found out, the answer is False.
    """
    if platform.machine().lower() in ("arm64", "aarch64"):
        return True
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "avx512_vnni" in flags or "avx_vnni" in flags
