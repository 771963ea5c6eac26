"""Zero-shot labels: which words of a vocabulary say best what is in a file.

A label becomes a vector as CLIP has it (arXiv 2103.00020, section 3.1.4): the renormalised mean of
the unit rows of several sentences about it, its prompts.

Which labels fit best is told by softmax(scale * cosine) over the vocabulary. Of a file of several
parts (the windows of a sound, the passages of a text) it is the mean over parts: the share of the
file that a label describes. A mean of the parts' rows before the softmax finds little of a sound
that is first this and then that, and the maximum over parts is worse where all say the same
(benchmarks/labels.py).

Their relevance is that of the file to the label as a query (mmsearch.relevance). For a model
without a calibrator it is the softmax itself: how likely a label is *given that exactly one of the
vocabulary is right*. A vocabulary that has nothing of what is in a picture still has a label for it
then, and its relevance may be high.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from mmsearch.answers.standard import Standard
from mmsearch.embedding import Asked, ask
from mmsearch.encoders import Encoder
from mmsearch.errors import UsageError
from mmsearch.files import describe, display, well_formed
from mmsearch.groups import evenly
from mmsearch.language import Term
from mmsearch.records import Kind, Label, Modality
from mmsearch.relevance import Calibrator

if TYPE_CHECKING:
    import numpy.typing as npt

    from mmsearch.catalog import Catalog
    from mmsearch.filters import Filter
    from mmsearch.records import Ids, Vectors
    from mmsearch.space import Space

    Labelled = dict[int, list[tuple[str, float]]]  # by content: label, relevance
    Shares = npt.NDArray[np.float64]  # (n, labels)

# By label: prompts of its own, or none, where the templates make them.
Vocabulary = Mapping[str, Sequence[str]]

# Sensible prompts are within a point of one another (benchmarks/labels.py): several are for labels
# that one of them does not suit.
TEMPLATES = {
    Modality.IMAGE: (
        "a photo of a {}", "a photo of the {}", "an image of a {}", "a close-up photo of a {}"
    ),
    Modality.AUDIO: (
        "the sound of {}", "the noise of {}", "a recording of {}", "{} can be heard"
    ),
    Modality.TEXT: ("{}",),
}  # fmt: skip

# The inverse temperatures at which the softmax was as sure as it was right (Guo et al., arXiv
# 1706.04599), measured there too.
SCALES = {Modality.IMAGE: 33.0, Modality.AUDIO: 25.0, Modality.TEXT: 33.0}

_SHARES = 2**22  # of labels and parts, in memory at a time: 32 MB
_FOREIGN = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af]")


def read_vocabulary(given: str | Path | Vocabulary | Iterable[str]) -> dict[str, list[str]]:
    """A vocabulary: the labels of a list, of "cat,dog,car", or of a file, a line each.

    A line of a file may be `name = prompt`: then the prompt, as it stands, says what the label
    means, and several lines with one name all do. Empty lines and lines that begin with # are
    nothing. A string is the name of a file when there is such a file and it has no comma.
    In Python a mapping gives labels their prompts. Raises UsageError without two labels.
    """
    entries: Iterable[tuple[str, Sequence[str]]]
    if isinstance(given, Mapping):
        entries = given.items()
    elif isinstance(given, Path) or (isinstance(given, str) and _names_file(given)):
        entries = _lines(Path(given).expanduser())
    else:
        words = given.split(",") if isinstance(given, str) else given
        entries = [(word, ()) for word in words]
    vocabulary: dict[str, list[str]] = {}
    for name, prompts in entries:
        label = " ".join(well_formed(name).replace("\0", " ").split())
        if label:
            vocabulary.setdefault(label, []).extend(prompts)
    if len(vocabulary) < 2:
        raise UsageError("a vocabulary is of at least two labels, such as cat,dog,car")
    return vocabulary


def _names_file(given: str) -> bool:
    return (
        "," not in given
        and "\0" not in given
        and (given.startswith(("./", "../", "/", "~")) or Path(given).is_file())
    )


def _lines(path: Path) -> Iterator[tuple[str, Sequence[str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        why = describe(error) if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"{display(str(path))} is no list of labels: {why}") from error
    for line in text.splitlines():
        if not line.startswith("#"):
            name, _, prompt = line.partition("=")
            yield name, [prompt.strip()] if prompt.strip() else []


def check_templates(templates: Iterable[str]) -> None:
    """Raises UsageError for a template that has no place for the label, or several."""
    for template in templates:
        if template.count("{}") != 1:
            raise UsageError(
                f"{template!r} is no template: one has {{}} for the label, as 'a photo of a {{}}'"
            )


def ask_for(
    encoder: Encoder, vocabulary: Vocabulary, modality: Modality, templates: Sequence[str] = ()
) -> list[Asked]:
    """What each label asks for: its (dim,) unit row, with which files of this modality are
    compared, and the background of that.

    Without templates, those of the modality are taken, but for Chinese, Japanese and Korean
    labels, which an English sentence would not fit.
    """
    parts = []
    for label, own in vocabulary.items():
        said = list(own) or prompts(label, modality, templates)
        parts.append([Term(Modality.TEXT, prompt) for prompt in said])
    return ask(parts, encoder)


def prompts(label: str, modality: Modality, templates: Sequence[str] = ()) -> list[str]:
    """The sentences that stand for a label which brings none of its own."""
    usual = ("{}",) if _FOREIGN.search(label) else TEMPLATES[modality]
    return [_filled(template, label) for template in templates or usual]


def class_rows(
    encoder: Encoder, vocabulary: Vocabulary, modality: Modality, templates: Sequence[str] = ()
) -> Vectors:
    """(labels, dim): the unit rows of `ask_for`."""
    return np.stack([one.vector for one in ask_for(encoder, vocabulary, modality, templates)])


def _filled(template: str, label: str) -> str:
    """The label in its template, with the article that fits: "a photo of an apple"."""
    article = r"\b(a) (?=\{\}$|\{\} )" if label[:1].lower() in "aeiou" else "$^"
    return re.sub(article, "an ", template, flags=re.IGNORECASE).replace("{}", label)


def labelled(
    catalog: Catalog,
    space: Space,
    encoder: Encoder,
    vocabulary: Vocabulary,
    *,
    templates: Sequence[str] = (),
    top: int = 1,
    modality: Modality | None = None,
    kept: Filter | None = None,
    least: float = 0.0,
) -> Labelled:
    """The best labels of every content that a filter lets through, the most relevant first.

    A content is there with no label when none is as relevant as `least`.
    """
    names = list(vocabulary)
    calibrator = Calibrator.load(encoder.folder, encoder.fingerprint)
    found: Labelled = {}
    with catalog.snapshot():
        for kind in Modality if modality is None else [modality]:
            asked = ask_for(encoder, vocabulary, kind, templates)
            classes = np.stack([one.vector for one in asked])
            best = [
                (ids, *most_likely(shares, top))
                for ids, shares in _shares(catalog, space.id, kind, kept, classes)
            ]
            if not best:
                continue
            ids, columns, relevances = map(np.concatenate, zip(*best, strict=True))
            if calibrator is not None and kind in asked[0].background:
                relevances = _calibrated(catalog, space, calibrator, kind, asked, ids, columns)
            for id, mine, theirs in zip(ids.tolist(), columns, relevances, strict=True):
                order = np.argsort(-theirs, kind="stable")
                pairs = zip(mine[order].tolist(), theirs[order].tolist(), strict=True)
                found[id] = [(names[one], sure) for one, sure in pairs if sure >= least]
    return found


def _calibrated(
    catalog: Catalog,
    space: Space,
    calibrator: Calibrator,
    kind: Modality,
    asked: Sequence[Asked],
    ids: Ids,
    columns: Ids,
) -> Shares:
    """How relevant their labels are to contents: (n,) ids, (n, top) labels to (n, top).

    Each label is a query of the whole library's files of this modality, whatever the filter.
    A file of several parts is as relevant as the one that fits best.
    """
    vectors, owners = catalog.owners(space.id, kind)
    contents, firsts = np.unique(owners, return_index=True)
    relevances = np.zeros(columns.shape)
    several = max(_SHARES // len(vectors), 1)
    there = Kind[kind.name]
    group = space.groups()[there]
    for start in range(0, len(asked), several):
        some = asked[start : start + several]
        scored = group.all(np.stack([one.vector for one in some]), np.sort(vectors))
        at = np.searchsorted(scored.ids, vectors)
        worth = Standard(some, [there]).of(there, scored.scores, scored.hubness)
        for label, (one, scores) in enumerate(zip(some, worth, strict=True), start):
            having = columns == label  # (n, top), at most one in a row
            if having.any():
                z = scores[at]
                _, nearest = catalog.vectors_of([int(vectors[z.argmax()])])
                sure = calibrator.relevance(
                    Modality.TEXT, kind, query=one.vector, best=nearest[0],
                    scores=evenly(z), hits=np.maximum.reduceat(z, firsts),
                )  # fmt: skip
                relevances[having] = sure[np.searchsorted(contents, ids[having.any(axis=1)])]
    return relevances


def softmax(logits: Vectors) -> Shares:
    """(n, labels) to (n, labels): each row made positive, and 1 in all."""
    powers = np.exp((logits - logits.max(axis=1, keepdims=True)).astype(np.float64))
    shares: Shares = powers / powers.sum(axis=1, keepdims=True)
    return shares


def most_likely(shares: Shares, top: int) -> tuple[Ids, Shares]:
    """The columns with the `top` highest shares of each row, and these; the best first, equal
    ones by column. Two arrays, (n, top); top is at most the number of labels.
    """
    chosen = np.argsort(-shares, axis=1, kind="stable")[:, :top]
    return chosen, np.take_along_axis(shares, chosen, axis=1)


def _shares(
    catalog: Catalog, space_id: int, modality: Modality, kept: Filter | None, classes: Vectors
) -> Iterator[tuple[Ids, Shares]]:
    """Contents and what their labels' shares are: (n,) ids, (n, labels) means over their parts.

    However many parts and labels there are, no more than a block of them is in memory.
    """
    vectors, owners = catalog.owners(space_id, modality, kept)
    contents, parts = np.unique(owners, return_counts=True)
    size = max(_SHARES // len(classes), 1)
    held, sums = owners[:0], np.empty((0, len(classes)))  # a block may end within a content
    for start in range(0, len(owners), size):
        block = slice(start, start + size)
        ids, rows = catalog.vectors_of(vectors[block].tolist())
        rows = rows[np.searchsorted(ids, vectors[block])]  # they came by id
        shares = np.concatenate([sums, softmax(SCALES[modality] * (rows @ classes.T))])
        found, firsts = np.unique(np.concatenate([held, owners[block]]), return_index=True)
        sums = np.add.reduceat(shares, firsts, axis=0)
        whole = slice(None) if start + size >= len(owners) else slice(-1)
        yield found[whole], sums[whole] / parts[np.searchsorted(contents, found[whole]), None]
        held, sums = found[-1:], sums[-1:]


def by_file(
    files: Iterable[tuple[int, Modality, Path]], found: Mapping[int, Sequence[tuple[str, float]]]
) -> list[Label]:
    """The labels of files, given as (content, modality, path), in their order."""
    return [
        Label(path, modality, label, relevance)
        for content_id, modality, path in files
        for label, relevance in found.get(content_id, ())
    ]


def write_csv(path: Path, labels: Iterable[Label]) -> None:
    """Write path, label and relevance. A path keeps its bytes, whatever they are."""
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        write_rows(file, labels)


def write_rows(file: IO[str], labels: Iterable[Label]) -> None:
    """The same to an open file: a line a label."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["path", "label", "relevance"])
    writer.writerows([os.fspath(one.path), one.label, f"{one.relevance:.6f}"] for one in labels)


def write_sidecars(labels: Iterable[Label], *, force: bool = False) -> int:
    """Write the labels of x.jpg to x.jpg.labels.csv beside it; returns how many were written.

    Such a file is no text, caption or other thing to index. Raises UsageError, before anything is
    written, when a file of that name is there: `force` replaces it.
    """
    by_path: dict[Path, list[Label]] = {}
    for one in labels:
        by_path.setdefault(one.path.with_name(f"{one.path.name}.labels.csv"), []).append(one)
    there = [path for path in by_path if os.path.lexists(path)]
    if there and not force:
        more = f" and {len(there) - 1:,} more are" if len(there) > 1 else " is"
        raise UsageError(f"{display(str(there[0]))}{more} there already; --force replaces them")
    for path, several in by_path.items():
        with suppress(FileNotFoundError):
            path.unlink()  # a link is replaced, not followed
        with open(path, "x", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["label", "relevance"])
            writer.writerows([one.label, f"{one.relevance:.6f}"] for one in several)
    return len(by_path)
