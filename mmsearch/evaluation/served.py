"""Retrieval as a library serves it: its index, its correction of hubness, its words.

Beside exact search over raw embeddings this shows what an approximate index loses and what a
correction gains. The libraries are made for it in a temporary folder and asked through
`Library.query_many`; a list ends after ten files, and those that an answer is a part of count
once, where the best part is.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from mmsearch import language, metrics
from mmsearch.datasets.captions import CaptionedFile
from mmsearch.evaluation.exact import Measures, told
from mmsearch.language import Query
from mmsearch.library import Library, open_library
from mmsearch.metrics import CUTS
from mmsearch.records import Modality

if TYPE_CHECKING:
    from mmsearch.records import Ids

# In the words of Library.query's `hybrid`: vectors alone, and vectors, captions and words.
WAYS = {"library_vectors": "off", "library": "auto"}
_HYBRID = {"vectors": "off", "words": "only", "both": "auto"}

_MOST = CUTS[-1]
_PARTS = 6  # windows of a sound that may all be among the answers

Served = dict[str, dict[str, Measures]]  # by direction, by way


def served(files: Sequence[CaptionedFile], model: str) -> Served:
    """Measures of captions that look for their file, and of files that look for a caption.

    `files` are of one modality. One library has the files and is asked with every caption; the
    other has every caption as a text file and is asked with every file. Equal captions come in
    the library's own order.
    """
    kind = files[0].modality
    found: Served = {}
    with _place() as place:
        texts, said = place / "texts", {}
        texts.mkdir()
        for row, file in enumerate(files):
            for number, caption in enumerate(file.captions):
                path = texts / f"{row:06}-{number}.txt"
                path.write_text(caption, encoding="utf-8")
                said[str(path)] = row
        own = {os.path.realpath(file.path): row for row, file in enumerate(files)}
        counts = [len(file.captions) for file in files]
        with open_library(place / "of-files", model=model) as library:
            library.index([file.path for file in files])
            asked = [language.text(caption) for file in files for caption in file.captions]
            rows = np.repeat(np.arange(len(files)), counts)
            ones = np.ones(len(rows), np.int64)
            found[f"text_to_{kind}"] = {
                name: _measured(library, asked, rows, own, ones, kind, way)
                for name, way in WAYS.items()
            }
        with open_library(place / "of-texts", model=model) as library:
            library.index(texts)
            totals = np.array(counts)
            found[f"{kind}_to_text"] = {
                name: _measured(
                    library, asked_with(files), np.arange(len(files)), said, totals,
                    Modality.TEXT, way,
                )
                for name, way in WAYS.items()
            }  # fmt: skip
    return found


def served_hybrid(
    files: Sequence[CaptionedFile], model: str, seed: int
) -> dict[str, Measures | int]:
    """Measures where half of the files have their first caption beside them, and the second
    caption of each file looks for it: by vectors alone, by words alone, by both.

    `files` have two captions at least. They are copied to a temporary folder.
    """
    with _place() as place:
        (place / "files").mkdir()
        own = {}
        told = np.random.default_rng(seed).permutation(len(files)) < len(files) // 2
        for row, file in enumerate(files):
            copy = place / "files" / f"{row:06}{file.path.suffix}"
            shutil.copyfile(file.path, copy)
            own[str(copy)] = row
            if told[row]:
                copy.with_suffix(".txt").write_text(file.captions[0], encoding="utf-8")
        with open_library(place / "library", model=model) as library:
            library.index(place / "files")
            asked = [language.text(file.captions[1]) for file in files]
            rows, kind = np.arange(len(files)), files[0].modality
            ones = np.ones(len(files), np.int64)
            found: dict[str, Measures | int] = {"files": len(files), "captioned": int(told.sum())}
            for name, way in _HYBRID.items():
                found[name] = _measured(library, asked, rows, own, ones, kind, way)
    return found


def served_classes(
    paths: Sequence[Path],
    labels: Sequence[int],
    queries: Sequence[Query],
    kind: Modality,
    model: str,
) -> Served:
    """Measures of classes' names, one query each, and of files that look for others of their class.

    By vectors alone: where files lie, and what they are called, often gives their class away.
    """
    real = [os.path.realpath(path) for path in paths]
    group = np.array(labels)
    sizes = np.bincount(group, minlength=len(queries))
    label_of = dict(zip(real, labels, strict=True))
    way = WAYS["library_vectors"]
    with _place() as place, open_library(place, model=model) as library:
        library.index(list(paths))
        every = np.arange(len(queries))
        names = _measured(library, queries, every, label_of, sizes, kind, way)
        alike = _measured(
            library, asked_with([CaptionedFile(path, (), kind) for path in paths]), group,
            label_of, sizes[group] - 1, kind, way, without=real,
        )  # fmt: skip
    return {
        f"text_to_{kind}": {"library_vectors": names},
        f"{kind}_to_{kind}": {"library_vectors": alike},
    }


def asked_with(files: Iterable[CaptionedFile]) -> list[Query]:
    """A query of each picture or sound."""
    by = {Modality.IMAGE: language.image, Modality.AUDIO: language.audio}
    return [by[file.modality](file.path) for file in files]


def _measured(
    library: Library,
    queries: Sequence[Query],
    rows: Ids,
    owner: Mapping[str, int],
    totals: Ids,
    kind: Modality,
    way: str,
    without: Sequence[str] = (),
) -> Measures:
    """Measures of queries whose right answers are the paths that `owner` gives to their rows.

    `totals`: how many are right for each; queries that nothing is right for are left out.
    `without`: of each query the path that is no answer to it.
    """
    many = (_MOST + bool(without)) * (_PARTS if kind is Modality.AUDIO else 1)
    ordered = np.zeros((len(queries), _MOST), bool)
    answers = library.query_many(queries, many, all=True, modality=kind, hybrid=way)
    for number, (row, hits) in enumerate(zip(rows.tolist(), answers, strict=True)):
        paths = dict.fromkeys(str(hit.path) for hit in hits)
        if without:
            paths.pop(without[number], None)
        right = [owner.get(path) == row for path in paths][:_MOST]
        ordered[number, : len(right)] = right
    some = totals > 0
    ordered, totals = ordered[some], totals[some]
    return told(metrics.ranks_in(ordered), metrics.ndcgs(ordered, totals, _MOST))


@contextmanager
def _place() -> Iterator[Path]:
    with TemporaryDirectory(prefix="mmsearch-") as name:
        yield Path(os.path.realpath(name))
