"""The shipped model ``builtin-1``: its files, its promises, and its recall. No torch."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from tokenizers import Tokenizer

from mmsearch.metrics import first_ranks, recall_at_k

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "mmsearch" / "models" / "builtin-1"
DATA = ROOT.parent / "shared" / "data"
MEBIBYTE = 1 << 20

pytestmark = pytest.mark.skipif(not MODEL.exists(), reason="builtin-1 is not in this checkout")


def session(name):
    """A CPU session of one shipped file."""
    return onnxruntime.InferenceSession(str(MODEL / name), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def image():
    return session("image.onnx")


@pytest.fixture(scope="module")
def text():
    return session("text.onnx")


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_file(str(MODEL / "tokenizer.json"))


@pytest.fixture(scope="module")
def facts():
    return json.loads((MODEL / "model.json").read_text(encoding="utf-8"))


def embed_texts(text, tokenizer, sentences):
    """Unit rows of sentences, in batches of like length."""
    encodings = tokenizer.encode_batch(sentences)
    order = sorted(range(len(sentences)), key=lambda i: len(encodings[i].ids))
    out = np.zeros((len(sentences), 256), np.float32)
    for start in range(0, len(order), 64):
        rows = order[start : start + 64]
        longest = max(len(encodings[i].ids) for i in rows)
        ids = np.zeros((len(rows), longest), np.int64)
        for line, i in zip(ids, rows, strict=True):
            line[: len(encodings[i].ids)] = encodings[i].ids
        out[rows] = text.run(None, {"ids": ids, "mask": (ids > 0).astype(np.int64)})[0]
    return out


def test_all_files_together_are_small():
    """25 MB at most."""
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= 25 * MEBIBYTE


def test_model_json_names_the_files_that_are_there(facts):
    """Every recorded hash is that of the file; no weights lie beside it unrecorded."""
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in MODEL.iterdir()
        if path.name not in ("model.json", "CARD.md")
    }
    assert facts["files"] == found


def test_model_json_says_how_to_use_the_model(facts, image, text, tokenizer):
    """What it says is what the files are."""
    assert (
        facts["name"],
        facts["dim"],
        facts["modalities"],
    ) == ("builtin-1", 256, ["image", "text"])
    assert facts["image"] == {"size": 224, "fit": "squash", "resample": "bicubic"}
    assert [(i.name, i.type) for i in image.get_inputs()] == [("pixels", "tensor(uint8)")]
    assert image.get_inputs()[0].shape[1:] == [224, 224, 3]
    assert [i.name for i in text.get_inputs()] == ["ids", "mask"]
    for tower in (image, text):
        (out,) = tower.get_outputs()
        assert (out.name, out.type, out.shape[1]) == ("embedding", "tensor(float)", 256)
    assert tokenizer.token_to_id("[PAD]") == facts["text"]["pad_id"]
    assert len(tokenizer.encode("dog " * 500).ids) == facts["text"]["max_tokens"]


def test_rows_have_length_one_whatever_the_number(image, text):
    """Pictures and texts, one or several, all black too."""
    for n in (1, 3):
        pixels = np.zeros((n, 224, 224, 3), np.uint8)
        pixels[1:] = np.random.default_rng(0).integers(0, 256, pixels[1:].shape)
        ids = np.random.default_rng(1).integers(1, 1000, (n, 5 + n))
        for rows in (
            image.run(None, {"pixels": pixels})[0],
            text.run(None, {"ids": ids, "mask": np.ones_like(ids)})[0],
        ):
            assert rows.shape == (n, 256)
            np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_padding_does_not_change_a_row(text, tokenizer):
    """A short query gets the same row alone and beside a long one."""
    short, long = "a cat", "two children in red coats play with a very small dog on the beach"
    encodings = tokenizer.encode_batch([short, long])
    ids = np.zeros((2, len(encodings[1].ids)), np.int64)
    for line, encoding in zip(ids, encodings, strict=True):
        line[: len(encoding.ids)] = encoding.ids
    together = text.run(None, {"ids": ids, "mask": (ids > 0).astype(np.int64)})[0]
    one = ids[:1, : len(encodings[0].ids)]
    alone = text.run(None, {"ids": one, "mask": np.ones_like(one)})[0]
    np.testing.assert_allclose(together[:1], alone, atol=1e-5)


def test_the_tokenizer_does_not_mind_case_or_accents(tokenizer):
    """Queries are typed any way."""
    assert tokenizer.encode("A Café at NIGHT").ids == tokenizer.encode("a cafe at night").ids


def test_words_of_one_meaning_lie_closer_than_others(text, tokenizer):
    """The text tower knows words, in captions or not."""
    groups = ["an astronaut in space", "a space suit"], ["a cup of coffee", "espresso in a mug"]
    rows = embed_texts(text, tokenizer, [sentence for group in groups for sentence in group])
    near = rows @ rows.T
    assert min(near[0, 1], near[2, 3]) > near[:2, 2:].max()


def test_recall_on_flickr8k_is_above_the_bar(image, text, tokenizer):
    """The right photo, and a right caption, in the first ten for 55 % of the test split."""
    folder = DATA / "flickr8k"
    if not folder.exists():
        pytest.skip("the test photos are not beside the repository")
    names = (folder / "Flickr_8k.testImages.txt").read_text().split()
    row = {name: i for i, name in enumerate(names)}
    captions, owners = [], []
    for line in (folder / "Flickr8k.token.txt").read_text(encoding="utf-8").splitlines():
        key, caption = line.split("\t")
        if (owner := row.get(key.rsplit("#", 1)[0])) is not None:
            captions.append(caption)
            owners.append(owner)
    images = []
    for start in range(0, len(names), 25):
        pixels = []
        for name in names[start : start + 25]:
            with Image.open(folder / "images" / name) as photo:
                pixels.append(np.asarray(photo.convert("RGB")))
        images.append(image.run(None, {"pixels": np.stack(pixels)})[0])
    scores = embed_texts(text, tokenizer, captions) @ np.concatenate(images).T
    relevant = np.array(owners)[:, None] == np.arange(len(names))[None, :]
    assert scores.shape == (5000, 1000)
    assert recall_at_k(first_ranks(scores, relevant), 10) >= 0.55
    assert recall_at_k(first_ranks(scores.T, relevant.T), 10) >= 0.55


def test_the_card_quotes_what_the_benchmark_measured(facts):
    """Every figure of the card stands in benchmarks/results/model.json, for these very files."""
    path = ROOT / "benchmarks" / "results" / "model.json"
    if not path.exists():
        pytest.skip("benchmarks/results/model.json is not in this checkout")
    results = json.loads(path.read_text(encoding="utf-8"))
    assert results["sha256"] == facts["files"]
    assert facts["training"]["measured"] == {
        name: results[name] for name in facts["training"]["measured"]
    }
    card = (MODEL / "CARD.md").read_text(encoding="utf-8")
    quoted = re.findall(r"<!-- ([^>]+) -->([0-9]+(?:\.[0-9]+)?)", card)
    assert len(quoted) >= 12
    for place, figure in quoted:
        value = results
        for key in place.split("/"):
            value = value[key]
        assert float(figure) == float(value), place
