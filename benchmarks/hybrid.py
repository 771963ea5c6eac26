"""How words, captions and pictures are made one answer: every fusion that was tried, and the bars.

    python benchmarks/hybrid.py --data ../shared/data/flickr8k --out benchmarks/results/hybrid.json

A photo of Flickr8k has five captions: the first stands beside some of the photos, the others
are asked for. R@10 is the share of questions whose photo is among the first ten answers, of
all photos, of those with a caption and of those without; ties count against. `offline` has
the evidence of every photo, as the library has it, fused in each of these ways, on dev, where
the fusion was chosen, and on test. `served` asks a real library; the bars are judged by it.
`words` is what looking up words costs among 100,000 made-up photos, half of them captioned.
Prints the bars; exits with 1 when one is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from measuring import machine, origin

import mmsearch
from mmsearch.catalog import Catalog, Content
from mmsearch.catalog.captions import caption_digest
from mmsearch.catalog.phrases import phrases
from mmsearch.datasets.captions import CaptionedFile, data_hash, read_captions
from mmsearch.embedding import embed
from mmsearch.encoders import Encoder, open_encoder
from mmsearch.metrics import Booleans, Floats, Ranks, first_ranks
from mmsearch.ranking import fuse, reciprocal_rank_fusion
from mmsearch.records import Modality

SEED = 1
FIRST = 10
QUESTIONS = (1, 2)  # the captions that are asked for; 0 is the sidecar's
ROWS = 100_000

Evidence = tuple[Floats, Floats, Floats]  # own, captions, words: (queries, photos), see fuse
Fusion = Callable[[Floats, Floats, Floats], Floats]


@dataclass(frozen=True, slots=True)
class Photos:
    """A split: (n, dim) rows of its photos, (n, c, dim) of their first captions."""

    photos: Sequence[CaptionedFile]
    own: Floats
    captions: Floats


def encoded(photos: Sequence[CaptionedFile], model: str) -> Photos:
    """A split with its rows."""
    own = embed([photo.path for photo in photos], "image", model)
    return Photos(photos, own, captions_of(photos, model))


def captions_of(photos: Sequence[CaptionedFile], model: str) -> Floats:
    """(n, c, dim) rows: of the sidecar's caption and of the questions."""
    few = [photo.captions[at] for photo in photos for at in (0, *QUESTIONS)]
    return embed(few, "text", model).reshape(len(photos), 1 + len(QUESTIONS), -1)


# -- evidence --------------------------------------------------------------------------


@contextmanager
def catalog_of(names: Sequence[str], captions: Sequence[str]) -> Iterator[Catalog]:
    """A catalog of photos without vectors, items 1 to n; an empty caption is none."""
    with (
        TemporaryDirectory(prefix="mmsearch-") as folder,
        Catalog.create(Path(folder) / "library.db") as catalog,
    ):
        with catalog.transaction():
            catalog.put_space("none", "0" * 64, 1)
        for start in range(0, len(names), 5000):
            with catalog.transaction():
                for at in range(start, min(start + 5000, len(names))):
                    _put(catalog, at, names[at], captions[at])
        yield catalog


def _put(catalog: Catalog, at: int, name: str, caption: str) -> None:
    nothing = np.empty((0, 1), np.float32)
    content_id = catalog.put_content(Content(b"%032d" % at, Modality.IMAGE, "JPEG"), 1, nothing)
    file_id = catalog.put_file(name.encode(), (1, 1, at), content_id=content_id)
    if caption:
        known = catalog.content_ids([caption_digest(caption)])
        said = next(iter(known.values()), None) or catalog.put_caption(caption, 1, nothing)
        catalog.put_captions(file_id, [(said, "sidecar")])


def told(catalog: Catalog, questions: Sequence[str], count: int) -> Floats:
    """(queries, photos) nats that the words of each photo tell, NaN for none."""
    words = np.full((len(questions), count), np.nan, np.float32)
    with catalog.snapshot():
        for row, question in zip(words, questions, strict=True):
            ids, fits = catalog.fits_by_words([question])
            row[ids - 1] = fits
    return words


def evidence(
    encoder: Encoder, questions: Floats, words: Floats, own: Floats, captions: Floats
) -> Evidence:
    """What each photo has to say to each question; captions: (n, dim), NaN rows for none."""
    of = encoder.backgrounds[Modality.TEXT]
    (mean, deviation), (mean_said, deviation_said) = of[Modality.IMAGE], of[Modality.TEXT]
    said = (questions @ captions.T - mean_said) / deviation_said
    return (questions @ own.T - mean) / deviation, said, words


# -- fusions ---------------------------------------------------------------------------


def _or(values: Floats, other: float | Floats) -> Floats:
    return np.where(np.isnan(values), other, values)


def by_ranks(k: float, weights: Sequence[float]) -> Fusion:
    """Reciprocal rank fusion of the lists of own vectors, captions' vectors and words."""

    def fused(*lists: Floats) -> Floats:
        found = np.full(lists[0].shape, -np.inf, np.float32)
        for number, row in enumerate(found):
            mine = [one[number] for one, weight in zip(lists, weights, strict=True) if weight]
            ranked: list[list[int]] = [
                np.argsort(-one, kind="stable")[: np.isfinite(one).sum()].tolist() for one in mine
            ]
            joined = reciprocal_rank_fusion(ranked, k, [weight for weight in weights if weight])
            row[joined] = np.arange(len(joined), 0, -1)
        return found

    return fused


FUSIONS: dict[str, Fusion] = {
    "own vectors": lambda own, said, words: own,
    "captions' vectors": lambda own, said, words: _or(said, -99),
    "words": lambda own, said, words: _or(words, -99),
    "reciprocal ranks, k = 60, own and words": by_ranks(60, (1, 0, 1)),
    "reciprocal ranks, k = 60": by_ranks(60, (1, 1, 1)),
    "reciprocal ranks, k = 5, own and half of words": by_ranks(5, (1, 0, 0.5)),
    "reciprocal ranks, k = 5, half of words": by_ranks(5, (1, 1, 0.5)),
    "own + 0.05 words": lambda own, said, words: own + 0.05 * _or(words, 0),
    "own + 0.1 words": lambda own, said, words: own + 0.1 * _or(words, 0),
    "sum": lambda own, said, words: own + _or(said, 0),
    "maximum": lambda own, said, words: np.fmax(own, said),
    "mean": lambda own, said, words: _or((own + said) / 2, own),
    "mean + 0.1 words": lambda own, said, words: _or((own + said) / 2, own) + 0.1 * _or(words, 0),
    "fuse": fuse,
}


def recalls(ranks: Ranks, captioned: Booleans) -> dict[str, float]:
    """R@10 in percent; captioned: whether each question's photo has a caption."""
    hits = ranks <= FIRST
    groups = {"all": hits, "captioned": hits[captioned], "bare": hits[~captioned]}
    return {name: round(100 * float(of.mean()), 2) for name, of in groups.items() if len(of)}


# -- settings --------------------------------------------------------------------------


def chosen(count: int, share: float, seed: int = SEED) -> Booleans:
    """(count,) which photos get a caption."""
    which = np.zeros(count, bool)
    which[np.random.default_rng(seed).permutation(count)[: round(share * count)]] = True
    return which


def offline(encoder: Encoder, split: Photos, chinese: Photos) -> dict[str, Any]:
    """R@10 of every fusion in the setting of the bars, and of the chosen one in others."""
    count = len(split.photos)
    half = chosen(count, 0.5)
    quarter = half & chosen(count, 0.5, SEED + 1)
    owner = np.tile(np.arange(count), len(QUESTIONS))
    numbers = [f"/photos/{number}.jpg" for number in range(count)]
    first = [photo.captions[0] for photo in split.photos]
    asked = [photo.captions[number] for number in QUESTIONS for photo in split.photos]
    rows = np.concatenate([split.captions[:, number] for number in QUESTIONS])
    theirs = [photo.captions[number] for number in QUESTIONS for photo in chinese.photos]
    their_rows = np.concatenate([chinese.captions[:, number] for number in QUESTIONS])

    def setting(
        which: Booleans,
        questions: tuple[Sequence[str], Floats] = (asked, rows),
        said: Sequence[str] = first,
        said_rows: Floats = split.captions[:, 0],
        *,
        named: bool = False,
    ) -> Evidence:
        shown = [text if has else "" for text, has in zip(said, which, strict=True)]
        names = [f"/photos/{text} {at}.jpg".replace("\n", " ") for at, text in enumerate(shown)]
        captions = np.where(which[:, None] & (not named), said_rows, np.float32(np.nan))
        with catalog_of(names if named else numbers, [""] * count if named else shown) as catalog:
            words = told(catalog, questions[0], count)
        return evidence(encoder, questions[1], words, split.own, captions)

    def judged(found: Evidence, which: Booleans, fusion: Fusion = fuse) -> dict[str, float]:
        ranks = first_ranks(fusion(*found), owner[:, None] == np.arange(count))
        return recalls(ranks, which[owner])

    def both(found: Evidence, which: Booleans) -> dict[str, Any]:
        return {
            name: judged(found, which, FUSIONS[name]) for name in ("own vectors", "mean", "fuse")
        }

    found = setting(half)
    other = np.where(quarter, np.roll(np.arange(count), 1), np.arange(count))
    wrong = setting(half, said=[first[at] for at in other], said_rows=split.captions[other, 0])
    return {
        "half captioned": {name: judged(found, half, way) for name, way in FUSIONS.items()},
        "a tenth captioned": both(setting(few := chosen(count, 0.1)), few),
        "nine tenths captioned": both(setting(most := chosen(count, 0.9)), most),
        "half captioned, half of these empty": both(setting(quarter), quarter),
        "half captioned, half of these with another photo's caption (counted as captioned)":
            both(wrong, quarter),
        "half have a caption as their name": both(setting(half, named=True), half),
        "Chinese questions, English captions": both(setting(half, (theirs, their_rows)), half),
        "Chinese questions, Chinese captions": both(
            setting(
                half, (theirs, their_rows), [photo.captions[0] for photo in chinese.photos],
                chinese.captions[:, 0],
            ),
            half,
        ),
        "one word": one_word(encoder, split, half),
    }  # fmt: skip


def one_word(encoder: Encoder, split: Photos, half: Booleans) -> dict[str, Any]:
    """Precision at 10 for single words. A photo is right that has the word in two or more of its
    other captions; words with 8 to 150 right photos. `bare`: the share of these among the ten.
    """
    count = len(split.photos)
    sets = [[set(_words(text)) for text in photo.captions[1:]] for photo in split.photos]
    seen = Counter(word for photo in sets for said in photo for word in said)
    right = {
        word: np.array([sum(word in said for said in photo) >= 2 for photo in sets])
        for word in sorted(seen)
    }
    words = [word for word, found in right.items() if 8 <= found.sum() <= 150]
    shown = [p.captions[0] if has else "" for p, has in zip(split.photos, half, strict=True)]
    with catalog_of([f"/photos/{number}.jpg" for number in range(count)], shown) as catalog:
        said = told(catalog, words, count)
    captions = np.where(half[:, None], split.captions[:, 0], np.float32(np.nan))
    found = evidence(encoder, embed(words, "text", encoder.name), said, split.own, captions)
    relevant = np.stack([right[word] for word in words])
    results: dict[str, Any] = {"words": len(words)}
    for name in ("own vectors", "words", "mean", "fuse"):
        first = np.argsort(-FUSIONS[name](*found), axis=1, kind="stable")[:, :FIRST]
        precision = float(np.take_along_axis(relevant, first, 1).mean())
        results[name] = {
            "precision@10": round(100 * precision, 2),
            "bare": round(100 * float((~half)[first].mean()), 2),
        }
    return results


def _words(text: str) -> list[str]:
    return [phrase.strip('"').casefold() for phrase in phrases([text])]


# -- a real library --------------------------------------------------------------------


def served(photos: Sequence[CaptionedFile], which: Booleans, model: str) -> dict[str, Any]:
    """R@10 of a library in each mode: photos in a folder, captions in sidecars, empty ones for
    those not chosen, asked with another caption of each photo.
    """
    found: dict[str, Any] = {}
    with TemporaryDirectory(prefix="mmsearch-") as folder:
        place = Path(folder).resolve() / "photos"
        place.mkdir()
        owner: dict[Path, int] = {}
        for number, (photo, has) in enumerate(zip(photos, which, strict=True)):
            path = place / f"{number:04}.jpg"
            path.write_bytes(photo.path.read_bytes())
            path.with_suffix(".txt").write_text(photo.captions[0] if has else "", encoding="utf-8")
            owner[path] = number
        with mmsearch.open_library(Path(folder) / "index", model=model) as library:
            library.index(place)
            for mode in ("auto", "off", "only"):
                ranks = []
                for caption in QUESTIONS[:1]:
                    for number, photo in enumerate(photos):
                        hits = library.query(
                            mmsearch.text(photo.captions[caption]), FIRST, hybrid=mode, all=True
                        )
                        mine = [owner[hit.path] == number for hit in hits]
                        ranks.append(mine.index(True) + 1 if any(mine) else FIRST + 1)
                found[mode] = recalls(np.array(ranks), which)
    return found


# -- cost ------------------------------------------------------------------------------


def cost_of_words(captions: Sequence[str], questions: Sequence[str]) -> dict[str, Any]:
    """Milliseconds of wall time to look up the words of each question among many photos, and the
    megabytes of the two indexes.
    """
    random = np.random.default_rng(SEED)
    said = [text.split() for text in captions]
    folders = [
        " ".join(random.choice(said[int(at)], 2)) for at in random.integers(0, len(said), 999)
    ]
    names = [
        f"/home/me/Pictures/{2000 + at % 25} {folders[at % 999]}/IMG_{at:06}.JPG"
        for at in range(ROWS)
    ]
    made = [
        " ".join([*said[int(a)], *said[int(b)]][::2]) if at % 2 else ""
        for at, (a, b) in enumerate(random.integers(0, len(said), (ROWS, 2)))
    ]
    with catalog_of(names, made) as catalog:
        times = []
        for question in [*questions, *questions]:
            start = time.perf_counter()
            with catalog.snapshot():
                catalog.fits_by_words([question])
            times.append(1000 * (time.perf_counter() - start))
        times = sorted(times[len(questions) :])  # once to warm up
        sizes = catalog._connection.exec_driver_sql(
            "SELECT substr(name, 1, instr(name, '_') - 1), sum(pgsize) FROM dbstat "
            "WHERE name GLOB 'keywords_*' OR name GLOB 'substrings_*' GROUP BY 1"
        ).all()
    return {
        "photos": ROWS,
        "questions": len(questions),
        "median_ms": round(statistics.median(times), 3),
        "p90_ms": round(times[round(0.9 * len(times))], 3),
        "megabytes": {name: round(size / 1e6, 1) for name, size in sizes},
    }


# -- bars ------------------------------------------------------------------------------


def bars(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The bars on the test split, with what was measured of the real library."""
    half, empty = results["served"]["half captioned"], results["served"]["half of these empty"]
    captions = results["offline"]["test"]["half captioned"]["captions' vectors"]["all"]
    alone = max(half["off"]["all"], half["only"]["all"], captions)
    figures = (
        ("R@10 above the better part alone, points", 4, half["auto"]["all"] - alone),
        ("photos without text against vectors alone, points", -8,
         half["auto"]["bare"] - half["off"]["bare"]),
        ("half of the sidecars empty, against vectors alone, points", 0,
         empty["auto"]["all"] - empty["off"]["all"]),
    )  # fmt: skip
    return [
        {"measure": name, "least": least, "measured": round(figure, 2), "met": figure >= least}
        for name, least, figure in figures
    ]


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="builtin")
    arguments = parser.parse_args()
    conditions = {"machine": machine(), **origin(("numpy", "onnxruntime", "sqlalchemy"))}
    encoder = open_encoder(arguments.model)
    results: dict[str, Any] = {
        "model": encoder.name, "fingerprint": encoder.fingerprint, "seed": SEED, "offline": {},
    }  # fmt: skip
    for name in ("dev", "test"):
        photos = read_captions(arguments.data, name)
        foreign = {
            photo.path: photo
            for photo in read_captions(arguments.data, name, Path("Flickr8k-CN.zhc.txt"))
        }
        chinese = [foreign[photo.path] for photo in photos]
        split = encoded(photos, arguments.model)
        other = Photos(chinese, split.own, captions_of(chinese, arguments.model))
        results["offline"][name] = {"data": data_hash(photos)} | offline(encoder, split, other)
    half = chosen(len(photos), 0.5)
    empty = half & chosen(len(photos), 0.5, SEED + 1)
    results["served"] = {
        "half captioned": served(photos, half, arguments.model),
        "half of these empty": served(photos, empty, arguments.model),
    }
    said = [text for photo in photos for text in photo.captions]
    results["words"] = cost_of_words(said, said[::17])
    results["bars"] = bars(results)
    arguments.out.write_text(
        json.dumps(results | conditions, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    for bar in results["bars"]:
        met = "met" if bar["met"] else "MISSED"
        print(f"{bar['measure']}: {bar['measured']:+} (at least {bar['least']:+}): {met}")
    return 0 if all(bar["met"] for bar in results["bars"]) else 1


if __name__ == "__main__":
    sys.exit(main())
