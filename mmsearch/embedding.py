"""Inputs to unit rows: what `embed` does, and how a query becomes a vector."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.encoders import Encoder, open_encoder
from mmsearch.errors import LoadError, UsageError
from mmsearch.files import display, read_regular, well_formed
from mmsearch.language import Query
from mmsearch.records import Modality
from mmsearch.settings import Settings

if TYPE_CHECKING:
    from mmsearch.records import Pixels, Vectors

_AT_ONCE = 64  # pictures in memory at a time


def embed(
    inputs: Iterable[Any],
    modality: str | Modality,
    model: str = "builtin",
    precision: str = "auto",
) -> Vectors:
    """Embed texts or pictures: (n, dim) float32 unit rows, one an input, in their order.

    Texts are strings; pictures are paths or PIL images. A text longer than the model reads
    is the renormalised mean of its windows. `precision` "fp32" is exact, "auto" takes the
    fastest graph (the built-in model has one, in fp32). The first bad input raises
    LoadError, which names it; ModelError says that the model has no such tower.
    """
    if precision not in ("auto", "fp32"):
        raise UsageError(f'precision is "auto" or "fp32", not {precision!r}')
    if isinstance(inputs, str | bytes | os.PathLike):
        raise UsageError("embed takes a list of inputs, such as ['a dog']")
    kind = as_modality(modality)
    encoder = open_encoder(model)
    rows: list[Vectors] = []
    batch: list[Any] = []
    for item in inputs:
        batch.append(load(item, kind, encoder))
        if len(batch) == _AT_ONCE:
            rows.append(encoder.encode(kind, batch))
            batch = []
    return np.concatenate([*rows, encoder.encode(kind, batch)])


def as_modality(name: str | Modality) -> Modality:
    """The Modality of that name. Raises UsageError, which lists them all."""
    try:
        return Modality(name)
    except ValueError:
        names = ", ".join(Modality)
        raise UsageError(f"modality is one of {names}, not {name!r}") from None


def query_vector(query: Query, encoder: Encoder) -> Vectors:
    """The (dim,) unit row that a query stands for. Raises UsageError when it cancels out."""
    total = np.zeros(encoder.dim, np.float32)
    for term in query.terms:
        value = load(term.value, term.modality, encoder)
        total += np.float32(term.weight) * encoder.encode(term.modality, [value])[0]
    length = float(np.linalg.norm(total))
    if not length > 1e-6:
        raise UsageError("the parts of this query cancel each other out")
    return total / np.float32(length)


def load(item: Any, modality: Modality, encoder: Encoder) -> Any:
    """An input as the encoder wants it: a string, or (size, size, 3) uint8 pixels."""
    if modality is Modality.TEXT:
        if not isinstance(item, str):
            raise UsageError(f"a text is a string, not {type(item).__name__}")
        return well_formed(item)
    if modality is Modality.IMAGE:
        return _picture(item, encoder)
    return item  # the encoder says that it has no tower for it


def _picture(item: Any, encoder: Encoder) -> Pixels:
    from mmsearch import loaders  # a query of words has no need of Pillow

    if not isinstance(item, str | bytes | os.PathLike):
        if not hasattr(item, "convert"):
            raise UsageError(f"a picture is a path or a PIL image, not {type(item).__name__}")
        return loaders.to_pixels(item, encoder.image_input)
    limits = Settings()
    # a link is followed here: the user named this file, no walk came upon it
    path = os.path.realpath(os.fsencode(item))
    try:
        data, _ = read_regular(path, limits.max_file_mb * 1e6, lambda head: None)
        want, budget = encoder.image_input, limits.max_megapixels
        return loaders.load_image(data, want, max_megapixels=budget).pixels
    except LoadError as error:
        raise LoadError(error.reason, f"{display(os.fsencode(item))}: {error}") from error
