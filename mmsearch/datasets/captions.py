"""Pictures and sounds with captions, to measure retrieval with: a set has to be whole.

A set is a list, a webdataset's tar, or a folder that holds, in this order of preference,

- `captions.jsonl`, `.csv` or `.tsv`: a row a file or a caption; where rows have a "split", only
  those of the split that is asked for, else all
- `Flickr8k.token.txt` and its like, a line `NAME#0<tab>caption` (or `NAME#zhc#0 caption`, as
  Flickr8k-CN has it), Flickr30k's `results_20130124.token`, with `Flickr_8k.testImages.txt` or
  `test.txt`, the names of a split
- `dataset_flickr8k.json` and its like, the splits of Karpathy and Fei-Fei (arXiv 1412.2306)
- `captions_val2017.json` and its like, COCO's: the split is a part of the name
- `clotho_captions_evaluation.csv`, Clotho's, or `test.csv`, AudioCaps': likewise
- `results.csv`, Flickr30k's, or `captions.txt`, Flickr8k's, as Kaggle has them: without splits
- tars, those whose name has the split in it if there are any; of a folder of the split's name, if
  there is one, or of this, `x.jpg` beside `x.txt`

The files lie in the folder or in one beside the list (mmsearch.datasets.reading).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmsearch.datasets.pairs import MODALITY_OF, Bad, Pair
from mmsearch.datasets.reading import rows
from mmsearch.errors import PairsError, UsageError
from mmsearch.records import Modality

_KNOWN = (
    "captions.jsonl", "captions.csv", "captions.tsv", "*.token.txt", "*.token", "dataset*.json",
    "captions_{split}*.json", "annotations/captions_{split}*.json", "*captions*{split}*.csv",
    "{split}.csv", "results.csv", "captions.txt",
)  # fmt: skip
_TARS = ("*{split}*.tar", "{split}/*.tar", "*.tar")  # all that fit the first of these that any does


@dataclass(frozen=True, slots=True)
class CaptionedFile:
    """A picture or sound and the sentences that people wrote about it."""

    path: Path
    captions: tuple[str, ...]
    modality: Modality = Modality.IMAGE


def read_captions(
    data: Path,
    split: str,
    file: Path | None = None,
    *,
    into: Path | None = None,
    missing: list[str] | None = None,
) -> list[CaptionedFile]:
    """The files of one split, in the order of their list; `file` has other captions of them.

    The members of a tar are written `into` a folder: what reads pictures and sounds wants files.
    What is not there or lacks a caption is refused, for a recall among fewer files is another,
    unless `missing` collects the names.

    Raises UsageError, which says what was looked for: a folder of another layout, a split that
    is not there, a file that is missing, a file without a caption.
    """
    places = captions_in(data, split, file)
    if not places:
        known = ", ".join(pattern.format(split=split) for pattern in (*_KNOWN, *_TARS))
        raise UsageError(f"{data} has no captions: none of {known}, nor x.txt beside x.jpg")
    images = data if file is not None and data.is_dir() else None
    found: dict[Pair, list[str]] = {}
    try:
        for place in places:
            for row in rows(place, images, split):
                if isinstance(row, Bad):
                    _refuse(f"{row.name}: {row.reason}", missing)
                else:
                    key = Pair(row.file, row.modality, (), row.offset, row.size, row.member)
                    found.setdefault(key, []).extend(row.captions)
    except PairsError as error:
        raise UsageError(str(error)) from error
    files = list(_whole(found, into, missing))
    if not files:
        raise UsageError(f"{places[0]}: no file of the split {split!r}")
    return files


def captions_in(data: Path, split: str, file: Path | None = None) -> list[Path]:
    """What holds a set's captions: lists, tars or a folder; nothing where it has none.

    Raises UsageError for a path that is not there.
    """
    if file is not None:
        named = data / file if (data / file).is_file() else file
        if named.is_file():
            return [named]
        raise UsageError(f"no such file of captions: {data / file}")
    if not data.is_dir():
        if data.suffix.lower() == ".zip":
            return []
        if not data.is_file():
            raise UsageError(f"no such folder or list: {data}")
        return [data]
    for pattern in _KNOWN:
        for match in sorted(data.glob(pattern.format(split=split))):
            return [match]
    for pattern in _TARS:
        if tars := sorted(data.glob(pattern.format(split=split))):
            return tars
    place = data / split if (data / split).is_dir() else data
    beside = any(
        path.suffix.lower().lstrip(".") in MODALITY_OF and path.with_suffix(".txt").is_file()
        for path in place.rglob("*")
    )
    return [place] if beside else []


def data_hash(files: Sequence[CaptionedFile]) -> str:
    """SHA-256 of the files' bytes and their captions, in order; names do not matter."""
    whole = hashlib.sha256()
    for one in files:
        with one.path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
        whole.update(json.dumps(one.captions).encode())
    return whole.hexdigest()


def _whole(
    found: dict[Pair, list[str]], into: Path | None, missing: list[str] | None
) -> Iterator[CaptionedFile]:
    for number, (pair, captions) in enumerate(found.items()):
        said = tuple(caption.strip() for caption in captions)
        path = pair.file
        if not said or not all(said):
            _refuse(f"{pair.name} lacks a caption, or has an empty one", missing)
        elif not pair.file.is_file():
            _refuse(f"{pair.name} is not there", missing)
        else:
            if pair.member:
                if into is None:
                    raise UsageError(f"{pair.file} is an archive: unpack it first")
                path = into / f"{number:08}{Path(pair.member).suffix}"
                path.write_bytes(pair.read())
            yield CaptionedFile(path, said, pair.modality)


def _refuse(what: str, missing: list[str] | None) -> None:
    if missing is None:
        raise UsageError(f"{what}: a set that is measured has to be whole")
    missing.append(what)
