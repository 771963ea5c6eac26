"""What a result was measured with: model, versions, seed."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib import metadata
from typing import Any

from mmsearch import __version__
from mmsearch.encoders import Encoder

_PACKAGES = ("numpy", "onnxruntime", "tokenizers", "pillow", "soundfile", "faiss-cpu", "torch")


def versions() -> dict[str, str]:
    """Of mmsearch, Python, and of what there is of the packages that figures depend on."""
    found = {"mmsearch": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def provenance(encoder: Encoder, seed: int) -> dict[str, Any]:
    """What stands beside every result."""
    about = {"model": encoder.name, "fingerprint": encoder.fingerprint}
    return about | {"seed": seed, "versions": versions()}
