"""PE-AV held against transformers' own pipeline: sounds, pictures and texts in one space."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")
transformers = pytest.importorskip("transformers", minversion="5.0")
pytest.importorskip("torchvision")
pytest.importorskip("onnx")

import small  # noqa: E402
import soundfile  # noqa: E402

import mmsearch  # noqa: E402
from mmsearch.encoders import open_encoder  # noqa: E402
from mmsearch.encoders.foreign import pe_av  # noqa: E402
from mmsearch.errors import ModelError  # noqa: E402
from mmsearch.records import AudioInput, Modality  # noqa: E402

FRAMES = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small one, which looks at four frames of a video, and a cache for this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMSEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield small.pe_av(tmp_path_factory.mktemp("pe") / "av", FRAMES)


@pytest.fixture(scope="module")
def theirs(folder):
    """(network, processor): the whole of transformers' pipeline."""
    config = transformers.AutoConfig.from_pretrained(folder)
    config.audio_video_config.video_config.vision_config.num_labels = 12  # it forgets
    network = transformers.PeAudioVideoModel.from_pretrained(folder, config=config).eval()
    return network, transformers.PeAudioVideoProcessor.from_pretrained(folder)


def unit(rows):
    """Rows of length 1, as an array."""
    return torch.nn.functional.normalize(rows, dim=-1).detach().numpy()


def same(found, expected):
    """Rows are the same, and tell their inputs apart by more than they may differ."""
    assert (found * expected).sum(axis=1).min() >= 0.9999
    apart = min(
        np.abs(expected[i] - expected[j]).max() for i in range(len(expected)) for j in range(i)
    )
    assert np.abs(found - expected).max() < 0.1 * apart


@torch.no_grad()
def test_rows_are_those_of_transformers(folder, theirs, tmp_path, capfd):
    """Sounds of several lengths, pictures as videos that stand still, texts of several lengths."""
    network, process = theirs
    draw = np.random.default_rng(0)
    sounds, pictures, heard, seen = [], [], [], []
    for number, (seconds, size) in enumerate([(0.1, (48, 30)), (0.2, (32, 32)), (0.4, (25, 60))]):
        time = np.arange(int(8000 * seconds) + number) / 8000
        sound = 0.3 * np.sin(2 * np.pi * 44 / seconds * time) + draw.normal(0, 0.05, len(time))
        sounds.append(tmp_path / f"{number}.wav")
        soundfile.write(sounds[-1], sound, 8000, subtype="FLOAT")
        coarse = Image.fromarray(draw.integers(0, 256, (6, 5, 3), dtype=np.uint8))
        pictures.append(tmp_path / f"{number}.png")
        coarse.resize(size, Image.Resampling.BICUBIC).save(pictures[-1])
        given = process(
            audio=[soundfile.read(sounds[-1], dtype="float32")[0]],
            videos=[np.asarray(Image.open(pictures[-1]))[None]],
            text=["rain"],
            sampling_rate=8000,
            video_metadata=[{"total_num_frames": 1, "fps": 1}],
            return_tensors="pt",
        )
        assert given["pixel_values_videos"].shape[1] == FRAMES
        given["pixel_values_videos"] = given["pixel_values_videos"].contiguous()
        out = network(**given)
        heard.append(out.audio_embeds)
        seen.append(out.video_embeds)
    texts = ["a dog barks", "rain", "a " * 20]
    tokens = process(text=texts, return_tensors="pt", padding=True)
    out = [
        network(**dict(given) | {key: value[at : at + 1] for key, value in tokens.items()})
        for at in range(3)
    ]
    name = f"pe-av:{folder}"
    capfd.readouterr()
    encoder = open_encoder(name)
    assert capfd.readouterr() == ("", "")  # transformers draws bars and prints what it misses
    same(mmsearch.embed(sounds, modality="audio", model=name), unit(torch.cat(heard)))
    rows = mmsearch.embed(pictures, modality="image", model=name, precision="fp32")
    same(rows, unit(torch.cat(seen)))
    both = sum(
        unit(torch.cat([getattr(one, f"text_{kind}_embeds") for one in out]))
        for kind in ("audio", "video")
    )
    rows = mmsearch.embed(texts, modality="text", model=name)
    same(rows, both / np.linalg.norm(both, axis=1, keepdims=True))
    assert encoder.modalities == set(Modality)
    assert encoder.audio_input == AudioInput(8000, 10.0)


@pytest.mark.parametrize("kind", ["audio", "video"])
@torch.no_grad()
def test_half_of_it_is_a_model_too(folder, theirs, kind, tmp_path):
    """A checkpoint of sounds alone, or of videos: a text's row is the one of its own head."""
    network = getattr(theirs[0], f"{kind}_model")
    network.save_pretrained(tmp_path)
    theirs[1].save_pretrained(tmp_path)
    towers = pe_av.source(str(tmp_path)).towers
    assert set(towers) == {Modality.TEXT, Modality.AUDIO if kind == "audio" else Modality.IMAGE}
    tokens = theirs[1](text=["a dog barks", "rain"], return_tensors="pt", padding=True)
    first = network.text_model(**tokens).last_hidden_state[:, 0]
    expected = unit(getattr(network, f"text_{kind}_head")(first))
    same(towers[Modality.TEXT].module(*tokens.values()).numpy(), expected)


def test_an_older_transformers_is_named(folder, monkeypatch):
    """One that has not heard of PE-AV: which is needed, and how it is had."""
    monkeypatch.setitem(pe_av.NETWORKS, "pe_audio_video", "NotThereYet")
    with pytest.raises(ModelError, match=r"needs transformers 5.0 .*pip install --upgrade"):
        pe_av.source(str(folder))


def test_what_is_none_is_refused(folder, tmp_path):
    """A CLAP under this name, and pictures that are not brought to one size."""
    with pytest.raises(ModelError, match="is of the kind clap, not PE-AV"):
        open_encoder(f"pe-av:{small.clap(tmp_path / 'clap')}")
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    card = json.loads((copy / "processor_config.json").read_text())
    for change, why in (
        ({"do_resize": False}, "takes pictures as they are"),
        ({"size": {"height": 32, "width": 40}}, "only squares can be made"),
    ):
        said = card | {"video_processor": card["video_processor"] | change}
        (copy / "processor_config.json").write_text(json.dumps(said))
        with pytest.raises(ModelError, match=why):
            open_encoder(f"pe-av:{copy}")
