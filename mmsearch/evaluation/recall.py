"""`mmsearch bench recall`: what is known to be right, found by bare vectors and by a library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.datasets.captions import CaptionedFile, captions_in, data_hash, read_captions
from mmsearch.embedding import embed
from mmsearch.encoders import open_encoder
from mmsearch.errors import UsageError
from mmsearch.evaluation.classed import measure_classes
from mmsearch.evaluation.exact import Measures, at_cuts, encoded, measured, sample
from mmsearch.evaluation.provenance import provenance
from mmsearch.evaluation.served import served, served_hybrid
from mmsearch.records import Modality

if TYPE_CHECKING:
    from mmsearch.records import Ids, Vectors

Note = Callable[[str], None]

_HYBRID = 1000  # files at most that are copied to be measured with captions beside them


def measure_recall(
    data: Path,
    split: str | None = None,
    *,
    captions: Path | None = None,
    model: str = "builtin",
    folds: int = 0,
    limit: int | None = None,
    seed: int = 0,
    skip_missing: bool = False,
    note: Note = lambda _: None,
) -> dict[str, Any]:
    """Recall of a model on files with captions (see mmsearch.datasets.captions), else on files with
    classes (mmsearch.datasets.classes), bare and as served.

    By direction, "text_to_image", "image_to_text" and the same of audio: recall at 1, 5 and 10 by
    exact search over the raw embeddings. "search": the same of what `Library.query` answers, with
    all that it does beside comparing vectors. "measures" has both side by side, with all that
    mmsearch.evaluation.exact defines. "hybrid": what a caption beside half of the files adds.
    "folds": the mean over so many parts of the set, as they lie in its list (five of a thousand are
    what is told of COCO). `limit`: only so many files, drawn by `seed`. `skip_missing`: without
    the files that are not there, which are counted. Beside them what was measured: model and
    fingerprint, split, counts, seed, versions and the hash of the data. `note` hears what goes on.

    Raises UsageError for a folder it cannot read, LoadError for a file that does not decode,
    ModelError for a model without both towers.
    """
    if folds == 1 or folds < 0:
        raise UsageError(f"folds are parts of the set, at least 2, not {folds}")
    if not captions_in(data, split or "test", captions):
        if folds or captions or skip_missing:
            raise UsageError(f"{data} has no captions, and so no folds of them")
        try:
            return measure_classes(data, split, model=model, limit=limit, seed=seed, note=note)
        except UsageError as error:
            raise UsageError(f"{data} has no captions; as a set of classes: {error}") from error
    split = split or "test"
    missing: list[str] | None = [] if skip_missing else None
    with TemporaryDirectory(prefix="mmsearch-") as place:
        whole = read_captions(data, split, captions, into=Path(place), missing=missing)
        files = sample(whole, limit, seed)
        encoder = open_encoder(model)
        found: dict[str, Any] = {"search": {}, "measures": {}}
        for kind in sorted({file.modality for file in files}):
            mine = [file for file in files if file.modality is kind]
            _measure(found, kind, mine, model, folds, seed, note)
        count = sum(len(file.captions) for file in files)
        kinds = [file.modality for file in files]
        found |= provenance(encoder, seed) | {
            "split": split,
            "limit": limit,
            "files": len(files),
            "photos": kinds.count(Modality.IMAGE),
            "sounds": kinds.count(Modality.AUDIO),
            "captions": count,
            "missing": len(missing or ()),
            "data": data_hash(files),
        }
    return found


def _measure(
    found: dict[str, Any],
    kind: Modality,
    files: Sequence[CaptionedFile],
    model: str,
    folds: int,
    seed: int,
    note: Note,
) -> None:
    """Add what is measured of the files of one modality."""
    count = sum(len(file.captions) for file in files)
    note(f"encoding {count:,} captions and {len(files):,} files")
    texts, rows, owners = encoded(files, lambda what, inputs: embed(inputs, what, model))
    bare = _directions(kind, texts, rows, owners)
    note("asking a library of them")
    by_library = served(files, model)
    for direction, measures in bare.items():
        found[direction] = at_cuts(measures)
        found["search"][direction] = at_cuts(by_library[direction]["library"])
        sizes = (count, len(files))[:: 1 if direction.startswith("text") else -1]
        found["measures"][direction] = {
            "queries": sizes[0], "items": sizes[1], "embeddings": measures, **by_library[direction],
        }  # fmt: skip
    if folds:
        parts = _folds(kind, texts, rows, owners, folds)
        found.setdefault("folds", {"count": folds}).update(parts)
    several = [file for file in files if len(file.captions) > 1]
    if len(several) > 1:
        note("asking a library with captions beside half of them")
        some = sample(several, _HYBRID, seed)
        found.setdefault("hybrid", {})[f"text_to_{kind}"] = served_hybrid(some, model, seed)


def _directions(kind: Modality, texts: Vectors, rows: Vectors, owners: Ids) -> dict[str, Measures]:
    own = np.arange(len(rows))
    return {
        f"text_to_{kind}": measured(texts, rows, owners, own),
        f"{kind}_to_text": measured(rows, texts, own, owners),
    }


def _folds(
    kind: Modality, texts: Vectors, rows: Vectors, owners: Ids, folds: int
) -> dict[str, Measures | int]:
    """The mean of the measures over parts of equal size; what is left over is in none."""
    size = len(rows) // folds
    if not size:
        raise UsageError(f"{len(rows)} files are too few for {folds} folds")
    parts = []
    for first in range(0, size * folds, size):
        mine = (owners >= first) & (owners < first + size)
        part = rows[first : first + size]
        parts.append(_directions(kind, texts[mine], part, owners[mine] - first))
    means: dict[str, Measures | int] = {f"{kind}_files": size}
    for direction in parts[0]:
        means[direction] = {
            name: round(float(np.mean([part[direction][name] for part in parts])), 6)
            for name in parts[0][direction]
        }
    return means
