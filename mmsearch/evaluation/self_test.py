"""`mmsearch bench self`: is one's own library sound, and does it find what it should?

Nobody has to say what is right: a file is the right answer to its own caption, its own name, and
its own altered copy; a second answer has to be the first; and the fast answer has to be the slow
one. Copies of a file, and files that the same is said of, are as right as the file itself. The
library is only read; altered copies go to a temporary folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch import language
from mmsearch.embedding import embed
from mmsearch.errors import BenchmarkError, LoadError, MmsearchError
from mmsearch.evaluation.altered import WAYS, opened_copy
from mmsearch.evaluation.exact import sample
from mmsearch.evaluation.provenance import provenance
from mmsearch.evaluation.shelf import Shelf, owners_of, read_shelf, words_of
from mmsearch.language import Query
from mmsearch.library import Library, open_library
from mmsearch.records import Item, Modality

if TYPE_CHECKING:
    from mmsearch.records import Vectors

Note = Callable[[str], None]

_K = 10
_PARTS = 6  # of one file that may all be among the answers
_STORED = 0.999  # the least cosine of a vector in half precision with what it was before
_LAST_BITS = 1e-5  # float32 adds up in another order
_STOCK = ("a dog on grass", "people", "the sea", "a red car", "music", "a street at night")


def self_test(
    library: Library, *, count: int = 100, seed: int = 0, note: Note = lambda _: None
) -> dict[str, Any]:
    """Test a library by itself, with `count` files, captions or names at most of each kind.

    - "known_item": captions in files, captions beside them ("sidecars") and names as queries, by
      vectors alone and as the library answers: how often the file is first, and among ten
    - "altered": the same of altered copies of pictures and sounds (mmsearch.evaluation.altered)
    - "determinism": whether a file encoded twice has one vector, the vector that is stored, and
      whether a question put twice, and to the library opened anew, has one answer
    - "approximate": the share of the true ten, by brute force over the catalog's own vectors with
      the constants of hubness, that the library's engine answers, each modality by itself

    What there is nothing of is a string that says so. "problems" are sentences on what could not
    be tested, and on what must not be. A library of several models is tested as the first of
    those that it was opened with. Raises LibraryMissing, BenchmarkError where nothing at all
    could be tested.
    """
    shelf = read_shelf(library)
    with open_library(library.folder, model=shelf.model, keep_queries=False) as of_one:
        return _tested(of_one, shelf, count, seed, note)


def _tested(library: Library, shelf: Shelf, count: int, seed: int, note: Note) -> dict[str, Any]:
    files = sample(shelf.files, count, seed)
    problems: list[str] = []
    note(f"asking for {len(files):,} files by captions and names")
    known = _known_items(library, shelf, count, seed)
    note("asking with altered copies of them")
    found = {
        "known_item": known,
        "altered": _altered(library, files, shelf, problems),
        "determinism": _determinism(library, files, shelf, problems),
    }
    note("holding answers against brute force")
    found["approximate"] = _approximate(library, shelf, count, seed)
    if all(isinstance(part, str) for part in (*known.values(), *found["altered"].values())):
        raise BenchmarkError(
            f"{library.folder}: nothing could be tested: {'; '.join(problems) or 'it is empty'}"
        )
    counts = {"files": len(shelf.files), "items": len(shelf.items), "sample": len(files)}
    return found | {"problems": problems} | counts | provenance(shelf.encoder, seed)


# -- known items ---------------------------------------------------------------------------


def _known_items(library: Library, shelf: Shelf, count: int, seed: int) -> dict[str, Any]:
    said: dict[str, list[tuple[str, set[str]]]] = {"captions": [], "sidecars": [], "names": []}
    for item in shelf.files:
        paths = shelf.paths_of[shelf.vector_of[item.id]]
        for caption in shelf.captions.get(item.id, ()):
            beside = caption.source == "sidecar" or "." in caption.source
            said["sidecars" if beside else "captions"].append((caption.text, paths))
        if name := words_of(item.path):
            said["names"].append((name, paths))
    found: dict[str, Any] = {}
    for what, pairs in said.items():
        owners = owners_of(pairs)
        if not owners:
            found[what] = "no captions beside files" if what == "sidecars" else f"no {what}"
            continue
        asked = sample(list(owners), count, seed)
        queries = [language.text(words) for words in asked]
        right = [owners[words] for words in asked]
        found[what] = {
            "count": len(asked),
            "vectors": _shares(_ranks(library, queries, right, hybrid="off")),
            "library": _shares(_ranks(library, queries, right)),
        }
    return found


def _ranks(
    library: Library, queries: Sequence[Query], right: Sequence[set[str]], **how: Any
) -> list[int]:
    """The rank of each query's first right file; 11 where none is among the first ten."""
    ranks = []
    for mine, hits in zip(
        right, library.query_many(queries, _K * _PARTS, all=True, **how), strict=True
    ):
        paths = list(dict.fromkeys(str(hit.path) for hit in hits))[:_K]
        ranks.append(next((rank for rank, path in enumerate(paths, 1) if path in mine), _K + 1))
    return ranks


def _shares(ranks: Sequence[int]) -> dict[str, float]:
    return {f"recall@{k}": round(float(np.mean(np.array(ranks) <= k)), 6) for k in (1, _K)}


# -- altered copies ------------------------------------------------------------------------


def _altered(
    library: Library, files: Sequence[Item], shelf: Shelf, problems: list[str]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind, ways in WAYS.items():
        mine = [file for file in files if file.modality is kind]
        if not mine:
            found[str(kind)] = f"no {kind} in the sample"
            continue
        ranks: dict[str, list[int]] = {name: [] for name in ways}
        unreadable = 0
        for file in mine:
            try:
                _alter(library, file, shelf, ranks)
            except (LoadError, OSError, ValueError, RuntimeError):
                unreadable += 1
        if unreadable:
            problems.append(
                f"{unreadable} of {len(mine)} {kind} files could not be read: they are gone, "
                "offline or damaged; mmsearch index says which"
            )
        counted = {name: values for name, values in ranks.items() if values}
        found[str(kind)] = {
            name: {"count": len(values), **_shares(values)} for name, values in counted.items()
        } or f"no {kind} could be read"
    return found


def _alter(library: Library, file: Item, shelf: Shelf, ranks: dict[str, list[int]]) -> None:
    """Ask with every altered copy of a file."""
    kind = file.modality
    query = language.image if kind is Modality.IMAGE else language.audio
    right = shelf.paths_of[shelf.vector_of[file.id]]
    whole = opened_copy(file.path, kind)
    with TemporaryDirectory(prefix="mmsearch-") as place:
        copies = {name: change(whole, Path(place)) for name, change in WAYS[kind].items()}
        queries = [query(copy) for copy in copies.values()]
        for name, rank in zip(
            copies, _ranks(library, queries, [right] * len(queries), modality=kind), strict=True
        ):
            ranks[name].append(rank)


# -- determinism ---------------------------------------------------------------------------


def _determinism(
    library: Library, files: Sequence[Item], shelf: Shelf, problems: list[str]
) -> dict[str, Any]:
    """How many of so many were the same. A file of several parts is not held against one row."""
    model = shelf.model
    several = {file.path for file in shelf.items.values() if file.part > 0}
    twice: list[bool] = []
    stored: list[float] = []
    for file in files:
        try:
            rows = [embed([file.path], file.modality, model)[0] for _ in range(2)]
        except (LoadError, OSError):
            continue  # it was told with the altered copies
        twice.append(bool(np.array_equal(*rows)))
        if file.path not in several:
            row = shelf.row_of(file)
            stored.append(float(row @ rows[0] / np.linalg.norm(row)))
    queries = [language.text(words) for words in _questions(shelf, len(files))]
    first, second = (_answers(library, queries) for _ in range(2))
    with open_library(library.folder, model=model, keep_queries=False) as other:
        anew = _answers(other, queries)
    same = [one == two for one, two in zip(first, second, strict=True)]
    again = [one == two for one, two in zip(first, anew, strict=True)]
    found = {
        "encoded_twice": _told(twice),
        "as_stored": _told([cosine >= _STORED for cosine in stored]),
        "asked_twice": _told(same),
        "opened_anew": _told(again),
    }
    sentences = {
        "encoded_twice": "files have another vector when they are encoded a second time",
        "as_stored": "files have another vector than is stored: run mmsearch index --rehash",
        "asked_twice": "questions have another answer the second time",
        "opened_anew": "questions have another answer when the library is opened anew",
    }
    for name, sentence in sentences.items():
        wrong = found[name]["count"] - found[name]["same"]
        if wrong:
            problems.append(f"{wrong} {sentence}")
    return found | {"least_cosine": round(min(stored), 6) if stored else None}


def _told(same: Sequence[bool]) -> dict[str, int]:
    return {"count": len(same), "same": sum(same)}


def _answers(library: Library, queries: Sequence[Query]) -> list[list[tuple[int, float | None]]]:
    found = library.query_many(queries, _K, all=True)
    return [[(hit.id, hit.score) for hit in hits] for hits in found]


# -- approximate against exact -------------------------------------------------------------


def _questions(shelf: Shelf, count: int) -> list[str]:
    """What to ask in words: the library's captions, then its names, then some sentences."""
    captions = {one.text: None for several in shelf.captions.values() for one in several}
    names = {name: None for item in shelf.files if (name := words_of(item.path))}
    return [*captions, *names, *_STOCK][: max(count, 1)]


def _approximate(library: Library, shelf: Shelf, count: int, seed: int) -> dict[str, Any]:
    """Of words and, as other vectors lie elsewhere, of the library's own files as queries."""
    words = _questions(shelf, count)
    model = shelf.model
    asked = {"text": embed(words, Modality.TEXT, model)}
    queries = {"text": [language.text(word) for word in words]}
    found: dict[str, Any] = {}
    for kind in sorted({item.modality for item in shelf.items.values()}):
        items, rows, hubness = shelf.of(kind)
        shares = _recall(library, kind, queries["text"], asked["text"], items, rows, hubness)
        found[f"text_to_{kind}"] = {"count": len(words), "recall@10": shares}
        own = [file for file in sample(shelf.files, count, seed) if file.modality is kind]
        own = [file for file in own if os.path.isfile(file.path)]
        if own and kind is not Modality.TEXT:
            query = language.image if kind is Modality.IMAGE else language.audio
            try:
                vectors = embed([file.path for file in own], kind, model)
            except MmsearchError:
                continue
            by_file = [query(file.path) for file in own]
            shares = _recall(library, kind, by_file, vectors, items, rows, np.float32(0))
            found[f"{kind}_to_{kind}"] = {"count": len(own), "recall@10": shares}
    return found


def _recall(
    library: Library,
    kind: Modality,
    queries: Sequence[Query],
    vectors: Vectors,
    items: Sequence[int],
    rows: Vectors,
    hubness: Any,
) -> float:
    """The share of the true ten among the answers: an answer counts that is worth the tenth."""
    at = {item: place for place, item in enumerate(items)}
    k = min(_K, len(items))
    answers = library.query_many(queries, k, all=True, modality=kind, hybrid="off")
    right = 0
    for vector, hits in zip(vectors, answers, strict=True):
        worth = rows @ vector - hubness
        least = np.partition(worth, -k)[-k] - _LAST_BITS
        right += sum(bool(worth[at[id]] >= least) for id in {hit.id for hit in hits})
    return round(right / (k * len(queries)), 6)
