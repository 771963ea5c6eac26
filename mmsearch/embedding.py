"""Inputs to unit rows: what `embed` does, and how a query becomes a vector."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.encoders import Encoder, open_encoder
from mmsearch.encoders.batches import Batches
from mmsearch.errors import LoadError, ModelError, UsageError, chosen
from mmsearch.files import display, opened, read_regular, well_formed
from mmsearch.language import Term
from mmsearch.records import Modality, Reason
from mmsearch.settings import Settings

if TYPE_CHECKING:
    from mmsearch.records import Pixels, Vectors

_AT_ONCE = 64  # pictures or windows of sound in memory at a time, more where a GPU takes more
_TEXTS_AT_ONCE = 256  # the more, the better they sort into calls of equal length


@dataclass(frozen=True, slots=True)
class Asked:
    """A part of a query as the encoder sees it: the (dim,) unit row that its terms stand for.

    The background has, by an item's modality, the mean and the standard deviation of this
    row's scores with items that have nothing to do with it. A modality is absent where the
    encoder has no such figures. `kind` is the modality of the heaviest term.
    """

    vector: Vectors
    background: dict[Modality, tuple[float, float]]
    kind: Modality


def embed(
    inputs: Iterable[Any],
    modality: str | Modality,
    model: str = "builtin",
    precision: str = "auto",
) -> Vectors:
    """Embed texts, pictures or sounds: (n, dim) float32 unit rows, one an input, in order.

    Texts are strings, or Path objects of text files; pictures are paths or PIL images;
    sounds are paths. A text longer than the model reads, and a sound longer than a window,
    is the renormalised mean of its parts. `precision` "fp32" is exact, "auto" takes the
    fastest graph whose rows compare with it (the built-in model has one, in fp32). The first
    bad input raises LoadError, which names it; ModelError says that the model has no such tower.
    """
    if precision not in ("auto", "fp32"):
        raise UsageError(f'precision is "auto" or "fp32", not {precision!r}')
    if isinstance(inputs, str | bytes | os.PathLike):
        raise UsageError("embed takes a list of inputs, such as ['a dog']")
    encoder = open_encoder(model, precision)
    return _encoded(inputs, chosen(Modality, "modality", modality), encoder)


def ask(parts: Sequence[Sequence[Term]], encoder: Encoder) -> list[Asked]:
    """What each of these parts of a query stands for: the weighted sum of its terms' rows.

    What is said in words is encoded at once. Raises UsageError when the terms of a part
    cancel each other out, LoadError for a bad file.
    """
    terms = [term for part in parts for term in part]
    kinds = [kind_of(term) for term in terms]
    rows = np.empty((len(terms), encoder.dim), np.float32)
    for kind in dict.fromkeys(kinds):
        mine = [number for number, other in enumerate(kinds) if other is kind]
        rows[mine] = _encoded([terms[number].value for number in mine], kind, encoder)
    asked, start = [], 0
    for part in parts:
        end = start + len(part)
        asked.append(_asked(part, kinds[start:end], rows[start:end], encoder))
        start = end
    return asked


def kind_of(term: Term) -> Modality:
    """What a term is. Raises LoadError for a file that cannot be opened."""
    return term.modality or _kind(term.value)


def _asked(
    terms: Sequence[Term], kinds: Sequence[Modality], rows: Vectors, encoder: Encoder
) -> Asked:
    weights = np.array([term.weight for term in terms], np.float32)
    total = weights @ rows
    length = float(np.linalg.norm(total))
    if not length > 1e-6:
        raise UsageError("the parts of this query cancel each other out")
    heaviest = kinds[int(np.argmax(weights))]
    background = _background(kinds, weights / length, rows, encoder)
    return Asked(total / np.float32(length), background, heaviest)


def _background(
    kinds: Sequence[Modality], weights: Vectors, rows: Vectors, encoder: Encoder
) -> dict[Modality, tuple[float, float]]:
    """The background of sum(weight * row), from the backgrounds of its terms' modalities.

    A score is linear in the query, and so is the mean: sum(w_i * m_i). The variance is
    sum(w_i * w_j * d_i * d_j * r_ij), where r_ij is how the scores of two terms correlate
    over unrelated items. That is taken to be the cosine of the terms' rows, which is exact
    where the items scatter alike in all directions; the deviation is then the length of
    sum(w_i * d_i * row_i). A term said twice, or halved, changes nothing.
    """
    found = {}
    for item in Modality:
        known = [encoder.backgrounds.get(kind, {}).get(item) for kind in kinds]
        figures = np.array([pair for pair in known if pair], np.float32)
        if len(figures) == len(kinds):
            mean = float(weights @ figures[:, 0])
            deviation = float(np.linalg.norm((weights * figures[:, 1]) @ rows))
            if deviation > 1e-6:
                found[item] = mean, deviation
    return found


def _encoded(inputs: Iterable[Any], kind: Modality, encoder: Encoder) -> Vectors:
    """(n, dim) unit rows, one an input: the renormalised mean of one with several parts."""
    if kind not in encoder.modalities:
        raise ModelError(f"{encoder.name} has no tower for {kind}")
    sums: list[Vectors] = []
    names: dict[int, Any] = {}  # of the inputs that have several parts
    parts = (
        (number, item, part)
        for number, item in enumerate(inputs)
        for part in _parts(item, kind, encoder)
    )
    batches = Batches(encoder, first=_TEXTS_AT_ONCE if kind is Modality.TEXT else _AT_ONCE)
    while batch := list(islice(parts, batches.size(kind))):
        rows = batches.encode(kind, [part for _, _, part in batch])
        for (number, item, _), row in zip(batch, rows, strict=True):
            if number == len(sums):
                sums.append(row)
            else:
                sums[number], names[number] = sums[number] + row, item
    for number, item in names.items():
        length = np.linalg.norm(sums[number])
        if not length > 1e-6:
            raise _named(item, LoadError(Reason.NONFINITE, "its parts cancel each other out"))
        sums[number] = sums[number] / length
    for note in batches.notes:  # that the GPU was given up
        warnings.warn(note, RuntimeWarning, stacklevel=3)
    return np.stack(sums) if sums else encoder.encode(kind, [])


def _parts(item: Any, kind: Modality, encoder: Encoder) -> Iterator[Any]:
    """An input as the encoder wants it: strings, (size, size, 3) pixels, or (n,) samples."""
    if kind is Modality.IMAGE and hasattr(item, "convert"):
        from mmsearch import loaders  # a query of words has no need of Pillow

        yield loaders.to_pixels(item, encoder.image_input)
    elif kind is Modality.TEXT and isinstance(item, str):
        yield well_formed(item)
    elif isinstance(item, os.PathLike) or (
        kind is not Modality.TEXT and isinstance(item, str | bytes)
    ):
        path = _real(item)
        try:
            yield from _READERS[kind](path, encoder)
        except LoadError as error:
            raise _named(item, error) from error
    else:
        raise UsageError(f"{_WANTED[kind]}, not {type(item).__name__}")


def _real(path: str | bytes | os.PathLike[Any]) -> bytes:
    """Where a file is. A link is followed: the user named it, no walk came upon it."""
    try:
        return os.path.realpath(os.fsencode(path))
    except ValueError as error:  # NUL, or half a surrogate pair
        raise UsageError(f"{os.fspath(path)!a} is no path: {error}") from error


def _named(item: Any, error: LoadError) -> LoadError:
    return LoadError(error.reason, f"{display(os.fsencode(item))}: {error}")


def _picture(path: bytes, encoder: Encoder) -> Iterator[Pixels]:
    from mmsearch import loaders

    limits = Settings()
    data, _ = read_regular(path, limits.max_file_mb * 1e6, lambda head: None)
    want, budget = encoder.image_input, limits.max_megapixels
    yield loaders.load_image(data, want, max_megapixels=budget).pixels


def _sound(path: bytes, encoder: Encoder) -> Iterator[Any]:
    from mmsearch.loaders import sounds

    assert encoder.audio_input is not None  # it has a tower for sounds
    with opened(path) as (file, _):
        for window in sounds.windows(file, encoder.audio_input):
            yield window.samples


def _text(path: bytes, encoder: Encoder) -> Iterator[str]:
    from mmsearch.loaders import texts

    with opened(path) as (file, _):
        yield from texts.passages(file, markdown=path.lower().endswith(b".md"))


_READERS = {Modality.IMAGE: _picture, Modality.AUDIO: _sound, Modality.TEXT: _text}
_WANTED = {
    Modality.IMAGE: "a picture is a path or a PIL image",
    Modality.AUDIO: "a sound is a path",
    Modality.TEXT: "a text is a string, or the Path of a text file",
}


def _kind(path: str | os.PathLike[str]) -> Modality:
    """What a file is: a sound by its first bytes, a text by its name, else a picture."""
    from mmsearch.loaders import sounds

    try:
        with opened(_real(path)) as (file, _):
            if sounds.sniff(file.read(4096)):
                return Modality.AUDIO
    except LoadError as error:
        raise _named(path, error) from error
    name = os.fsencode(path)
    return Modality.TEXT if name.lower().endswith((b".txt", b".md")) else Modality.IMAGE
