"""What a library holds, read for a self-test: files with their vectors, names and captions."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmsearch.catalog import Catalog
from mmsearch.encoders import Encoder
from mmsearch.errors import LibraryMissing
from mmsearch.library import Library
from mmsearch.records import Caption, Item, Kind, Modality
from mmsearch.spaces import find_spaces

if TYPE_CHECKING:
    from mmsearch.records import Ids, Kinds, Scores, Vectors

_AT_ONCE = 20_000  # vectors whose items are looked up together


@dataclass(frozen=True, slots=True)
class Shelf:
    """Everything of one space that is not gone; `model` opens its `encoder`.

    `items` by id, and `vector_of` each; `paths_of` a vector: those of a file and its copies.
    (n,) ids of vectors, rising within a kind, with (n, dim) rows, what they stand for and their
    hubness. `captions` of each file, by the item that is its first part.
    """

    model: str
    encoder: Encoder
    items: dict[int, Item]
    vector_of: dict[int, int]
    paths_of: dict[int, set[str]]
    captions: dict[int, list[Caption]]
    ids: Ids
    rows: Vectors
    kinds: Kinds
    hubness: Scores

    @property
    def files(self) -> list[Item]:
        """The first part of each file, in the order of ids."""
        return [item for item in self.items.values() if item.part == 0]

    def row_of(self, item: Item) -> Vectors:
        """(dim,) what the library has of an item."""
        (at,) = np.flatnonzero(self.ids == self.vector_of[item.id])
        row: Vectors = self.rows[at]
        return row

    def of(self, modality: Modality) -> tuple[list[int], Vectors, Scores]:
        """Items of one modality, their (n, dim) rows and (n,) hubness."""
        here = [id for id, item in self.items.items() if item.modality is modality]
        place = {id: at for at, id in enumerate(self.ids.tolist())}
        at = [place[self.vector_of[id]] for id in here]
        return here, self.rows[at], self.hubness[at]


def read_shelf(library: Library) -> Shelf:
    """What the first space of a library, of the models that are asked for, holds; it is only read.

    Raises LibraryMissing for one without vectors, EncoderMismatch.
    """
    with Catalog.open(library.folder / "library.db") as catalog, catalog.snapshot():
        default = library.settings.model
        opened = find_spaces(catalog, library.folder, library.models, default).opened
        if not opened:
            raise LibraryMissing(f"{library.folder} waits for mmsearch index: its model is older")
        space, have = opened[0].space, opened[0].encoder
        model = catalog.models()[space.id][0] or default
        blocks = list(catalog.vectors_after(space.id, 0))
        if not blocks:
            raise LibraryMissing(f"{library.folder} has no vector of {have.name}")
        ids = np.concatenate([block.ids for block in blocks])
        kinds = np.concatenate([block.kinds for block in blocks])
        own = ids[kinds != Kind.CAPTION].tolist()
        vector_of: dict[int, int] = {}
        for start in range(0, len(own), _AT_ONCE):
            vectors, items, _ = catalog.matches(own[start : start + _AT_ONCE])
            vector_of |= dict(zip(items.tolist(), vectors.tolist(), strict=True))
        found = {item.id: item for item in catalog.items_of(sorted(vector_of))}
        captions = catalog.captions_of([item.id for item in found.values() if item.part == 0])
    paths: dict[int, set[str]] = defaultdict(set)
    for id, item in found.items():
        paths[vector_of[id]].add(str(item.path))
    return Shelf(
        model, have, found, vector_of, dict(paths), captions, ids,
        np.concatenate([block.vectors for block in blocks]), kinds,
        np.concatenate([block.hubness for block in blocks]),
    )  # fmt: skip


def words_of(path: Path) -> str:
    """A file's name as a person would say it: "Beach_sunset-2.jpg" is "Beach sunset 2"."""
    return " ".join(re.split(r"[\W_]+", os.fsencode(path.stem).decode("utf-8", "replace"))).strip()


def owners_of(said: Sequence[tuple[str, set[str]]]) -> dict[str, set[str]]:
    """Which paths each of these words is said of: a caption may be that of several files."""
    owners: dict[str, set[str]] = defaultdict(set)
    for words, paths in said:
        owners[words] |= paths
    return dict(owners)
