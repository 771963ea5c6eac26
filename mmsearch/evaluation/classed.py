"""Files with classes: zero-shot labels, classes found by their names, and files by their like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch import language
from mmsearch.datasets.classes import ClassedFile, data_hash, read_classes, unpacked
from mmsearch.embedding import embed
from mmsearch.encoders import Encoder, open_encoder
from mmsearch.evaluation.exact import Measures, at_cuts, measured, sample
from mmsearch.evaluation.provenance import provenance
from mmsearch.evaluation.served import served_classes
from mmsearch.labels import TEMPLATES, check_templates, class_rows, prompts
from mmsearch.metrics import accuracy, macro_f1, predicted_classes
from mmsearch.records import Modality

if TYPE_CHECKING:
    from mmsearch.records import Ids, Vectors

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Encoded:
    """The files of one modality: (n, dim) rows, (n,) the class of each, (classes, dim) the rows of
    all classes' names.
    """

    files: Sequence[ClassedFile]
    rows: Vectors
    labels: Ids
    classes: Vectors


def measure_labels(
    data: Path,
    split: str | None = None,
    *,
    templates: Sequence[str] = (),
    model: str = "builtin",
    note: Note = lambda _: None,
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
        names, parts = _encoded(files, encoder, model, templates, note)
        hashed = data_hash(files)
    return {
        **_zero_shot(parts),
        "model": encoder.name,
        "fingerprint": encoder.fingerprint,
        "split": split,
        "files": len(files),
        "classes": len(names),
        "templates": {str(kind): list(templates or TEMPLATES[kind]) for kind in parts},
        "data": hashed,
    }


def measure_classes(
    data: Path,
    split: str | None = None,
    *,
    model: str = "builtin",
    limit: int | None = None,
    seed: int = 0,
    note: Note = lambda _: None,
) -> dict[str, Any]:
    """Files with classes as a set of retrieval: a class's name finds its files, and a file the name
    of its class and the others of it ("image_to_image"); "zero_shot" has accuracy and macro F1.

    A file is not to find itself. The prompts are those of mmsearch.labels, their mean being the
    query. `limit`: only so many files, drawn by `seed`. Raises as `measure_labels`.
    """
    encoder = open_encoder(model)
    found: dict[str, Any] = {"search": {}, "measures": {}}
    with unpacked(data) as folder:
        files = sample(read_classes(folder, split), limit, seed)
        names, parts = _encoded(files, encoder, model, (), note)
        every = np.arange(len(names))
        for kind, part in parts.items():
            alike = part.rows, part.rows, part.labels, part.labels
            bare: dict[str, Measures] = {
                f"text_to_{kind}": measured(part.classes, part.rows, every, part.labels),
                f"{kind}_to_text": measured(part.rows, part.classes, part.labels, every),
                f"{kind}_to_{kind}": measured(*alike, without_self=True),
            }
            note("asking a library of them")
            queries = [reduce(add, map(language.text, prompts(name, kind))) for name in names]
            by_library = served_classes(
                [file.path for file in part.files], part.labels.tolist(), queries, kind, model
            )
            for direction, measures in bare.items():
                found[direction] = at_cuts(measures)
                if of_library := by_library.get(direction, {}):
                    found["search"][direction] = at_cuts(of_library["library_vectors"])
                sizes = {"text": len(names), str(kind): len(part.files)}
                asked, _, sought = direction.partition("_to_")
                found["measures"][direction] = {
                    "queries": sizes[asked], "items": sizes[sought], "embeddings": measures,
                    **of_library,
                }  # fmt: skip
        hashed = data_hash(files)
    return (
        found
        | {"zero_shot": _zero_shot(parts)}
        | provenance(encoder, seed)
        | {
            "split": split,
            "limit": limit,
            "files": len(files),
            "classes": len(names),
            "data": hashed,
        }
    )


def _encoded(
    files: Sequence[ClassedFile],
    encoder: Encoder,
    model: str,
    templates: Sequence[str],
    note: Note,
) -> tuple[list[str], dict[Modality, Encoded]]:
    """The names of all classes, and the files of each modality."""
    names = sorted({file.label for file in files})
    note(f"encoding {len(files):,} files of {len(names):,} classes")
    parts = {}
    for kind in sorted({file.modality for file in files}):
        mine = [file for file in files if file.modality is kind]
        parts[kind] = Encoded(
            mine,
            embed([file.path for file in mine], kind, model),
            np.array([names.index(file.label) for file in mine]),
            class_rows(encoder, dict.fromkeys(names, ()), kind, templates),
        )
    return names, parts


def _zero_shot(parts: dict[Modality, Encoded]) -> dict[str, float]:
    scores = np.concatenate([part.rows @ part.classes.T for part in parts.values()])
    labels = np.concatenate([part.labels for part in parts.values()])
    predicted = predicted_classes(scores, labels)
    return {
        "accuracy": round(accuracy(scores, labels), 6),
        "macro_f1": round(macro_f1(predicted, labels, scores.shape[1]), 6),
    }
