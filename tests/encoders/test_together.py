"""A CLIP of open_clip and a CLAP of transformers in one library, as typed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import paint

pytest.importorskip("torch")
pytest.importorskip("open_clip")
pytest.importorskip("transformers")
pytest.importorskip("onnx")

import small
import soundfile
from typer.testing import CliRunner

from mmsearch.cli import app
from mmsearch.encoders import open_encoder
from mmsearch.records import Modality


@pytest.fixture
def typed(tmp_path, monkeypatch):
    """What runs `mmsearch` with two models on a folder of pictures, sounds and texts."""
    monkeypatch.setenv("MMSEARCH_CACHE", str(tmp_path / "cache"))
    see = f"small-CLIP/{small.weights('small-CLIP', tmp_path / 'clip')}"
    hear = f"clap:{small.clap(tmp_path / 'clap')}"
    files = tmp_path / "files"
    for colour in ("red", "blue"):
        paint(files / f"{colour}.png", colour)
    for name, hertz in (("low", 200), ("high", 3000)):
        time = np.arange(8000) / 8000
        soundfile.write(files / f"{name}.wav", 0.3 * np.sin(2 * np.pi * hertz * time), 8000)
    (files / "note.txt").write_text("a dog barks in the rain")
    (files / "red.txt").write_text("a dog")  # a caption of red.png

    def run(*arguments):
        done = CliRunner().invoke(app, [*arguments, "--index", str(tmp_path / "index")])
        assert done.exit_code == 0, done.output
        return done

    run("index", str(files), "--model", see, "--model", hear)
    return run, files, see, hear


def asked(run, *arguments):
    """The answers by path, and what was said beside them."""
    done = run("query", *arguments, "--all", "-k", "20", "--json")
    return {hit["path"]: hit for hit in json.loads(done.stdout)}, done.stderr.splitlines()


def test_pictures_by_one_and_sounds_by_the_other(typed):
    """A text asks both, each item's score is its model's own, and nothing passes for rated; a
    picture reaches sounds by the words nearest to it, which is said.
    """
    run, files, see, hear = typed
    hits, said = asked(run, "a", "dog")
    names = {"red.png": see, "blue.png": see, "low.wav": hear, "high.wav": hear}
    assert set(hits) >= {str(files / name) for name in names}
    [text] = open_encoder(see).encode(Modality.TEXT, ["a dog"])
    [red] = open_encoder(see, "fp32").encode(
        Modality.IMAGE, [np.full((32, 32, 3), (255, 0, 0), np.uint8)]
    )
    assert hits[str(files / "red.png")]["score"] == pytest.approx(float(text @ red), abs=2e-3)
    [text] = open_encoder(hear).encode(Modality.TEXT, ["a dog"])
    time = np.arange(8000, dtype=np.float32) / 8000
    [low] = open_encoder(hear).encode(Modality.AUDIO, [0.3 * np.sin(2 * np.pi * 200 * time)])
    assert hits[str(files / "low.wav")]["score"] == pytest.approx(float(text @ low), abs=2e-3)
    for name, model in names.items():
        hit = hits[str(files / name)]
        assert (hit["space"], hit["relevance"]) == (model, None)
    assert said == [
        f"{see} and {hear} are not calibrated: their answers are ranked, not rated, and the list "
        "ends with -k alone"
    ]
    hits, said = asked(run, "--image", str(files / "red.png"))
    assert hits[str(files / "low.wav")]["space"] == hear
    assert next(iter(hits)) == str(files / "red.png")
    assert said[0].startswith(f"sounds were looked for with {hear} by the words nearest to it: ")
    assert '"a dog"' in said[0]
    hits, _ = asked(run, "--audio", str(files / "low.wav"))
    assert next(iter(hits)) == str(files / "low.wav")  # before what is near to its words
