"""Find pictures, sounds and text by meaning.

import mmsearch
library = mmsearch.open_library("indexes/photos")
library.index("./photos")
for hit in library.query("a dog on grass"):
    print(hit.rank, hit.score, hit.path)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmsearch.embedding import embed
    from mmsearch.errors import MmsearchError
    from mmsearch.language import Query, audio, image, text
    from mmsearch.library import Library, open_library
    from mmsearch.records import Failure, Hit, Modality, Report

# Where each public name lives. A module loads when one of its names is asked for, so that
# `import mmsearch` costs nothing.
_HOMES = {
    "Failure": "records",
    "Hit": "records",
    "Library": "library",
    "MmsearchError": "errors",
    "Modality": "records",
    "Query": "language",
    "Report": "records",
    "audio": "language",
    "embed": "embedding",
    "image": "language",
    "open_library": "library",
    "text": "language",
}

__all__ = [
    "Failure",
    "Hit",
    "Library",
    "MmsearchError",
    "Modality",
    "Query",
    "Report",
    "audio",
    "embed",
    "image",
    "open_library",
    "text",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mmsearch' has no attribute {name!r}")
    return getattr(import_module(f"mmsearch.{_HOMES[name]}"), name)
