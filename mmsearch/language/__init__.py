"""What was asked: words, files, pictures and sounds with weights and conditions, as a Query."""

from mmsearch.language.parsing import parse, said
from mmsearch.language.query import (
    And,
    Not,
    Or,
    Query,
    Sum,
    Term,
    audio,
    checked,
    combine,
    file,
    image,
    terms_of,
    text,
)
from mmsearch.language.remarks import remarks

__all__ = [
    "And", "Not", "Or", "Query", "Sum", "Term", "audio", "checked", "combine", "file", "image",
    "parse", "remarks", "said", "terms_of", "text",
]  # fmt: skip
