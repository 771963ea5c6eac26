"""What indexing and queries take: the stages do what they say, and every figure is there."""

from __future__ import annotations

import json
import os
import sqlite3
import sys

import numpy as np
import pytest
import soundfile
from conftest import paint
from typer.testing import CliRunner

import mmsearch
from mmsearch.cli import app
from mmsearch.errors import BenchmarkError, UsageError
from mmsearch.evaluation import speed, stages
from mmsearch.evaluation.costs import Cost, run, spent
from mmsearch.records import Modality


@pytest.fixture
def mixed(tmp_path):
    """Two pictures, a sound of two windows, a text; a broken picture, and what is none of them."""
    folder = tmp_path / "mixed"
    paint(folder / "a.png", "red")
    paint(folder / "below" / "b.jpg", "blue", (64, 48))
    soundfile.write(folder / "c.wav", np.sin(np.arange(30000) / 9).astype(np.float32), 8000)
    (folder / "d.txt").write_text("green words")
    (folder / "e.jpg").write_bytes(b"\xff\xd8\xff broken")
    (folder / "f.xyz").write_text("nothing")
    return folder


def test_what_a_model_reads_is_found(mixed, encoder):
    """Every kind that has a tower, in the order of a walk; nothing else."""
    names = [path.name for path in stages.supported(mixed, encoder)]
    assert names == ["a.png", "c.wav", "d.txt", "e.jpg", "b.jpg"]


def test_every_stage_has_its_costs_and_its_limit(mixed, encoder, tmp_path):
    """Each stage runs over all that can be read, and commits just that."""
    work = tmp_path / "work"
    work.mkdir()
    found = stages.stages(mixed, stages.supported(mixed, encoder), encoder, work, repeat=1)
    assert list(found) == ["walk", "read", "decode", "preprocess", "encode", "commit"]
    for stage in found.values():
        assert stage.wall >= 0 and stage.limit_wall >= 0
        assert stage.as_dict()["wall_ms"] == round(1e3 * stage.wall, 4)
    assert found["commit"].wall > 0
    with sqlite3.connect(work / "0.db") as ours, sqlite3.connect(work / "1.db") as bare:
        modalities = ours.execute("SELECT modality FROM contents ORDER BY id").fetchall()
        assert modalities == [("image",), ("audio",), ("text",), ("image",)]
        blobs = [row[0] for row in ours.execute("SELECT data FROM vectors ORDER BY id")]
        written = [row[0] for row in bare.execute("SELECT data FROM made")]
    assert b"".join(blobs) == b"".join(written)
    red, blue = (np.frombuffer(blobs[row], "<f2") for row in (0, -1))
    assert np.allclose(red, [1, 0, 0]) and np.allclose(blue, [0, 0, 1], atol=0.02)
    assert len(blobs) == 5  # two windows of the sound


def test_nothing_that_can_be_read_is_said(mixed, encoder, tmp_path):
    """No figure is made up for a folder of broken files."""
    with pytest.raises(BenchmarkError, match="none of 1 files can be read"):
        stages.stages(mixed, [mixed / "e.jpg"], encoder, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no picture, sound or text to measure with"):
        speed.measure_speed(tmp_path / "empty")
    with pytest.raises(UsageError, match="no such folder"):
        speed.measure_speed(tmp_path / "nowhere")


def test_costs_are_of_the_work_alone():
    """Another process's end is told with what it said; its output comes back."""
    assert spent(lambda: sum(range(200_000))).cpu > 0
    cost = run([sys.executable, "-c", "import mmsearch; print(6 * 7)"], watch=True)
    assert (cost.output, cost.errors) == ("42\n", "")
    assert cost.cpu > 0 and cost.wall > 0
    with pytest.raises(BenchmarkError, match=r"ended with 3: .*no idea"):
        run([sys.executable, "-c", "import sys; print('no idea', file=sys.stderr); sys.exit(3)"])


def test_the_command_measures_a_folder_and_leaves_it_alone(tmp_path, encoder, monkeypatch):
    """Three pictures, of which two are drawn, and processes whose costs are known: the figures
    that are made of them, a table, and no other file in the folder.
    """
    for number, name in enumerate(("red", "green", "blue")):
        paint(tmp_path / "photos" / f"{number}.png", name)
    before = sorted(os.listdir(tmp_path / "photos"))

    def known(command, **_):
        if "index" not in command:
            return Cost(0.5, 0.25, "", "VmHWM:\t 2000 kB\n")
        _, folder, _, place = command[command.index("index") :][:4]
        with mmsearch.open_library(place, workers=1) as library:
            return Cost(4.0, 2.0, json.dumps(library.index(folder).as_dict()), "", rss=100.0)

    monkeypatch.setattr(speed, "run", known)
    monkeypatch.setattr(speed, "open_encoder", lambda name: encoder)
    out = tmp_path / "found.json"
    arguments = ["bench", "speed", str(tmp_path / "photos"), "--limit", "2", "--repeat", "1"]
    done = CliRunner().invoke(app, [*arguments, "--out", str(out)])
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    assert (found["files"], found["files_there"], found["seed"]) == (2, 3, 0)
    assert found["index"] == {
        "files": 2, "failed": 0, "wall_s": 4.0, "cpu_s": 2.0, "files_per_second": 0.5,
        "cpu_ms_a_file": 1000.0, "cores_busy": 0.5, "memory_mb": 100.0,
    }  # fmt: skip
    cold, warm = found["query"]["cold"], found["query"]["warm"]
    assert cold == {
        "wall_ms": 500.0, "cpu_ms": 250.0, "limit_wall_ms": 500.0, "limit_cpu_ms": 250.0,
        "memory_mb": 2.0,
    }  # fmt: skip
    assert (warm["vectors"], warm["questions"]) == (2, 10)
    assert (found["model"], found["fingerprint"]) == (encoder.name, encoder.fingerprint)
    assert "all of them" in done.output and "query, library open" in done.output
    assert sorted(os.listdir(tmp_path / "photos")) == before


def test_drawn_pictures_are_all_different(tmp_path):
    """Without a folder pictures are made up: as many, by the seed, none a copy."""
    speed._draw(tmp_path / "a", 3, seed=1)
    speed._draw(tmp_path / "b", 3, seed=1)
    first, second = (
        [path.read_bytes() for path in sorted((tmp_path / name).iterdir())] for name in "ab"
    )
    assert first == second
    assert len(set(first)) == 3


def test_pieces_keep_to_their_files(mixed, encoder):
    """A transaction's rows are those of its files, whatever lies between."""
    sample = list(stages._readable(stages.supported(mixed, encoder), encoder))
    rows = {kind: stages._encode(sample, kind, encoder, 32) for kind in Modality}
    for _, file, mine in next(stages._batches(sample, rows)):
        assert np.array_equal(mine, encoder.encode(file.kind, file.pieces))
