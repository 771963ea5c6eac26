"""Rows of other libraries' models, held against their own pipelines: pictures, texts, sounds."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")
transformers = pytest.importorskip("transformers")
pytest.importorskip("onnx")

import small  # noqa: E402
import soundfile  # noqa: E402

import mmsearch  # noqa: E402
from mmsearch.encoders import cache, open_encoder, runtime  # noqa: E402
from mmsearch.encoders.exported import Exported  # noqa: E402
from mmsearch.encoders.texts import repaired  # noqa: E402
from mmsearch.records import ImageInput, Modality  # noqa: E402

TEXTS = ["a dog", "Two cats, one", "don't_stop !!! ...", "日本語 &amp; cafÃ© ﬁ"]
HOSTILE = [
    "", " ", "A  Dog\tand\n\x1fa CAT", "it's 2026, they'll've 12:30 o'clock", "naïve café ﬁ ½ Ⅷ",
    "一只狗，在草地上！ＡＢ１２　ｶﾞ", "犬🐶🐕‍🦺 👩‍👩‍👧", "don't_stop !!! ... #tag @you", "a" * 300,
    "x" * 90 + " y", "ÀÉÎ ÜBER e\u0301 IT'S", "“don’t” ‘go’", "\ufefftext\x00\x7f", "Ǆ ĳ ﬃ",
    "zero\u200bwidth \u00a0space", "the the the the " * 30, "cafÃ© dâ€™or", "&lt;b&gt; &amp;amp; x",
    "\x1b[36;44mblue\x1b[0m", "AT&T &eacute;", "ALL CAPS\r\nlines", "schÃ¶n â€œquotedâ€",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def cached(tmp_path_factory):
    """A cache of exports for this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMSEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", params=sorted(small.ARCHITECTURES))
def model(request, tmp_path_factory):
    """(the name we open it by, the name of the architecture, the weights)."""
    folder = tmp_path_factory.mktemp(request.param)
    path = small.weights(request.param, folder)
    return f"{request.param}/{path}", request.param, str(path)


@pytest.fixture(scope="module")
def theirs(model):
    """open_clip's own pipeline for it: (network, preprocessing, tokenizer)."""
    _, name, path = model
    network, _, preprocess = open_clip.create_model_and_transforms(
        name, pretrained=path, pretrained_text=False
    )
    return network.eval(), preprocess, open_clip.get_tokenizer(name)


def unit(rows):
    """Rows of length 1, as an array."""
    return torch.nn.functional.normalize(rows, dim=-1).detach().numpy()


def same(found, expected):
    """Rows are the same, and tell their inputs apart."""
    cosines = (found * expected).sum(axis=1)
    assert cosines.min() >= 0.9999, cosines
    apart = np.abs(expected[0] - expected[1]).max()
    assert apart > 1e-3
    assert np.abs(found - expected).max() < 0.1 * apart


def scenes(folder):
    """Picture files of several shapes and formats: smooth, so that they are like photographs."""
    draw = np.random.default_rng(0)
    for number, (size, suffix) in enumerate(
        [((640, 480), "jpg"), ((300, 700), "jpg"), ((90, 61), "png"), ((33, 200), "png")]
    ):
        coarse = draw.integers(0, 256, (6, 5, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        path = folder / f"{number}.{suffix}"
        picture.save(path, quality=90)
        yield path
    grey = folder / "grey.png"
    Image.fromarray(draw.integers(0, 256, (50, 70), dtype=np.uint8)).save(grey)
    yield grey


@torch.no_grad()
def test_pictures_and_texts_have_the_rows_of_open_clip(model, theirs, tmp_path):
    """A CLIP, a SigLIP2 and a MobileCLIP: files through all of our code, against all of theirs."""
    name, _, _ = model
    network, preprocess, tokenize = theirs
    files = list(scenes(tmp_path))
    batch = torch.stack([preprocess(Image.open(path)) for path in files])
    found = mmsearch.embed(files, modality="image", model=name, precision="fp32")
    same(found, unit(network.encode_image(batch)))
    found = mmsearch.embed(TEXTS, modality="text", model=name, precision="fp32")
    same(found, unit(network.encode_text(tokenize(TEXTS))))


def test_tokens_are_open_clips(model, theirs):
    """For plain and hostile texts, wrongly decoded ones and HTML among them, each cut as theirs."""
    pytest.importorskip("ftfy")
    encoder, tokenize = open_encoder(model[0]), theirs[2]
    for text in [*TEXTS, *HOSTILE]:
        ids = encoder._texts._tokenizer.encode(repaired(text)).ids
        expected = tokenize([text])[0].tolist()
        pad = encoder.card["text"]["pad_id"]
        assert ids + [pad] * (small.CONTEXT - len(ids)) == expected, text


@torch.no_grad()
def test_a_text_longer_than_the_context_is_the_mean_of_its_windows(model, theirs):
    """Each window as long as the tower reads, marked at its ends; the first is what theirs cuts."""
    network, _, tokenize = theirs
    words = " ".join(f"{letter}{number}" for number in range(9) for letter in "abcd")
    encoder = open_encoder(model[0])
    whole = encoder._texts._tokenizer.encode(repaired(words))
    windows = [whole.ids, *(part.ids for part in whole.overflowing)]
    assert len(windows) > 2
    assert windows[0] == tokenize([words])[0].tolist()
    pad = encoder.card["text"]["pad_id"]
    padded = [window + [pad] * (small.CONTEXT - len(window)) for window in windows]
    expected = unit(network.encode_text(torch.tensor(padded))).sum(axis=0)
    [row] = encoder.encode(Modality.TEXT, [words])
    np.testing.assert_allclose(row, expected / np.linalg.norm(expected), atol=1e-4)


def test_a_causal_tower_stops_where_the_longest_text_does(model, theirs, monkeypatch):
    """CLIP's reads as many tokens as the longest text has, not the whole context."""
    name, architecture, _ = model
    seen = []
    call = runtime.Graph.__call__

    def spied(self, **inputs):
        seen.append(inputs["ids"].shape)
        return call(self, **inputs)

    monkeypatch.setattr(runtime.Graph, "__call__", spied)
    rows = open_encoder(name).encode(Modality.TEXT, ["a", "a dog runs", "a dog"])
    assert seen[0][0] == 3 and seen[0][1] < small.CONTEXT
    alone = open_encoder(name).encode(Modality.TEXT, ["a"])
    np.testing.assert_allclose(rows[:1], alone, atol=1e-5)
    graph = (open_encoder(name).folder / "text.onnx").read_bytes()
    # a tower that sees padding pads inside of its graph
    assert (b"Pad" in graph) == (architecture != "small-CLIP")


def test_the_first_texts_are_read_by_a_graph_that_is_there_at_once(model):
    """It is not prepared for many; their rows are those of the prepared one, which comes after."""
    encoder = Exported(model[0], open_encoder(model[0]).folder)
    many = [*TEXTS] * 5
    first = encoder.encode(Modality.TEXT, TEXTS)
    assert not encoder._texts._graph_as_it_is.prepared
    assert "_graph" not in encoder._texts.__dict__
    rows = encoder.encode(Modality.TEXT, many)
    assert encoder._texts._graph.prepared and "_graph" in encoder._texts.__dict__
    np.testing.assert_allclose(rows[: len(TEXTS)], first, atol=1e-5)


def test_the_same_weights_are_exported_once(model, tmp_path, monkeypatch):
    """Under another path they are found again by their hash; other weights are another model."""
    name, architecture, path = model
    encoder = open_encoder(name)
    copy = tmp_path / "copy.safetensors"
    shutil.copyfile(path, copy)
    again = open_encoder(f"{architecture}/{copy}")
    assert (again.folder, again.fingerprint) == (encoder.folder, encoder.fingerprint)
    assert {entry.weights for entry in cache.entries()} >= {path, str(copy)}
    assert encoder.altered() == []


@torch.no_grad()
@pytest.mark.parametrize("mode", ["longest", "shortest", "squash"])
@pytest.mark.parametrize("size", [(640, 480), (61, 200), (32, 32), (500, 31)])
def test_pictures_are_fitted_as_open_clip_fits_them(mode, size):
    """The pixels of each of its ways, within one level: its rounding is torchvision's."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    from mmsearch.loaders import to_pixels

    wanted = PreprocessCfg(size=32, mean=(0, 0, 0), std=(1, 1, 1), resize_mode=mode, fill_color=7)
    coarse = np.random.default_rng(1).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    expected = image_transform_v2(wanted, is_train=False)(picture).permute(1, 2, 0).numpy() * 255
    fit = {"longest": "pad", "shortest": "crop", "squash": "squash"}[mode]
    found = to_pixels(picture, ImageInput(32, fit, "bicubic", 7, exact=True))
    assert np.abs(found - expected).max() <= 1.01


@torch.no_grad()
def test_sounds_and_texts_have_the_rows_of_transformers(tmp_path):
    """A CLAP: files of less than a window and of one, against feature extractor and network."""
    folder = small.clap(tmp_path / "clap")
    network = transformers.ClapModel.from_pretrained(folder).eval()
    extract = transformers.ClapFeatureExtractor.from_pretrained(folder)
    draw, files, rows = np.random.default_rng(0), [], []
    for seconds in (0.5, 1.3, 2.0):
        time = np.arange(int(8000 * seconds)) / 8000
        sound = 0.3 * np.sin(2 * np.pi * 440 / seconds * time) + draw.normal(0, 0.05, len(time))
        files.append(tmp_path / f"{seconds}.wav")
        soundfile.write(files[-1], sound, 8000, subtype="FLOAT")
        heard, _ = soundfile.read(files[-1], dtype="float32")
        features = extract(heard, sampling_rate=8000, return_tensors="pt")
        rows.append(network.get_audio_features(**features).pooler_output)
    name = f"clap:{folder}"
    same(mmsearch.embed(files, modality="audio", model=name), unit(torch.cat(rows)))
    tokenize = transformers.AutoTokenizer.from_pretrained(folder)
    texts = ["a dog barks", "rain", "a " * 20]
    tokens = tokenize(texts, padding=True, return_tensors="pt")
    expected = unit(network.get_text_features(**tokens).pooler_output)
    same(mmsearch.embed(texts, modality="text", model=name), expected)
    encoder = open_encoder(name)
    assert (encoder.audio_input.rate, encoder.audio_input.window) == (8000, 2.0)
    assert encoder.modalities == {Modality.AUDIO, Modality.TEXT}
    long = np.concatenate([heard, heard[:4000][::-1]])  # a rest below a second stays with a window
    ends = encoder.encode(Modality.AUDIO, [long[:16000], long[-16000:]]).sum(axis=0)
    [row] = encoder.encode(Modality.AUDIO, [long])
    np.testing.assert_allclose(row, ends / np.linalg.norm(ends), atol=1e-5)


@torch.no_grad()
def test_a_folder_of_open_clip_opens_as_it_is(tmp_path):
    """open_clip_config.json beside its weights, as the hub has them; pictures with a border."""
    path = small.weights("small-CLIP", tmp_path / "theirs")
    config = small.ARCHITECTURES["small-CLIP"]
    preprocess = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3], "resize_mode": "longest"}
    both = {"model_cfg": config, "preprocess_cfg": preprocess}
    (path.parent / "open_clip_config.json").write_text(json.dumps(both))
    network, transform = open_clip.create_model_from_pretrained(f"local-dir:{path.parent}")
    files = list(scenes(tmp_path))
    batch = torch.stack([transform(Image.open(file)) for file in files])
    found = mmsearch.embed(files, modality="image", model=str(path.parent), precision="fp32")
    same(found, unit(network.eval().encode_image(batch)))
