"""ESC-50 (Piczak 2015): environmental sounds of 50 classes, and the pictures that go with them."""

from __future__ import annotations

import csv
import zipfile
from dataclasses import dataclass
from pathlib import Path

from mmsearch.training.pairs import class_names


@dataclass(frozen=True, slots=True)
class Clip:
    """Five seconds of sound. Clips of one recording are in one fold."""

    path: Path
    fold: int
    category: str


def clips(data: Path) -> list[Clip]:
    """Every clip, in the order of ``labels.csv``."""
    folder = data / "esc50"
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        return [
            Clip(folder / "audio" / row["file"], int(row["fold"]), row["category"])
            for row in csv.DictReader(file)
        ]


def spoken(category: str) -> str:
    """A class in words: "sea waves"."""
    return category.replace("_", " ")


def pictured(data: Path) -> dict[str, list[int]]:
    """The classes that tiny-ImageNet has photos for: rows of the 1,000 ImageNet classes of each.

    ``esc50_to_imagenet.tsv`` says which: those of the 200 whose photos show what makes the sound
    (any kind of dog for a bark, a stopwatch for a tick), whatever a model makes of them.
    """
    with zipfile.ZipFile(data / "tiny_imagenet_20k.zip") as archive:
        lines = archive.read("tiny_imagenet_20k/classes.tsv").decode().splitlines()
    rows = {", ".join(names): row for row, names in enumerate(class_names(data))}
    row_of = {wnid: rows[names] for wnid, names in (line.split("\t")[:2] for line in lines)}
    table = Path(__file__).with_name("esc50_to_imagenet.tsv").read_text(encoding="utf-8")
    entries = (line.split("\t")[:2] for line in table.splitlines())
    return {category: [row_of[wnid] for wnid in wnids.split()] for category, wnids in entries}
