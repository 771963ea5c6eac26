"""Measure how sure answers are, and what hubness is worth, of the built-in model.

    python benchmarks/relevance.py --data ../shared/data --work WORK \
        --out benchmarks/results/relevance.json

Needs the training data and the extra `train`. The calibrator is the shipped one; it was fitted to
libraries of Flickr8k's dev photos, of one half of tiny-ImageNet's classes and of ESC-50's, and is
measured on libraries of Flickr8k's test photos, COCO, and the other halves
(mmsearch/training/recipe/libraries.py has both lists). Hubness was chosen on dev. Prints the bars
and writes all figures; exits with 1 when one is not met.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from measuring import machine, origin
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from mmsearch import hubness
from mmsearch.encoders import BUILTIN
from mmsearch.encoders.builtin import MODELS, Builtin
from mmsearch.evaluation import best_ranks
from mmsearch.metrics import recall_at_k
from mmsearch.records import Modality
from mmsearch.relevance import Calibrator
from mmsearch.training.recipe.libraries import Rows, captioned, fixed, tiny_imagenet
from mmsearch.training.recipe.relevance import HITS, Seen, look

Floats = npt.NDArray[np.float64]
_BINS = 10


# -- hubness -----------------------------------------------------------------------------------


def hubs(rows: Rows) -> dict[str, Any]:
    """Recall at 1 and 10 in percent, without and with constants taken off."""
    found = {}
    for name, photos in ((name, captioned(rows, name)) for name in ("dev", "test", "coco")):
        m = len(photos.rows)
        queries = photos.captions.reshape(5 * m, -1)
        found[f"captions, {name}"] = _corrected(
            rows, queries, photos.rows, np.repeat(np.arange(m), 5), np.arange(m)
        )
        if photos.chinese is not None:
            own = np.arange(m)
            found[f"Chinese, {name}"] = _corrected(rows, photos.chinese, photos.rows, own, own)
    tiny, _ = tiny_imagenet(rows)
    ten = np.flatnonzero(np.arange(len(tiny.classes)) % 40 < 10)
    found["class names"] = _corrected(
        rows, tiny.names, tiny.rows[ten], tiny.known, tiny.classes[ten]
    )
    return found


def _corrected(
    rows: Rows, queries: Any, items: Any, query_of: npt.NDArray[Any], item_of: npt.NDArray[Any]
) -> dict[str, float]:
    sample = items[:: -(-len(items) // hubness.SAMPLE)]
    constants = hubness.constants(items, hubness.bank(rows.sentences, sample))
    # one more dimension takes the constant off within the inner product
    wider = np.concatenate([items, -constants[:, None]], axis=1)
    asked = np.concatenate([queries, np.ones((len(queries), 1), np.float32)], axis=1)
    ranks = {
        "plain": best_ranks(queries, items, query_of, item_of),
        "corrected": best_ranks(asked, wider, query_of, item_of),
    }
    return {
        f"{way} recall@{k}": round(100 * recall_at_k(found, k), 2)
        for way, found in ranks.items()
        for k in (1, 10)
    }


# -- relevance ---------------------------------------------------------------------------------


def first_relevance(calibrator: Calibrator, encoder: Builtin, rows: Rows) -> tuple[Seen, Floats]:
    """What was asked of the measured libraries, and the relevance of each first hit."""
    seen, first = [], []
    for trials in fixed(rows, fitted=False):
        mean, deviation = encoder.backgrounds[trials.asked][trials.found]
        seen.append(trials)
        for query, library, _ in trials.libraries():
            items = np.flatnonzero(library)
            scores = (trials.scores[query, items] - trials.hubs[items] - mean) / deviation
            top = np.argsort(-scores)[:HITS]
            found = calibrator.relevance(
                Modality(trials.asked), Modality(trials.found), query=trials.queries[query],
                best=trials.items[items[top[0]]], scores=scores, hits=scores[top],
            )  # fmt: skip
            first.append(found[0])
    return look(seen, encoder, rows.sentences), np.array(first)


def judged(sure: Floats, there: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Calibration error in ten equal bins, and Brier skill against the share of what is there."""
    place = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    gaps = [
        abs(sure[place == bin].mean() - there[place == bin].mean()) * (place == bin).mean()
        for bin in np.unique(place)
    ]
    brier = float(((sure - there) ** 2).mean())
    share = float(there.mean())
    return {
        "calibration_error": round(float(sum(gaps)), 4),
        "brier_skill": round(1 - brier / (share * (1 - share)), 4),
    }


def libraries(calibrator: Calibrator, encoder: Builtin, rows: Rows) -> dict[str, Any]:
    """Each library: AUROC of "is it there" in percent, of the raw score and of the relevance."""
    seen, sure = first_relevance(calibrator, encoder, rows)
    fitted = look(fixed(rows, fitted=True), encoder, rows.sentences)
    platt = LogisticRegression().fit(
        fitted.raw[:, None], fitted.there, sample_weight=fitted.weights
    )
    plain = platt.predict_proba(seen.raw[:, None])[:, 1]
    found = {}
    for name in dict.fromkeys(seen.library.tolist()):
        these = seen.library == name
        there = seen.there[these]
        auroc = {
            "raw_auroc": 100 * roc_auc_score(there, seen.raw[these]),
            "auroc": 100 * roc_auc_score(there, sure[these]),
        }
        shown = sure[these] >= calibrator.least
        found[name] = {
            "queries": int(these.sum()),
            **{key: round(float(value), 2) for key, value in auroc.items()},
            **judged(sure[these], there),
            **{f"platt_{key}": value for key, value in judged(plain[these], there).items()},
            "nothing_shown_though_there": round(100 * float((~shown[there]).mean()), 1),
            "nothing_shown_as_nothing_is_there": round(100 * float((~shown[~there]).mean()), 1),
        }
    return found


def mean(found: dict[str, dict[str, float]], key: str) -> float:
    """The mean of a figure over libraries."""
    return round(float(np.mean([library[key] for library in found.values()])), 4)


def bars(hubness_found: dict[str, dict[str, float]], found: dict[str, Any]) -> list[dict[str, Any]]:
    """Every bar with what was measured, met or not."""

    def gain(name: str, k: int) -> float:
        figures = hubness_found[name]
        return round(figures[f"corrected recall@{k}"] - figures[f"plain recall@{k}"], 2)

    gains = {name: library["auroc"] - library["raw_auroc"] for name, library in found.items()}

    def least(name: str) -> float:
        return min(gain(name, k) for k in (1, 10))

    dev = max(gain("captions, dev", k) for k in (1, 10))
    above = round(float(np.mean(list(gains.values()))), 2)
    figures = [
        ("hubness: R@1 or R@10 on dev, the better gain", dev, 1.0),
        ("hubness: R@1 and R@10 on test, the lesser gain", least("captions, test"), 0.5),
        ("hubness: COCO, the lesser gain", least("captions, coco"), -0.5),
        ("hubness: class names, the lesser gain", least("class names"), -0.5),
        ("relevance: mean AUROC above the raw score's", above, 2.0),
        ("relevance: AUROC above the raw score's, the least", round(min(gains.values()), 2), -1.0),
        ("relevance: mean calibration error", mean(found, "calibration_error"), 0.12),
        ("relevance: mean Brier skill", mean(found, "brier_skill"), 0.25),
    ]
    return [
        {
            "measure": measure,
            "bar": f"{'≤' if 'error' in measure else '≥'} {bar:g}",
            "measured": figure,
            "met": bool(figure <= bar if "error" in measure else figure >= bar),
        }
        for measure, figure, bar in figures
    ]


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where rows are kept")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    conditions = {"machine": machine(), **origin(("numpy", "onnxruntime", "scikit-learn"))}
    encoder = Builtin(BUILTIN, MODELS / BUILTIN)
    calibrator = Calibrator.load(encoder.folder, encoder.fingerprint)
    if calibrator is None:
        sys.exit("the calibrator was not fitted to these weights: see recipe/relevance.py")
    rows = Rows(encoder, arguments.data, arguments.work)
    of_hubs, found = hubs(rows), libraries(calibrator, encoder, rows)
    keys = [key for key in next(iter(found.values())) if key != "queries"]
    results = {
        "model": encoder.name, "fingerprint": encoder.fingerprint,
        "bars": bars(of_hubs, found), "hubness": of_hubs, "least": calibrator.least,
        "means": {key: mean(found, key) for key in keys}, "libraries": found,
    }  # fmt: skip
    arguments.out.write_text(
        json.dumps(results | conditions, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    for bar in results["bars"]:
        verdict = "met" if bar["met"] else "NOT MET"
        print(f"{bar['measure']}: {bar['measured']:g} ({bar['bar']}) {verdict}")
    return 0 if all(bar["met"] for bar in results["bars"]) else 1


if __name__ == "__main__":
    sys.exit(main())
