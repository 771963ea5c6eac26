"""How well a model and a library find photos by their captions, and captions by their photos;
and how well a model labels files with the names of their classes.

Recall at k as the literature of retrieval has it (CLIP, arXiv 2103.00020; CLIP_benchmark): the
share of queries with a right answer among the first k. A caption has one right photo; a photo is
found when any of its captions is. Fractions from 0 to 1.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.datasets.captions import CaptionedFile, data_hash, read_captions
from mmsearch.datasets.classes import data_hash as classed_hash
from mmsearch.datasets.classes import read_classes, unpacked
from mmsearch.embedding import embed
from mmsearch.encoders import open_encoder
from mmsearch.labels import TEMPLATES, check_templates, class_rows
from mmsearch.language import Query, image, text
from mmsearch.library import Library, open_library
from mmsearch.metrics import (
    Ranks,
    accuracy,
    first_ranks,
    macro_f1,
    predicted_classes,
    recall_at_k,
)
from mmsearch.records import Modality

if TYPE_CHECKING:
    from mmsearch.records import Ids, Vectors

Recalls = dict[str, float]  # "recall@1", "recall@5", "recall@10"
CUTS = (1, 5, 10)

_BLOCK = 1024  # queries whose scores are in memory at a time


def measure_recall(
    folder: Path,
    split: str = "test",
    *,
    captions: Path | None = None,
    model: str = "builtin",
    note: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Recall of a model on captioned photos (see mmsearch.datasets.captions), bare and as served.

    "text_to_image" and "image_to_text": exact search over the raw embeddings, where a right
    answer with the same score as a wrong one counts as behind it. "search": the same of what
    `Library.query` answers, with all that it does beside comparing vectors. Beside them what was
    measured: model and fingerprint, split, counts, and the hash of the data. `note` hears what
    goes on.

    Raises UsageError for a folder it cannot read, LoadError for a photo that does not decode,
    ModelError for a model without both towers.
    """
    photos = read_captions(folder, split, captions)
    count = sum(len(photo.captions) for photo in photos)
    note(f"encoding {count:,} captions and {len(photos):,} photos")
    ranks = exact_ranks(photos, lambda kind, inputs: embed(inputs, kind, model))
    found: dict[str, Any] = {way: recalls(of) for way, of in ranks.items()}
    note("asking a library of them")
    found["search"] = served(photos, model)
    encoder = open_encoder(model)
    return found | {
        "model": encoder.name,
        "fingerprint": encoder.fingerprint,
        "split": split,
        "photos": len(photos),
        "captions": count,
        "data": data_hash(photos),
    }


def measure_labels(
    data: Path,
    split: str | None = None,
    *,
    templates: Sequence[str] = (),
    model: str = "builtin",
    note: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Top-1 accuracy and macro F1 of zero-shot labels: the names of all classes are the vocabulary.

    `data` has files with classes (see mmsearch.datasets.classes). A label that another equals in
    score counts as missed. Beside them what was measured: model and fingerprint, split, counts,
    the templates of each modality (those of mmsearch.labels where none are given), and the hash
    of the data. `note` hears what goes on.

    Raises UsageError for data it cannot read and for a template without {}, LoadError for a file
    that does not decode, ModelError for a model without its tower.
    """
    check_templates(templates)
    encoder = open_encoder(model)
    with unpacked(data) as folder:
        files = read_classes(folder, split)
        names = sorted({file.label for file in files})
        note(f"encoding {len(files):,} files of {len(names):,} classes")
        scores = np.empty((len(files), len(names)), np.float32)
        used = {}
        for kind in sorted({file.modality for file in files}):
            mine = np.array([file.modality is kind for file in files])
            rows = embed([file.path for file in files if file.modality is kind], kind, model)
            scores[mine] = rows @ class_rows(encoder, dict.fromkeys(names, ()), kind, templates).T
            used[str(kind)] = list(templates or TEMPLATES[kind])
        hashed = classed_hash(files)
    labels = np.array([names.index(file.label) for file in files])
    predicted = predicted_classes(scores, labels)
    return {
        "accuracy": round(accuracy(scores, labels), 6),
        "macro_f1": round(macro_f1(predicted, labels, len(names)), 6),
        "model": encoder.name,
        "fingerprint": encoder.fingerprint,
        "split": split,
        "files": len(files),
        "classes": len(names),
        "templates": used,
        "data": hashed,
    }


def recalls(ranks: Ranks) -> Recalls:
    """Recall at 1, 5 and 10."""
    return {f"recall@{k}": round(recall_at_k(ranks, k), 6) for k in CUTS}


def exact_ranks(
    photos: Sequence[CaptionedFile], encode: Callable[[Modality, list[Any]], Vectors]
) -> dict[str, Ranks]:
    """By exact search over raw embeddings: the rank of each caption's photo ("text_to_image"), and
    of each photo's best caption ("image_to_text").

    `encode` gives (n, dim) unit rows for n inputs of a modality: photos by their paths.
    """
    sentences = [caption for photo in photos for caption in photo.captions]
    owners = np.repeat(np.arange(len(photos)), [len(photo.captions) for photo in photos])
    # each once, the short ones together: the same words get the same row, and little is padded
    different = sorted(set(sentences), key=lambda said: (len(said), said))
    row_of = {said: row for row, said in enumerate(different)}
    texts = encode(Modality.TEXT, different)[[row_of[said] for said in sentences]]
    pictures = encode(Modality.IMAGE, [photo.path for photo in photos])
    own = np.arange(len(photos))
    return {
        "text_to_image": best_ranks(texts, pictures, owners, own),
        "image_to_text": best_ranks(pictures, texts, own, owners),
    }


def best_ranks(queries: Vectors, items: Vectors, query_of: Ids, item_of: Ids) -> Ranks:
    """The rank of each query's best right item: the one that belongs to the same photo.

    queries: (n, dim), items: (m, dim) unit rows; query_of: (n,), item_of: (m,) their photos.
    Items with equal rows get equal scores, wherever they stand. Returns (n,).
    """
    different, which = np.unique(items, axis=0, return_inverse=True)
    ranks = [np.empty(0, np.int64)]
    for start in range(0, len(queries), _BLOCK):
        block = slice(start, start + _BLOCK)
        scores = (queries[block] @ different.T)[:, which.ravel()]
        ranks.append(first_ranks(scores, query_of[block, None] == item_of[None, :]))
    return np.concatenate(ranks)


def served(photos: Sequence[CaptionedFile], model: str) -> dict[str, Recalls]:
    """The same recalls from libraries of their own, in a temporary folder, through their query.

    One library has the photos and is asked with every caption; the other has every caption as a
    text file and is asked with every photo. Equal captions come in the library's own order.
    """
    with TemporaryDirectory(prefix="mmsearch-") as name:
        place = Path(os.path.realpath(name))
        texts = place / "texts"
        texts.mkdir()
        owner: dict[str, int] = {}  # by path, as the library has it
        for row, photo in enumerate(photos):
            owner[os.path.realpath(photo.path)] = row
            for number, caption in enumerate(photo.captions):
                path = texts / f"{row:06}-{number}.txt"
                path.write_text(caption, encoding="utf-8")
                owner[str(path)] = row
        found: dict[str, Recalls] = {}
        with open_library(place / "of-photos", model=model) as library:
            library.index([photo.path for photo in photos])
            asked = (
                (row, text(said)) for row, photo in enumerate(photos) for said in photo.captions
            )
            found["text_to_image"] = recalls(_served_ranks(library, asked, owner))
        with open_library(place / "of-texts", model=model) as library:
            library.index(texts)
            pictures = ((row, image(photo.path)) for row, photo in enumerate(photos))
            found["image_to_text"] = recalls(_served_ranks(library, pictures, owner))
    return found


def _served_ranks(
    library: Library, queries: Iterable[tuple[int, Query]], owner: dict[str, int]
) -> Ranks:
    """The rank of each query's first right answer; one more than was asked for, without any."""
    most = CUTS[-1]
    ranks = []
    for row, query in queries:
        right = [owner.get(str(hit.path)) == row for hit in library.query(query, most, all=True)]
        ranks.append(right.index(True) + 1 if any(right) else most + 1)
    return np.array(ranks, np.int64)
