"""Recall against the definition of CLIP_benchmark, written as slow loops."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import COLOURS, inject, paint

from mmsearch import evaluation
from mmsearch.embedding import embed


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
    monkeypatch.setattr(evaluation, "_BLOCK", block)
    generator = np.random.default_rng(0)
    owners = np.repeat(np.arange(20), generator.integers(1, 6, 20))
    own = np.arange(20)
    texts, photos = unit_rows(len(owners), generator), unit_rows(20, generator)
    positive = owners[:, None] == own[None, :]
    for queries, items, query_of, item_of, right in (
        (texts, photos, owners, own, positive),
        (photos, texts, own, owners, positive.T),
    ):
        recalls = evaluation.recalls(evaluation.best_ranks(queries, items, query_of, item_of))
        for k in (1, 5, 10):
            expected = clip_benchmark_recall(queries @ items.T, right, k)
            assert recalls[f"recall@{k}"] == pytest.approx(expected, abs=1e-6)


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
    monkeypatch.setattr(evaluation, "open_encoder", lambda name: encoder)
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


def test_the_command_prints_json_or_a_table(tmp_path, run_cli):
    """The real program on two photos: the keys of the contract, and a table for people."""
    for name in ("red", "blue"):
        paint(tmp_path / f"{name}.png", name)
    lines = [
        {"file": f"{name}.png", "captions": [f"the colour {name}"]} for name in ("red", "blue")
    ]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    done = run_cli("bench", "recall", "--data", tmp_path, "--split", "test", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    keys = {"recall@1", "recall@5", "recall@10"}
    assert found["text_to_image"].keys() == found["image_to_text"].keys() == keys
    assert found["search"].keys() == {"text_to_image", "image_to_text"}
    assert found["text_to_image"]["recall@5"] == found["search"]["text_to_image"]["recall@5"] == 1.0
    shown = run_cli("bench", "recall", "--data", tmp_path).stdout.decode()
    assert f"{found['model']} ({found['fingerprint'][:8]}) on 2 photos, 2 captions" in shown
    assert "1.000" in shown


def test_a_folder_without_captions_is_wrong_usage(tmp_path, run_cli):
    """Exit code 2 and one line."""
    done = run_cli("bench", "recall", "--data", tmp_path)
    assert done.returncode == 2
    assert b"has no captions" in done.stderr
    assert len(done.stderr.splitlines()) == 1
