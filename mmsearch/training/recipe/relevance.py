"""Stage relevance: what makes a calibrated 0-1 of a score, fitted to libraries with known answers.

    pip install "mmsearch[train]"
    python -m mmsearch.training.recipe.relevance --data DIR --work DIR \
        --out mmsearch/models/builtin-2

Minutes, once the rows are in `--work`; to be run again for every change of the model's weights.
Writes `relevance.json` and `queries.npy`, which are no part of the model's fingerprint.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from mmsearch.encoders.builtin import Builtin
from mmsearch.relevance import FILE, SENTENCES, features
from mmsearch.training.recipe.libraries import Rows, Trials, fixed

Floats = npt.NDArray[np.float64]

SHARE = 0.3  # of the lines in the mixture
HIGHEST = 13  # place, among the features, of the highest score: the trees never fall with it
HITS = 10  # that are handed to the calibrator
EMPTY = 0.1  # queries, at most, that find nothing although it is there: sets the cut
_RANKS = (1, 2, 3, 5, 8, 10)  # of the hits that the fall is fitted to


@dataclass(frozen=True, slots=True)
class Seen:
    """What a calibrator sees of queries put to libraries: n of them.

    pairs: "text-image" and such. rows: (n, f) features. raw: the highest score. there: whether
    what was asked for was there. scores, mean, deviation: (n, HITS) and (n,), and right: (n, HITS),
    which hits are of it. query: equal for the two libraries of one query. library: its name.
    """

    library: npt.NDArray[np.str_]
    pairs: npt.NDArray[np.str_]
    query: npt.NDArray[np.int64]
    rows: Floats
    raw: Floats
    there: npt.NDArray[np.bool_]
    hits: Floats
    mean: Floats
    deviation: Floats
    right: npt.NDArray[np.bool_]

    @property
    def weights(self) -> Floats:
        """(n,): every library counts alike."""
        _, library, counts = np.unique(self.library, return_inverse=True, return_counts=True)
        weights: Floats = len(self.library) / (len(counts) * counts[library])
        return weights


def look(libraries: Sequence[Trials], encoder: Builtin, sentences: npt.NDArray[np.float32]) -> Seen:
    """Put all queries to their libraries."""
    seen: dict[str, list[Any]] = {name: [] for name in Seen.__slots__}
    for number, trials in enumerate(libraries):
        mean, deviation = encoder.backgrounds[trials.asked][trials.found]
        for query, library, there in trials.libraries():
            items = np.flatnonzero(library)
            raw = trials.scores[query, items]
            scores = (raw - trials.hubs[items] - mean) / deviation
            top = np.argsort(-scores)[:HITS]
            best = trials.items[items[top[0]]]
            row = features(
                trials.asked, trials.found, trials.queries[query], best, scores, scores[top],
                sentences,
            )  # fmt: skip
            short = HITS - len(top)
            values = {
                "library": trials.name, "pairs": f"{trials.asked}-{trials.found}",
                "query": number * 10**6 + query, "rows": row, "raw": raw.max(), "there": there,
                "hits": np.pad(scores[top], (0, short), constant_values=np.nan),
                "mean": scores.mean(), "deviation": max(scores.std(), 0.05),
                "right": np.pad(trials.there[query, items[top]], (0, short)),
            }  # fmt: skip
            for name, value in values.items():
                seen[name].append(value)
    return Seen(**{name: np.array(values) for name, values in seen.items()})


def fit(seen: Seen) -> dict[str, Any]:
    """The calibrator as `relevance.json` has it, but for the fingerprint."""
    folds = GroupKFold(4).split(seen.rows, groups=seen.query)
    unseen = np.empty(len(seen.there))
    for others, fold in folds:
        unseen[fold] = _mixed(seen, *_models(seen, others), fold)
    # mixing blunts: what it says of queries that it was not fitted to, made a probability
    last = LogisticRegression(C=1e3).fit(unseen[:, None], seen.there, sample_weight=seen.weights)
    sure = last.predict_proba(unseen[:, None])[:, 1]
    order = np.argsort(sure[seen.there])
    reached = np.cumsum(seen.weights[seen.there][order]) / seen.weights[seen.there].sum()
    least = sure[seen.there][order][np.searchsorted(reached, EMPTY)]
    lines, trees = _models(seen, np.arange(len(seen.there)))
    return {
        "libraries": sorted(set(seen.library.tolist())),
        "lines": {pair: [round(number, 4) for number in line] for pair, line in lines.items()},
        "share": SHARE,
        "base": round(float(np.ravel(trees._baseline_prediction)[0]), 5),
        "slope": round(float(last.coef_[0, 0]), 4),
        "offset": round(float(last.intercept_[0]), 4),
        "falls": {pair: _falls(seen, pair) for pair in lines},
        "least": round(float(least), 3),
        "trees": _exported(trees),
    }


def _models(
    seen: Seen, some: npt.NDArray[np.int64]
) -> tuple[dict[str, tuple[float, float]], HistGradientBoostingClassifier]:
    """The lines of all pairs, and the trees, fitted to some of what was seen."""
    lines = {}
    for pair in sorted(set(seen.pairs.tolist())):
        these = some[seen.pairs[some] == pair]
        line = LogisticRegression(C=1.0).fit(
            seen.rows[these, HIGHEST : HIGHEST + 1], seen.there[these],
            sample_weight=seen.weights[these],
        )  # fmt: skip
        lines[pair] = (float(line.intercept_[0]), float(line.coef_[0, 0]))
    rises = np.zeros(seen.rows.shape[1], int)
    rises[HIGHEST] = 1
    trees = HistGradientBoostingClassifier(
        max_iter=150, learning_rate=0.06, max_leaf_nodes=8, min_samples_leaf=60,
        l2_regularization=5.0, early_stopping=False, monotonic_cst=rises, random_state=0,
    )  # fmt: skip
    return lines, trees.fit(seen.rows[some], seen.there[some], sample_weight=seen.weights[some])


def _mixed(
    seen: Seen,
    lines: dict[str, tuple[float, float]],
    trees: HistGradientBoostingClassifier,
    some: npt.NDArray[np.int64],
) -> Floats:
    intercepts, slopes = np.array([lines[pair] for pair in seen.pairs[some]]).T
    line = intercepts + slopes * seen.rows[some, HIGHEST]
    mixed: Floats = SHARE * line + (1 - SHARE) * trees.decision_function(seen.rows[some])
    return mixed


def _falls(seen: Seen, pair: str) -> list[float]:
    """What tells right hits from wrong ones where what is asked for is there: neither slope may
    be below zero, so that a lower hit is never more relevant."""
    these = (seen.pairs == pair) & seen.there
    columns = np.array(_RANKS) - 1
    hits, right = seen.hits[these][:, columns], seen.right[these][:, columns]
    spread = (hits - seen.mean[these, None]) / seen.deviation[these, None]
    known = np.isfinite(hits)
    x, y = np.stack([hits[known], spread[known]], axis=1), right[known]
    weights = np.broadcast_to(seen.weights[these, None], hits.shape)[known]
    for columns_used in ([0, 1], [0], [1]):
        model = LogisticRegression(C=1.0).fit(x[:, columns_used], y, sample_weight=weights)
        if (model.coef_ >= 0).all():
            break
    slopes = np.zeros(2)
    slopes[columns_used] = np.maximum(model.coef_[0], 0)
    return [round(float(number), 4) for number in (model.intercept_[0], *slopes)]


def _exported(model: HistGradientBoostingClassifier) -> dict[str, Any]:
    """The trees as padded lists; a leaf sends a row to itself. (scikit-learn has no public way.)"""
    forest = [predictors[0].nodes for predictors in model._predictors]
    most = max(len(nodes) for nodes in forest)
    lists: dict[str, list[list[float]]] = {
        name: [] for name in ("feature", "threshold", "left", "right", "value")
    }
    for nodes in forest:
        leaf = nodes["is_leaf"].astype(bool)
        here = np.arange(len(nodes))
        columns = {
            "feature": np.where(leaf, 0, nodes["feature_idx"]),
            "threshold": np.where(leaf, 0, nodes["num_threshold"]),
            "left": np.where(leaf, here, nodes["left"]),
            "right": np.where(leaf, here, nodes["right"]),
            "value": np.where(leaf, nodes["value"], 0),
        }
        for name, column in columns.items():
            values = np.pad(column, (0, most - len(nodes)))
            whole = name in ("feature", "left", "right")
            lists[name].append([int(v) if whole else float(f"{v:.6g}") for v in values])
    depth = max(int(nodes["depth"].max()) for nodes in forest)
    return {"depth": depth, **lists}


def main() -> None:
    """Fit, and write beside the model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the training data")
    parser.add_argument("--work", type=Path, required=True, help="where rows are kept")
    parser.add_argument("--out", type=Path, required=True, help="the model's folder")
    arguments = parser.parse_args()
    encoder = Builtin(arguments.out.name, arguments.out)
    rows = Rows(encoder, arguments.data, arguments.work)
    card = fit(look(fixed(rows, fitted=True), encoder, rows.sentences))
    np.save(arguments.out / SENTENCES, rows.sentences.astype(np.float16))
    (arguments.out / FILE).write_text(
        json.dumps({"fingerprint": encoder.fingerprint, **card}) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
