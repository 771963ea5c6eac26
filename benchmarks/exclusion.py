"""How well "A, not B" is answered: left out, subtracted, or said in a sentence.

    python benchmarks/exclusion.py --data DATA --out benchmarks/results/exclusion.json

Two collections, each indexed by the real library: the 1,000 test photos of Flickr8k, where a
photo has A when one of its five captions has the word, and 40 photos of each of the classes of
tiny-ImageNet that stand in GROUPS. Precision at 10 of each way, over all pairs; the photos that
are right have A and not B. Vectors alone: names and captions have no part in it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measuring import machine, origin

from mmsearch import open_library, text
from mmsearch.datasets.captions import read_captions
from mmsearch.language import Query
from mmsearch.library import Library

# What Flickr8k's captions name most often; a pair counts when enough photos have A, and A
# with B as well as without.
WORDS = (
    "dog", "man", "woman", "boy", "girl", "child", "people", "water", "snow", "grass", "beach",
    "ball", "street", "sand", "field", "ocean", "mountain", "rock", "bicycle", "pool", "car",
    "horse", "bench", "tree", "hat", "camera", "fence", "river", "swing", "motorcycle",
)  # fmt: skip
_BOTH, _ALONE = 10, 20  # photos at least

# A word, and the tiny-ImageNet classes it covers by their first names.
GROUPS = {
    "a dog": ("German shepherd", "Labrador retriever", "golden retriever", "Yorkshire terrier",
              "Chihuahua", "standard poodle"),
    "a cat": ("Egyptian cat", "tabby", "Persian cat"),
    "an ape": ("chimpanzee", "orangutan", "baboon"),
    "a butterfly": ("monarch", "sulphur butterfly"),
    "an insect": ("monarch", "sulphur butterfly", "cockroach", "mantis", "ladybug", "bee",
                  "dragonfly", "fly", "grasshopper", "walking stick"),
    "a spider": ("tarantula", "black widow"),
    "a bird": ("albatross", "king penguin", "goose", "black stork"),
    "a fruit": ("lemon", "banana", "orange", "pomegranate"),
    "a vehicle": ("school bus", "freight car", "moving van", "bullet train", "tractor",
                  "police van", "limousine", "sports car", "beach wagon", "trolleybus",
                  "convertible", "go-kart"),
    "a bridge": ("suspension bridge", "steel arch bridge", "viaduct"),
    "a ball": ("volleyball", "basketball", "rugby ball"),
    "clothes": ("cardigan", "fur coat", "miniskirt", "academic gown", "kimono", "poncho",
                "military uniform", "bikini", "apron"),
}  # fmt: skip
_OF_EACH = 40

WAYS: dict[str, Callable[[str, str], tuple[str | Query, bool]]] = {
    "A alone": lambda a, b: (text(a), False),
    "A - B, left out": lambda a, b: (text(a) - text(b), False),
    "A - B, subtracted": lambda a, b: (text(a) - text(b), True),
    "the sentence: A without B": lambda a, b: (text(f"{a} without {b}"), False),
}


Pair = tuple[str, str, set[str], set[str]]  # A, B as asked; the photos that have A, and B


def flickr(data: Path, folder: Path) -> tuple[list[Path], list[Pair]]:
    """The test photos, and every pair of WORDS with enough photos on either side."""
    photos = read_captions(data / "flickr8k", "test")
    having: dict[str, set[str]] = {word: set() for word in WORDS}
    for photo in photos:
        said = re.findall(r"[a-z]+", " ".join(photo.captions).lower().replace("children", "child"))
        for word in {one.removesuffix("s") for one in said} | set(said):
            if word in having:
                having[word].add(photo.path.name)
    pairs = [
        (a, b, having[a], having[b])
        for a, b in itertools.permutations(WORDS, 2)
        if len(having[a] & having[b]) >= _BOTH and len(having[a] - having[b]) >= _ALONE
    ]
    return [photo.path for photo in photos], pairs


def classes(data: Path, folder: Path) -> tuple[list[Path], list[Pair]]:
    """Photos of the classes in GROUPS, written to a folder; and each group without a member."""
    with zipfile.ZipFile(data / "tiny_imagenet_20k.zip") as archive:
        names = {name.rpartition("/")[2]: name for name in archive.namelist()}
        table = archive.read(names["classes.tsv"]).decode()
        wnid_of = {
            row.split("\t")[1].split(",")[0]: row.split("\t")[0] for row in table.splitlines()
        }
        photos: dict[str, set[str]] = {}
        paths = []
        for member in sorted({name for group in GROUPS.values() for name in group}):
            theirs = sorted(name for name in names if name.startswith(wnid_of[member]))
            photos[member] = set(theirs[:_OF_EACH])
            for name in theirs[:_OF_EACH]:
                paths.append(folder / name)
                paths[-1].write_bytes(archive.read(names[name]))
    pairs = []
    for group, members in GROUPS.items():
        whole = set[str]().union(*(photos[member] for member in members))
        pairs += [(group, f"a {member}", whole, photos[member]) for member in members]
    return paths, pairs


def measure(library: Library, pairs: list[Pair]) -> dict[str, float]:
    """By way, the mean share of right photos among the first ten, in percent."""
    found = {}
    for way, ask in WAYS.items():
        shares = []
        for subtract, some in itertools.groupby(
            sorted(((*ask(a, b), with_a - with_b) for a, b, with_a, with_b in pairs),
                   key=lambda one: one[1]),
            key=lambda one: one[1],
        ):  # fmt: skip
            queries, right = zip(*((query, names) for query, _, names in some), strict=True)
            answers = library.query_many(queries, 10, all=True, hybrid="off", subtract=subtract)
            shares += [
                sum(hit.path.name in names for hit in hits) / 10
                for hits, names in zip(answers, right, strict=True)
            ]
        found[way] = round(100 * float(np.mean(shares)), 2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="with flickr8k and tiny-ImageNet")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(), **origin(["numpy", "onnxruntime"])}
    for name, collect in (("flickr8k", flickr), ("tiny_imagenet", classes)):
        with tempfile.TemporaryDirectory() as work:
            folder = Path(work, "photos")
            folder.mkdir()
            paths, pairs = collect(options.data, folder)
            with open_library(Path(work, "index")) as library:
                library.index(paths)
                encoder = library.encoder
                precision = measure(library, pairs)
        result |= {"model": encoder.name, "fingerprint": encoder.fingerprint}
        result[name] = {"photos": len(paths), "pairs": len(pairs), "precision_at_10": precision}
    ours, alone, sentence = (list(WAYS)[number] for number in (1, 0, 3))
    flickr_8k, tiny = (result[name]["precision_at_10"] for name in ("flickr8k", "tiny_imagenet"))
    result["bars"] = [
        _bar("Flickr8k: left out, not below A alone", flickr_8k[ours], flickr_8k[alone]),
        _bar("classes: left out, not below A alone", tiny[ours], tiny[alone]),
        _bar("Flickr8k: 20 points above the sentence", flickr_8k[ours], flickr_8k[sentence] + 20),
    ]
    options.out.write_text(
        json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    print(json.dumps(result["bars"], indent=1))


def _bar(measure: str, value: float, least: float) -> dict[str, Any]:
    return {"measure": measure, "bar": f"≥ {least:g}", "measured": value, "met": value >= least}


if __name__ == "__main__":
    sys.exit(main())
