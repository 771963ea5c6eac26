"""The spaces of a library, each with the encoder that its vectors compare with."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmsearch.catalog import Catalog
from mmsearch.encoders import Encoder, full_name, open_encoder
from mmsearch.errors import EncoderMismatch, LibraryMissing, MissingExtra, ModelError
from mmsearch.records import Modality
from mmsearch.space import Space

_BUILTIN = re.compile(r"builtin-(\d+)")

Row = tuple[int, str, str, int]  # id, name, fingerprint, dim


@dataclass(frozen=True, slots=True)
class Opened:
    """A space and the encoder of its vectors. One that is only to be begun has the id 0."""

    space: Space
    encoder: Encoder


@dataclass(frozen=True, slots=True)
class Spaces:
    """What a library has vectors of.

    `opened` are the spaces that can be asked, in the order in which they were begun; `older` those
    of built-in models that a newer one takes the place of: `newer`, where its own space is not
    begun. `closed` are the others, each with why its model cannot be opened.
    """

    opened: Sequence[Opened] = ()
    older: Sequence[Space] = ()
    newer: Encoder | None = None
    closed: Sequence[tuple[Space, str]] = ()

    @property
    def every(self) -> list[Space]:
        """All spaces: first those that can be asked."""
        closed = [space for space, _ in self.closed]
        return [*(one.space for one in self.opened), *reversed(self.older), *closed]

    @property
    def encoders(self) -> list[Encoder]:
        """Those of the spaces that can be asked, and of the one that is to be begun."""
        found = [one.encoder for one in self.opened]
        return found if self.newer is None else [*found, self.newer]

    def towers(self) -> dict[Modality, Opened]:
        """Of each modality that is read the space that reads it first: the oldest."""
        found: dict[Modality, Opened] = {}
        for one in self.opened:
            for kind in sorted(one.encoder.modalities):
                found.setdefault(kind, one)
        return found

    def in_words(self) -> dict[Modality, Opened]:
        """The same of each modality that can be compared with words."""
        speaking = [one for one in self.opened if Modality.TEXT in one.encoder.modalities]
        return Spaces(speaking).towers()


def find_spaces(catalog: Catalog, folder: Path, asked: Sequence[str], default: str) -> Spaces:
    """The spaces of the models that are `asked` for, or all there are.

    `default` is tried where nobody noted what opens an encoder. Raises LibraryMissing without
    any space, EncoderMismatch for a model that has none here, or when none can be opened.
    """
    rows = catalog.spaces()
    if not rows:
        raise LibraryMissing.at(folder)
    if not asked:
        found = every_space(catalog, folder, default)
        if not found.opened and not found.older:
            space, why = found.closed[0]
            if why:
                raise ModelError(
                    f"{folder} was built with {space.encoder_name}, which cannot be opened: {why}"
                )
            raise _mismatch(folder, rows, open_encoder(default))
        return found
    opened, older, newer = [], [], None
    for encoder in map(open_encoder, asked):
        mine = [row for row in rows if row[2] == encoder.fingerprint]
        before = [row for row in rows if is_older(row[1], encoder.name)]
        if not mine and not before:
            raise _mismatch(folder, rows, encoder)
        opened += [Opened(_space(catalog, folder, row), encoder) for row in mine]
        older += [_space(catalog, folder, row) for row in before]
        newer = newer if mine else encoder
    return Spaces(opened, older, newer)


def begin_spaces(
    catalog: Catalog,
    folder: Path,
    asked: Sequence[str],
    default: str,
    *,
    dry_run: bool = False,
) -> Spaces:
    """All spaces of a library that is to be written, those of the models `asked` for among them.

    A new library has a space of each, or of the `default`. A model that is new to a library
    begins a space beside the others, but for a newer built-in one, which takes the place of
    the older: where that is all there is, in one transaction every file waits from there on to be
    encoded anew. Raises EncoderMismatch for a model whose weights are others than before,
    or when none was asked for and none can be opened.
    """
    rows = catalog.spaces()
    wanted = {model: open_encoder(model) for model in asked or ([] if rows else [default])}
    if rows and not asked:
        have = find_spaces(catalog, folder, (), default)
    else:
        have = every_space(catalog, folder, default)
    if have.newer is not None:
        wanted.setdefault("builtin", have.newer)
    opened = {one.encoder.fingerprint: one for one in have.opened}
    models = catalog.models()
    for model, encoder in wanted.items():
        for id, name, fingerprint, _ in rows:
            same = models[id][0] == noted(model, encoder) if models[id][0] else name == encoder.name
            if same and fingerprint != encoder.fingerprint and not is_older(name, encoder.name):
                raise _mismatch(folder, rows, encoder)
        if encoder.fingerprint not in opened:
            row = (0, encoder.name, encoder.fingerprint, encoder.dim)
            if not dry_run:
                row = _begin(catalog, rows, model, encoder)
            opened[encoder.fingerprint] = Opened(_space(catalog, folder, row), encoder)
    if not dry_run:
        _note(catalog, {encoder.fingerprint: model for model, encoder in wanted.items()}, opened)
    older = [space for space in have.older if any(
        is_older(space.encoder_name, one.encoder.name) for one in opened.values()
    )]  # fmt: skip
    closed = [one for one in have.closed if one[0].fingerprint not in opened]
    return Spaces(list(opened.values()), older, None, closed)


def noted(model: str, encoder: Encoder) -> str:
    """What a library notes to open a model by, from wherever it is asked."""
    if _BUILTIN.fullmatch(encoder.name) and not os.path.isdir(model):
        return "builtin"
    return full_name(model) or (os.path.abspath(model) if os.path.isdir(model) else model)


def is_older(built: str, have: str) -> bool:
    """True for a built-in model before this one: its files have left the package."""
    before, now = _BUILTIN.fullmatch(built), _BUILTIN.fullmatch(have)
    return bool(before and now and int(before[1]) < int(now[1]))


def every_space(catalog: Catalog, folder: Path, default: str = "builtin") -> Spaces:
    """All spaces, whether their models can be opened or not; see `find_spaces`."""
    rows, models = catalog.spaces(), catalog.models()
    opened: list[Opened] = []
    older: list[Row] = []
    newer: dict[str, Encoder] = {}
    closed: list[tuple[Space, str]] = []
    for row in rows:
        usual = "builtin" if _BUILTIN.fullmatch(row[1]) else row[1]
        encoder, why = _encoder_of(row, [models[row[0]][0] or usual, default])
        if encoder is None:
            closed.append((_space(catalog, folder, row), why))
        elif encoder.fingerprint == row[2]:
            opened.append(Opened(_space(catalog, folder, row), encoder))
        else:
            older.append(row)
            newer[encoder.fingerprint] = encoder
    begun = {row[2] for row in rows}
    return Spaces(
        opened,
        [_space(catalog, folder, row) for row in older],
        next((one for mark, one in newer.items() if mark not in begun), None),
        closed,
    )


def _encoder_of(row: Row, models: Iterable[str]) -> tuple[Encoder | None, str]:
    """The encoder of a space, or the newer built-in one that takes its place; or why not."""
    why = ""
    for model in dict.fromkeys(models):
        try:
            encoder = open_encoder(model)
        except (ModelError, MissingExtra) as error:
            why = why or str(error)
            continue
        if encoder.fingerprint == row[2] or is_older(row[1], encoder.name):
            return encoder, ""
    return None, why


def _begin(catalog: Catalog, rows: Sequence[Row], model: str, encoder: Encoder) -> Row:
    read = frozenset().union(*(kinds for _, kinds in catalog.models().values()))
    with catalog.transaction():
        if rows and all(is_older(row[1], encoder.name) for row in rows):
            catalog.supersede()
        elif rows and not encoder.modalities <= read:
            catalog.forget_unsupported()
        id = catalog.put_space(
            encoder.name, encoder.fingerprint, encoder.dim,
            model=noted(model, encoder), modalities=encoder.modalities,
        )  # fmt: skip
    return id, encoder.name, encoder.fingerprint, encoder.dim


def _note(catalog: Catalog, asked: Mapping[str, str], opened: Mapping[str, Opened]) -> None:
    """Note what opens an encoder where an older mmsearch did not, or where it has moved to."""
    models = catalog.models()
    for fingerprint, one in opened.items():
        name = one.encoder.name
        usual = asked.get(fingerprint, "builtin" if _BUILTIN.fullmatch(name) else "")
        model = noted(usual, one.encoder) if usual else models[one.space.id][0]
        if models[one.space.id] != (model, one.encoder.modalities):
            with catalog.transaction():
                catalog.put_model(one.space.id, model, one.encoder.modalities)


def spaces_in(catalog: Catalog, folder: Path) -> list[Space]:
    """Every space of a library, in the order in which they were begun; no model is opened."""
    return [_space(catalog, folder, row) for row in catalog.spaces()]


def _space(catalog: Catalog, folder: Path, row: Row) -> Space:
    return Space(catalog, folder / "cache", row)


def _mismatch(folder: Path, rows: Sequence[Row], have: Encoder) -> EncoderMismatch:
    built = " and ".join(f"{name} ({fingerprint[:8]})" for _, name, fingerprint, _ in rows)
    return EncoderMismatch(
        f"{folder} was built with {built}, you have {have.name} ({have.fingerprint[:8]}): their "
        f"vectors do not compare. mmsearch index --model adds a model to a library; or use another "
        f"--index for {have.name}"
    )
