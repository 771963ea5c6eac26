"""The shipped model ``builtin-2``: its files, its promises, and its recall. No torch."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from tokenizers import Tokenizer

from mmsearch.encoders.builtin import Builtin
from mmsearch.loaders import load_image
from mmsearch.loaders.sounds import windows
from mmsearch.metrics import first_ranks, recall_at_k
from mmsearch.records import Modality

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "mmsearch" / "models" / "builtin-2"
DATA = ROOT.parent / "shared" / "data"

pytestmark = pytest.mark.skipif(not MODEL.exists(), reason="builtin-2 is not in this checkout")


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
    """40 MB at most."""
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= 40_000_000


def test_model_json_names_the_files_that_are_there(facts):
    """Every recorded hash is that of the file; no weights lie beside it unrecorded."""
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in MODEL.iterdir()
        if path.name not in ("model.json", "CARD.md", "queries.npy", "relevance.json")
    }
    assert facts["files"] == found


def test_model_json_says_how_to_use_the_model(facts, image, text, tokenizer):
    """What it says is what the files are."""
    assert (facts["name"], facts["dim"]) == ("builtin-2", 256)
    assert facts["modalities"] == ["image", "text", "audio"]
    assert facts["image"] == {"size": 192, "fit": "squash", "resample": "bicubic"}
    assert facts["audio"] == {"rate": 16_000, "window": 5.0}
    assert [(i.name, i.type) for i in image.get_inputs()] == [("pixels", "tensor(uint8)")]
    assert image.get_inputs()[0].shape[1:] == [192, 192, 3]
    assert [i.name for i in text.get_inputs()] == ["ids", "mask"]
    for tower in (image, text):
        (out,) = tower.get_outputs()
        assert (out.name, out.type, out.shape[1]) == ("embedding", "tensor(float)", 256)
    assert tokenizer.token_to_id("[PAD]") == facts["text"]["pad_id"]
    assert len(tokenizer.encode("dog " * 500).ids) == facts["text"]["max_tokens"]


def test_rows_have_length_one_whatever_the_number(image, text):
    """Pictures and texts, one or several, all black too."""
    for n in (1, 3):
        pixels = np.zeros((n, 192, 192, 3), np.uint8)
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


def test_the_tokenizer_reads_chinese(tokenizer):
    """A character a token, none unknown, with or without spaces."""
    encoded = tokenizer.encode("一只狗在草地上奔跑。")
    assert len(encoded.tokens) == 2 + 10 and "[UNK]" not in encoded.tokens


@pytest.fixture(scope="module")
def photos():
    """Rows of the 1,000 photos of Flickr8k's test split, and their names."""
    if not DATA.exists():
        pytest.skip("the test photos are not beside the repository")
    encoder, folder = Builtin("builtin-2", MODEL), DATA / "flickr8k"
    names = (folder / "Flickr_8k.testImages.txt").read_text().split()
    rows = []
    for start in range(0, len(names), 50):
        pixels = []
        for name in names[start : start + 50]:
            data = (folder / "images" / name).read_bytes()
            pixels.append(load_image(data, encoder.image_input, max_megapixels=1).pixels)
        rows.append(encoder.encode(Modality.IMAGE, pixels))
    return np.concatenate(rows), names


@pytest.mark.parametrize(
    ("captions", "separator", "bar"),
    [("Flickr8k.token.txt", "\t", 0.60), ("Flickr8k-CN.zhc.txt", " ", 0.40)],
)
def test_recall_on_flickr8k(photos, text, tokenizer, captions, separator, bar):
    """The right photo, and a right caption, in the first ten; exact figures: benchmarks/results."""
    images, names = photos
    row = {name: i for i, name in enumerate(names)}
    texts, owners = [], []
    for line in (DATA / "flickr8k" / captions).read_text(encoding="utf-8").splitlines():
        key, caption = line.split(separator, 1)
        if (owner := row.get(key.split("#", 1)[0])) is not None:
            texts.append(caption)
            owners.append(owner)
    # One caption a photo is enough to tell a model that has come apart.
    _, first = np.unique(owners, return_index=True)
    scores = embed_texts(text, tokenizer, [texts[i] for i in first]) @ images.T
    relevant = np.eye(len(names), dtype=bool)
    assert scores.shape == (1000, 1000)
    assert recall_at_k(first_ranks(scores, relevant), 10) >= bar


def test_a_sound_finds_its_name_and_is_the_same_twice():
    """Of 50 names of sounds the right one is first for most clips; the same clip, the same row."""
    folder = DATA / "esc50"
    if not folder.exists():
        pytest.skip("the sounds are not beside the repository")
    encoder = Builtin("builtin-2", MODEL)
    with (folder / "labels.csv").open(newline="") as file:
        clips = list(csv.DictReader(file))[::40]
    names = sorted({clip["category"] for clip in clips})
    samples = []
    for clip in clips:
        with (folder / "audio" / clip["file"]).open("rb") as file:
            samples.append(next(windows(file, encoder.audio_input)).samples)
    rows = encoder.encode(Modality.AUDIO, samples)
    assert (encoder.encode(Modality.AUDIO, samples[::-1])[::-1] == rows).all()
    asked = [f"the sound of {name.replace('_', ' ')}" for name in names]
    found = (rows @ encoder.encode(Modality.TEXT, asked).T).argmax(1)
    assert (
        np.mean([names[i] == clip["category"] for i, clip in zip(found, clips, strict=True)]) > 0.8
    )


def test_unrelated_pairs_score_as_the_model_says(photos):
    """Backgrounds: the mean and deviation of photos that have nothing to do with each other."""
    encoder, (rows, _) = Builtin("builtin-2", MODEL), photos
    scores = (rows @ rows.T)[~np.eye(len(rows), dtype=bool)]
    mean, deviation = encoder.backgrounds[Modality.IMAGE][Modality.IMAGE]
    assert abs(scores.mean() - mean) < 0.3 * deviation
    assert 0.8 < scores.std() / deviation < 1.25
