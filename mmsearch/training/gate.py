"""Is the trained model better than the one it started from? Recall before and after, twice.

held out    the pairs of one's own that training did not see: a caption finds its file, and a file
            one of its captions
general     what a model should know whatever it was trained on: drawn pictures and the sentences
            that fit them (`drawn.py`), and words and what they look like (`glosses.txt`). It comes
            with the package, needs no download, and shows what a model forgets while it learns.
            Photos and sounds are not in it.

A run that lowers its held-out recall, or its general recall by more than a tolerance, is marked:
`"offered": false` in model.json, with the reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmsearch.metrics import first_ranks, recalls
from mmsearch.records import Modality
from mmsearch.training.drawn import KINDS, drawings
from mmsearch.training.pairs import glosses

if TYPE_CHECKING:
    from mmsearch.datasets.pairs import Pair

Rows = npt.NDArray[np.float32]  # (n, dim) unit rows
Embed = Callable[[Modality, Sequence[Any]], Rows]
Recalls = dict[str, dict[str, float]]  # by direction: recall@1, @5, @10, from 0 to 1

TOLERANCE = 0.02  # of general recall: what 500 questions cannot tell from nothing
_DRAWINGS = 12  # of each kind


def held_out_recall(embed: Embed, pairs: Sequence[Pair], loaded: Sequence[Any]) -> Recalls:
    """Recall of files by captions and of captions by files, for each modality there is.

    loaded: what `embed` takes, one a pair. A caption that several files have is right for all.
    """
    found: Recalls = {}
    for kind in (Modality.IMAGE, Modality.AUDIO):
        rows = [row for row, pair in enumerate(pairs) if pair.modality is kind]
        if not rows:
            continue
        texts = list(dict.fromkeys(text for row in rows for text in pairs[row].captions))
        column = {text: number for number, text in enumerate(texts)}
        relevant = np.zeros((len(rows), len(texts)), bool)
        for line, row in enumerate(rows):
            relevant[line, [column[text] for text in pairs[row].captions]] = True
        files = embed(kind, [loaded[row] for row in rows])
        captions = embed(Modality.TEXT, texts)
        found[f"text_to_{kind}"] = recalls(first_ranks(captions @ files.T, relevant.T))
        found[f"{kind}_to_text"] = recalls(first_ranks(files @ captions.T, relevant))
    return found


def general_recall(embed: Embed, size: int | None) -> Recalls:
    """Recall on what the package itself knows. size: of a picture; None: no image tower."""
    lines = {tuple(line.split(": ", 1)) for line in glosses()}
    terms, looks = (sorted({line[part] for line in lines}) for part in (0, 1))
    relevant = np.array([[(term, look) in lines for look in looks] for term in terms])
    texts = embed(Modality.TEXT, terms), embed(Modality.TEXT, looks)
    found = {"word_to_gloss": recalls(first_ranks(texts[0] @ texts[1].T, relevant))}
    if size:
        pictures = drawings(_DRAWINGS, terms, seed=0)
        pixels = [np.asarray(Image.fromarray(p).resize((size, size))) for p in pictures]
        sentences = [(kind, text) for kind, texts in enumerate(KINDS.values()) for text in texts]
        drawn = np.arange(len(pictures)) // _DRAWINGS
        relevant = np.array([drawn == kind for kind, _ in sentences])
        rows = embed(Modality.TEXT, [text for _, text in sentences])
        images = embed(Modality.IMAGE, pixels)
        found["text_to_drawing"] = recalls(first_ranks(rows @ images.T, relevant))
        found["drawing_to_text"] = recalls(first_ranks(images @ rows.T, relevant.T))
    return found


def mean(found: Recalls) -> float:
    """One number for all directions and cuts."""
    return float(np.mean([value for cuts in found.values() for value in cuts.values()]))


def verdict(before: dict[str, Recalls], after: dict[str, Recalls]) -> list[str]:
    """Why a run is not to be offered; empty for one that is.

    before, after: "held_out" and "general", of which the first may be empty.
    """
    reasons = []
    for name, tolerance in (("held_out", 0.0), ("general", TOLERANCE)):
        if not before[name]:
            reasons.append(f"nothing measured its {name.replace('_', '-')} recall")
            continue
        was, now = mean(before[name]), mean(after[name])
        if now < was - tolerance:
            reasons.append(f"{name.replace('_', '-')} recall fell from {was:.3f} to {now:.3f}")
    return reasons
