"""Files with classes in every layout, and the labels that a model gives them."""

from __future__ import annotations

import json
import shutil
import zipfile

import numpy as np
import pytest
from conftest import COLOURS, paint, unit
from typer.testing import CliRunner

from mmsearch import evaluation
from mmsearch.cli import app
from mmsearch.datasets.classes import data_hash, read_classes, unpacked
from mmsearch.errors import LoadError, UsageError
from mmsearch.labels import TEMPLATES
from mmsearch.metrics import predicted_classes
from mmsearch.records import Modality


def told(files, folder):
    """(path within the folder, label) of each."""
    return [(str(file.path.relative_to(folder)), file.label) for file in files]


def test_a_folder_for_each_class(tmp_path):
    """At any depth; hidden files, other types and files outside of a class are none."""
    for name in ("polar_bear/b.png", "cat/deep/er/a.JPEG", "cat/.c.png", "cat/d.pdf", "e.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    expected = [("cat/deep/er/a.JPEG", "cat"), ("polar_bear/b.png", "polar bear")]
    assert told(read_classes(tmp_path), tmp_path) == expected
    for split in ("train", "val"):
        shutil.copytree(tmp_path / "cat", tmp_path / "sets" / split / "cat")
        shutil.copytree(tmp_path / "polar_bear", tmp_path / "sets" / split / "dog")
    expected = [("val/cat/deep/er/a.JPEG", "cat"), ("val/dog/b.png", "dog")]
    assert told(read_classes(tmp_path / "sets", "val"), tmp_path / "sets") == expected
    with pytest.raises(UsageError, match="holds splits: say which"):
        read_classes(tmp_path / "sets")


def test_folders_have_the_names_that_a_table_gives_them(tmp_path):
    """The first of several; tiny-ImageNet's val has all files in one folder."""
    (tmp_path / "words.txt").write_text("n1\tEgyptian cat, mau\nn2\treel\n")
    for name in ("train/n1/images/n1_0.JPEG", "train/n2/images/n2_0.JPEG", "val/images/v_0.JPEG"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
    (tmp_path / "val" / "images" / "v_1.JPEG").write_bytes(b"y")
    (tmp_path / "val" / "val_annotations.txt").write_text(
        "v_0.JPEG\tn2\t0\t0\t9\t9\nv_1.JPEG\tn1\t0\t0\t9\t9\n"
    )
    assert [file.label for file in read_classes(tmp_path, "train")] == ["Egyptian cat", "reel"]
    assert told(read_classes(tmp_path, "val"), tmp_path) == [
        ("val/images/v_0.JPEG", "reel"), ("val/images/v_1.JPEG", "Egyptian cat")
    ]  # fmt: skip


def test_the_table_of_esc_50(tmp_path):
    """As its authors have it and as labels.csv; a fold is a split."""
    for name in ("meta", "audio"):
        (tmp_path / name).mkdir()
    for name in ("1-a.wav", "2-b.wav", "2-c.wav"):
        (tmp_path / "audio" / name).write_bytes(b"x")
    rows = "1-a.wav,1,0,dog\n2-b.wav,2,1,sea_waves\n2-c.wav,2,0,dog\n"
    (tmp_path / "meta" / "esc50.csv").write_text("filename,fold,target,category\n" + rows)
    found = read_classes(tmp_path)
    assert [file.label for file in found] == ["dog", "sea waves", "dog"]
    assert {file.modality for file in found} == {Modality.AUDIO}
    assert [file.path.name for file in read_classes(tmp_path, "2")] == ["2-b.wav", "2-c.wav"]
    (tmp_path / "audio" / "2-c.wav").unlink()
    with pytest.raises(UsageError, match=r"names 2-c\.wav, which is not in"):
        read_classes(tmp_path)
    (tmp_path / "labels.csv").write_text("file,category\naudio/1-a.wav,dog\naudio/2-b.wav,cat\n")
    assert [file.label for file in read_classes(tmp_path)] == ["dog", "cat"]


def test_an_archive_is_unpacked_for_a_while(tmp_path):
    """A folder within it is the data; nothing is left behind."""
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("set/classes.tsv", "n1\tcat\nn2\tdog, hound\n")
        archive.writestr("set/n1/a.png", b"1")
        archive.writestr("set/n2/b.png", b"2")
    with unpacked(tmp_path / "set.zip") as folder:
        found = read_classes(folder)
        assert told(found, folder) == [("n1/a.png", "cat"), ("n2/b.png", "dog")]
        hashed = data_hash(found)
    assert not folder.exists()
    with unpacked(tmp_path / "set.zip") as folder:
        (folder / "n1" / "a.png").rename(folder / "n1" / "0.png")
        assert data_hash(read_classes(folder)) == hashed
        (folder / "n1" / "0.png").write_bytes(b"3")
        assert data_hash(read_classes(folder)) != hashed


def test_other_data_is_refused(tmp_path):
    """In a sentence each: nothing there, one class, a table without classes."""
    with pytest.raises(UsageError, match="no such folder or zip archive"), unpacked(tmp_path / "x"):
        pass
    with pytest.raises(UsageError, match="has no two classes"):
        read_classes(tmp_path)
    paint(tmp_path / "cat" / "a.png", "red")
    with pytest.raises(UsageError, match="has no two classes"):
        read_classes(tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        read_classes(tmp_path, "val")
    for table in ("file,other\na.png,b\n", "file,category\na.png\n", "nothing"):
        (tmp_path / "labels.csv").write_text(table)
        with pytest.raises(UsageError, match=r"not files with classes|no two classes|names"):
            read_classes(tmp_path)


@pytest.fixture
def coloured(tmp_path, encoder, monkeypatch):
    """Folders named after colours, of pictures in colours near them and far from them."""
    monkeypatch.setattr(evaluation.classed, "open_encoder", lambda name: encoder)
    generator = np.random.default_rng(5)
    rows, own = [], []
    names = sorted(name for name in COLOURS if name not in ("black", "orange"))
    for label, name in enumerate(names):
        for number in range(4):
            mixed = 0.5 * np.array(COLOURS[name]) + 0.5 * generator.integers(0, 256, 3)
            colour = tuple(int(value) for value in mixed)
            paint(tmp_path / "set" / name / f"{number}.png", colour)
            rows.append(unit(*colour))
            own.append(label)
    return tmp_path / "set", names, np.array(rows), np.array(own)


def test_accuracy_and_macro_f1_are_measured(coloured, encoder):
    """As loops over the fake encoder's rows have it, with the classes' names as labels."""
    folder, names, rows, own = coloured
    found = evaluation.measure_labels(folder, templates=["{}"])
    classes = np.array([unit(*COLOURS[name]) for name in names])
    predicted = predicted_classes(rows @ classes.T, own)
    right = sum(int(one == other) for one, other in zip(predicted, own, strict=True))
    assert 0 < right < len(own)
    assert found["accuracy"] == pytest.approx(right / len(own))
    scores = []
    for c in range(len(names)):
        true = sum((predicted == c) & (own == c))
        scores.append(2 * true / (sum(predicted == c) + sum(own == c)))
    assert found["macro_f1"] == pytest.approx(np.mean(scores), abs=1e-6)
    assert (found["files"], found["classes"], found["split"]) == (len(own), len(names), None)
    assert (found["model"], found["fingerprint"]) == (encoder.name, encoder.fingerprint)
    assert found["templates"] == {"image": ["{}"]}
    assert len(found["data"]) == 64
    assert evaluation.measure_labels(folder)["templates"]["image"] == list(
        TEMPLATES[Modality.IMAGE]
    )


def test_the_command_prints_json_or_lines(coloured):
    """And a file that does not decode is named."""
    folder, names, _, own = coloured
    command = ["bench", "labels", "--data", str(folder), "--template", "{}"]
    found = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    shown = CliRunner().invoke(app, command).stdout.splitlines()
    assert shown[-3].endswith(f"on {len(own)} files of {len(names)} classes")
    assert shown[-2:] == [
        f"accuracy  {found['accuracy']:.3f}", f"macro F1  {found['macro_f1']:.3f}"
    ]  # fmt: skip
    (folder / "red" / "0.png").write_bytes(b"no picture")
    failed = CliRunner().invoke(app, command).exception
    assert isinstance(failed, LoadError)
    assert "red/0.png" in str(failed)
