"""Photos with captions, in the layouts that sets for measuring retrieval come in.

A folder holds one file of captions, and the photos in it or in a folder beside that file:

- `captions.jsonl`: a line `{"file": ..., "captions": [...]}` for each photo; where lines have a
  "split", only those of the split that is asked for, else all
- `Flickr8k.token.txt` and its like, a line `NAME#0<tab>caption` (or `NAME#zhc#0 caption`, as
  Flickr8k-CN has it), with `Flickr_8k.testImages.txt`, the names of a split
- `dataset_flickr8k.json` and its like, the splits of Karpathy and Fei-Fei (arXiv 1412.2306)
- `captions_val2017.json` and its like, COCO's: the split is a part of the name
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsearch.errors import UsageError


@dataclass(frozen=True, slots=True)
class CaptionedPhoto:
    """A photo and the sentences that people wrote about it."""

    path: Path
    captions: tuple[str, ...]


def read_captions(folder: Path, split: str, file: Path | None = None) -> list[CaptionedPhoto]:
    """The photos of one split, in the order of their file; `file` has other captions of them.

    Raises UsageError, which says what was looked for: a folder of another layout, a split that
    is not there, a photo that is missing, a photo without a caption.
    """
    source = _captions_file(folder, split, file)
    try:
        if source.suffix == ".jsonl":
            found = list(_lines(source, split))
        elif source.suffix == ".json":
            found = list(_json(source, split))
        else:
            found = list(_tokens(source, _names(folder, split)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{source}: not captions as mmsearch knows them ({error!r})") from error
    if not found:
        raise UsageError(f"{source}: no photo of the split {split!r}")
    places = [folder / "images", folder, folder / source.stem.removeprefix("captions_")]
    return [_photo(source, places, name, captions) for name, captions in found]


def data_hash(photos: Sequence[CaptionedPhoto]) -> str:
    """SHA-256 of the photos' bytes and their captions, in order; names do not matter."""
    whole = hashlib.sha256()
    for photo in photos:
        with photo.path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
        whole.update(json.dumps(photo.captions).encode())
    return whole.hexdigest()


def _captions_file(folder: Path, split: str, file: Path | None) -> Path:
    if file is not None:
        named = folder / file if (folder / file).is_file() else file
        if named.is_file():
            return named
        raise UsageError(f"no such file of captions: {folder / file}")
    if not folder.is_dir():
        raise UsageError(f"no such folder: {folder}")
    known = ("captions.jsonl", "*.token.txt", "dataset*.json", f"captions_{split}*.json")
    for pattern in (*known, f"annotations/captions_{split}*.json"):
        for match in sorted(folder.glob(pattern)):
            return match
    raise UsageError(f"{folder} has no captions: none of {', '.join(known)}")


def _names(folder: Path, split: str) -> list[str]:
    """The photos of a split of Flickr8k."""
    for path in sorted(folder.glob(f"*{split}Images.txt")):
        return path.read_text(encoding="utf-8").split()
    raise UsageError(f"{folder} has no list of the split {split!r}: *{split}Images.txt")


def _tokens(source: Path, names: list[str]) -> Iterator[tuple[str, list[str]]]:
    captions: dict[str, list[str]] = {name: [] for name in names}
    for line in source.read_text(encoding="utf-8").splitlines():
        key, _, sentence = line.partition("\t") if "\t" in line else line.partition(" ")
        name = key.partition("#")[0]
        if name in captions:
            captions[name].append(sentence)
    yield from captions.items()


def _lines(source: Path, split: str) -> Iterator[tuple[str, list[str]]]:
    for line in source.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry.get("split", split) == split:
            yield entry["file"], entry["captions"]


def _json(source: Path, split: str) -> Iterator[tuple[str, list[str]]]:
    data: dict[str, list[dict[str, Any]]] = json.loads(source.read_text(encoding="utf-8"))
    if "annotations" not in data:  # Karpathy's
        for image in data["images"]:
            if image["split"] == split:
                name = f"{image['filepath']}/" if "filepath" in image else ""
                yield name + image["filename"], [s["raw"] for s in image["sentences"]]
        return
    captions: dict[int, list[str]] = {}
    for annotation in data["annotations"]:
        captions.setdefault(annotation["image_id"], []).append(annotation["caption"])
    for image in data["images"]:
        yield image["file_name"], captions.get(image["id"], [])


def _photo(source: Path, places: list[Path], name: str, captions: list[str]) -> CaptionedPhoto:
    said = tuple(caption.strip() for caption in captions)
    if not said or not all(said):
        raise UsageError(f"{source}: {name} lacks a caption, or has an empty one")
    for place in places:
        if (place / name).is_file():
            return CaptionedPhoto(place / name, said)
    looked = ", ".join(str(place) for place in places[:2])
    raise UsageError(f"{source} names {name}, which is not in {looked}")
