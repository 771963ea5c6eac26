"""Recall against the definition of CLIP_benchmark, written as slow loops."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import soundfile
from conftest import COLOURS, inject, paint
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch import evaluation, metrics
from mmsearch.embedding import embed
from mmsearch.errors import UsageError
from mmsearch.records import Modality


def clip_benchmark_recall(scores, positive, k, ties=1):
    """The share of queries for which any of the k highest scores belongs to a positive item.

    CLIP_benchmark's zeroshot_retrieval counts the positives among the k highest, divides by their
    number, and asks whether that is above zero. Of equal scores, those of wrong items come first;
    with ``ties`` -1, those of right items.
    """
    found = 0
    for row, right in zip(scores, positive, strict=True):
        order = sorted(range(len(row)), key=lambda item: (-row[item], ties * right[item]))
        found += sum(right[item] for item in order[:k]) / sum(right) > 0
    return found / len(scores)


def unit_rows(n, generator):
    rows = generator.standard_normal((n, 4)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("block", [1024, 7])
def test_recall_is_that_of_clip_benchmark(block, monkeypatch):
    """Both directions, an uneven number of captions a photo, in blocks of any size."""
    monkeypatch.setattr(evaluation.exact, "_BLOCK", block)
    generator = np.random.default_rng(0)
    owners = np.repeat(np.arange(20), generator.integers(1, 6, 20))
    own = np.arange(20)
    texts, photos = unit_rows(len(owners), generator), unit_rows(20, generator)
    positive = owners[:, None] == own[None, :]
    for queries, items, query_of, item_of, right in (
        (texts, photos, owners, own, positive),
        (photos, texts, own, owners, positive.T),
    ):
        recalls = metrics.recalls(evaluation.best_ranks(queries, items, query_of, item_of))
        for k in (1, 5, 10):
            expected = clip_benchmark_recall(queries @ items.T, right, k)
            assert recalls[f"recall@{k}"] == pytest.approx(expected, abs=1e-6)


def slow_measures(scores, positive):
    """Every measure by the sentences that define it, one query and one rank at a time."""
    ranks, gains, precisions = [], [], []
    for row, right in zip(scores, positive, strict=True):
        if not sum(right):
            continue
        order = sorted(range(len(row)), key=lambda item: (-row[item], right[item]))
        places = [place for place, item in enumerate(order, 1) if right[item]]
        ranks.append(places[0])
        best = sum(1 / math.log2(place + 1) for place in range(1, min(len(places), 10) + 1))
        gains.append(sum(1 / math.log2(place + 1) for place in places if place <= 10) / best)
        met = [(number, place) for number, place in enumerate(places, 1)]
        precisions.append(sum(number / place for number, place in met) / len(places))
    middle = sorted(ranks)
    return {
        "median_rank": (middle[(len(ranks) - 1) // 2] + middle[len(ranks) // 2]) / 2,
        "mrr": sum(1 / rank for rank in ranks) / len(ranks),
        "ndcg@10": sum(gains) / len(gains),
        "map": sum(precisions) / len(precisions),
    }


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 5), st.booleans(), st.integers(0, 2**32 - 1))
def test_every_measure_is_that_of_slow_loops(count, groups, without_self, seed):
    """Rows of whole numbers, so that most scores are tied; groups of any size, and none."""
    generator = np.random.default_rng(seed)
    items = generator.integers(-1, 2, (count, 2)).astype(np.float32)
    queries = items if without_self else generator.integers(-1, 2, (7, 2)).astype(np.float32)
    item_of = generator.integers(0, groups, count)
    query_of = item_of if without_self else generator.integers(0, groups, 7)
    scores = queries @ items.T
    positive = query_of[:, None] == item_of[None, :]
    if without_self:
        np.fill_diagonal(scores, -99)
        np.fill_diagonal(positive, False)
    some = positive.any(axis=1)
    if not some.any():
        return
    found = evaluation.exact.measured(queries, items, query_of, item_of, without_self=without_self)
    expected = slow_measures(scores, positive)
    for k in (1, 5, 10):
        expected[f"recall@{k}"] = clip_benchmark_recall(scores[some], positive[some], k)
    assert found == pytest.approx(expected, abs=2e-6)


def test_equal_rows_count_against_us_wherever_they_stand():
    """A thousand equal captions of two photos: the wrong ones go first, to the last bit."""
    generator = np.random.default_rng(0)
    items = np.repeat(unit_rows(1, generator), 1000, axis=0)
    ranks = evaluation.best_ranks(
        unit_rows(2, generator), items, np.array([0, 1]), np.arange(1000) % 2
    )
    assert ranks.tolist() == [501, 501]


@pytest.fixture
def sets(tmp_path, encoder, monkeypatch):
    """Eleven photos of colours near named ones, the names as captions; one caption twice."""
    inject(monkeypatch, encoder)
    monkeypatch.setattr(evaluation.recall, "open_encoder", lambda name: encoder)
    generator = np.random.default_rng(3)
    names = [name for name in COLOURS if name != "black"]
    lines = []
    for number in range(11):
        name = names[number % len(names)]
        colour = tuple(int(value) for value in generator.integers(30, 225, 3) | 1)
        paint(tmp_path / f"{number}.png", colour)
        captions = [name, f"{name} {names[(number * 3 + 1) % len(names)]}"]
        lines.append({"file": f"{number}.png", "captions": captions})
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path, lines, encoder


def test_a_set_is_measured_bare_and_as_served(sets):
    """Raw recall is that of the loops over the encoder's rows; the library answers the same."""
    folder, lines, encoder = sets
    found = evaluation.measure_recall(folder)
    sentences = [said for line in lines for said in line["captions"]]
    texts = encoder.encode("text", sentences)
    photos = embed([folder / line["file"] for line in lines], "image")
    scores = np.round(texts @ photos.T, 6)
    positive = np.arange(22)[:, None] // 2 == np.arange(11)[None, :]
    for k in (1, 5, 10):
        key = f"recall@{k}"
        to_image = clip_benchmark_recall(scores, positive, k)
        assert found["text_to_image"][key] == pytest.approx(to_image, abs=1e-6)
        assert found["search"]["text_to_image"][key] == pytest.approx(to_image, abs=1e-6)
        to_text = clip_benchmark_recall(scores.T, positive.T, k)
        assert found["image_to_text"][key] == pytest.approx(to_text, abs=1e-6)
        # a library shows equal captions in some order of its own
        best = clip_benchmark_recall(scores.T, positive.T, k, ties=-1)
        assert to_text - 1e-6 <= found["search"]["image_to_text"][key] <= best + 1e-6
    assert 0 < found["text_to_image"]["recall@1"] < found["text_to_image"]["recall@5"] < 1
    assert (found["photos"], found["captions"], found["split"]) == (11, 22, "test")
    assert (found["model"], found["fingerprint"]) == (encoder.name, encoder.fingerprint)
    assert len(found["data"]) == 64


def test_what_stands_beside_a_result(sets):
    """All measures side by side; folds of the list's own order; a seeded part of the set."""
    folder, lines, encoder = sets
    found = evaluation.measure_recall(folder, folds=2, seed=7)
    measures = found["measures"]["text_to_image"]
    assert (measures["queries"], measures["items"]) == (22, 11)
    assert found["text_to_image"].items() <= measures["embeddings"].items()
    assert found["search"]["text_to_image"].items() <= measures["library"].items()
    texts = encoder.encode("text", [said for line in lines for said in line["captions"]])
    photos = embed([folder / line["file"] for line in lines], "image")
    halves = [
        slow_measures(
            np.round(texts[2 * first : 2 * first + 10] @ photos[first : first + 5].T, 6),
            np.arange(10)[:, None] // 2 == np.arange(5)[None, :],
        )
        for first in (0, 5)
    ]
    folds = found["folds"]
    assert (folds["count"], folds["image_files"]) == (2, 5)
    for name, value in halves[0].items():
        mean = (value + halves[1][name]) / 2
        assert folds["text_to_image"][name] == pytest.approx(mean, abs=2e-6), name
    hybrid = found["hybrid"]["text_to_image"]
    assert (hybrid["files"], hybrid["captioned"]) == (11, 5)
    assert hybrid["both"]["recall@1"] >= hybrid["vectors"]["recall@1"]
    assert found["versions"]["numpy"] == np.__version__
    some = [evaluation.measure_recall(folder, limit=6, seed=seed) for seed in (1, 1, 2)]
    assert some[0] == some[1]
    assert some[0]["data"] != some[2]["data"]
    assert (some[0]["files"], some[0]["limit"], some[0]["seed"]) == (6, 6, 1)


def test_what_is_not_there_is_refused_or_counted(sets):
    """A recall among fewer files is another."""
    folder = sets[0]
    (folder / "3.png").unlink()
    with pytest.raises(UsageError, match=r"3\.png is not there"):
        evaluation.measure_recall(folder)
    found = evaluation.measure_recall(folder, skip_missing=True)
    assert (found["files"], found["missing"]) == (10, 1)
    with pytest.raises(UsageError, match="10 files are too few for 11 folds"):
        evaluation.measure_recall(folder, skip_missing=True, folds=11)


def tone(path, hertz, seconds=1.0):
    """A sound that the fake encoder hears as one colour."""
    time = np.arange(int(8000 * seconds)) / 8000
    soundfile.write(path, (0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32), 8000)


def test_sounds_and_their_captions(tmp_path, sets):
    """A low tone is red to the fake encoder, a high one blue; a long one is several answers."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    lines = []
    for name, hertz in {"red": 200, "green": 1000, "blue": 3000}.items():
        tone(folder / f"{name}.wav", hertz, 5.0)
        lines.append({"file": f"{name}.wav", "captions": [name, f"{name} {name}"]})
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = evaluation.measure_recall(folder)
    assert (found["sounds"], found["photos"], found["captions"]) == (3, 0, 6)
    for direction in ("text_to_audio", "audio_to_text"):
        assert found[direction]["recall@1"] == found["search"][direction]["recall@1"] == 1.0


def test_classes_are_found_by_name_and_by_their_like(tmp_path, sets, monkeypatch):
    """Pictures in folders of their colours, one of them in the wrong one; none finds itself."""
    monkeypatch.setattr(evaluation.classed, "open_encoder", lambda name: sets[2])
    monkeypatch.setattr("mmsearch.labels.TEMPLATES", dict.fromkeys(Modality, ("{}",)))
    folder = tmp_path / "classes"
    for name, colours in {"red": "red red red", "blue": "blue blue red"}.items():
        for number, colour in enumerate(colours.split()):
            paint(folder / name / f"{number}.png", colour, (8 + number, 8))
    found = evaluation.measure_recall(folder)
    assert (found["files"], found["classes"], found["split"]) == (6, 2, None)
    assert found["zero_shot"] == {
        "accuracy": pytest.approx(5 / 6, abs=1e-6),
        "macro_f1": pytest.approx((6 / 7 + 4 / 5) / 2, abs=1e-6),
    }
    # three red pictures that find two of their class, tied with the one of the other; two blue
    # ones that find each other; and the red one among the blue, which finds three reds first
    alike = found["measures"]["image_to_image"]["embeddings"]
    ranks = [2, 2, 2, 1, 1, 4]
    assert alike["mrr"] == pytest.approx(sum(1 / rank for rank in ranks) / 6, abs=1e-6)
    assert alike["recall@1"] == pytest.approx(2 / 6, abs=1e-6)
    by_name = found["measures"]["text_to_image"]["embeddings"]
    # four reds are tied for "red"; two blue ones come first for "blue"
    red, blue = (1 / 2 + 2 / 3 + 3 / 4) / 3, (1 + 1 + 3 / 6) / 3
    assert by_name["map"] == pytest.approx((red + blue) / 2, abs=1e-6)
    assert found["search"]["image_to_image"]["recall@5"] == 1.0
    assert "image_to_text" not in found["search"]


def test_the_command_prints_json_or_a_table(tmp_path, run_cli):
    """The real program on two photos: the keys of the contract in a file, a table for people."""
    for name in ("red", "blue"):
        paint(tmp_path / f"{name}.png", name)
    lines = [
        {"file": f"{name}.png", "captions": [f"the colour {name}"]} for name in ("red", "blue")
    ]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    out = tmp_path / "found.json"
    done = run_cli("bench", "recall", "--data", tmp_path, "--split", "test", "--out", out)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    keys = {"recall@1", "recall@5", "recall@10"}
    assert found["text_to_image"].keys() == found["image_to_text"].keys() == keys
    assert found["search"].keys() == {"text_to_image", "image_to_text"}
    assert found["text_to_image"]["recall@5"] == found["search"]["text_to_image"]["recall@5"] == 1.0
    shown = done.stdout.decode()
    assert f"{found['model']} ({found['fingerprint'][:8]}) on 2 files, 2 captions, test" in shown
    assert "1.000" in shown


def test_a_folder_without_captions_is_wrong_usage(tmp_path, run_cli):
    """Exit code 2 and one line."""
    done = run_cli("bench", "recall", "--data", tmp_path)
    assert done.returncode == 2
    assert b"has no captions" in done.stderr
    assert len(done.stderr.splitlines()) == 1
