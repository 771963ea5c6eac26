"""The benchmark scripts run: a tiny run of each, and their words held to arithmetic."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from mmsearch import open_library
from mmsearch.encoders import open_encoder

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "benchmarks"
DATA = ROOT.parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")


def run(module, *arguments: object) -> int:
    """What its command line would do."""
    before = sys.argv
    sys.argv = [module.__name__, *map(str, arguments)]
    try:
        return module.main()
    finally:
        sys.argv = before


def test_made_up_library_is_as_indexing_leaves_it(script, tmp_path):
    """`mmsearch index` finds every made-up picture unchanged, and `check` finds nothing wrong."""
    made = script("made")
    encoder = open_encoder("builtin")
    random = np.random.default_rng(0)
    rows = random.standard_normal((4, encoder.dim)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    near = made.Near(rows, ["a dog/cat", "two boys"], rows[:2])
    (tmp_path / "photos").mkdir()
    spent = made.write_library(tmp_path / "library", encoder, near, 300, files=tmp_path / "photos")
    assert set(spent) == {"catalog", "hubness", "cache"}
    with open_library(tmp_path / "library") as library:
        assert library.index().unchanged == 300
        status = library.status()
        assert (status["files"], status["captions"]) == (300, 30)
        assert library.check() == []
        hits = library.query("a dog", k=400, where="height <= 100", all=True)
        assert {int(hit.path.stem.split()[-1]) for hit in hits} == set(range(100))


def test_made_up_rows_lie_near_their_photos(script):
    """Each row has length 1 and a cosine of about 0.9 with the photo that it is made from."""
    made = script("made")
    rows = np.eye(256, dtype=np.float32)[:4]
    found = np.concatenate(list(made.rows_near(made.Near(rows), 600)))
    assert len(found) == 600
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    cosines = (found * rows[np.arange(600) % 4]).sum(axis=1)
    assert abs(cosines.mean() - 1 / np.sqrt(1.25)) < 0.01


@needs_data
def test_latency_runs(script, tmp_path):
    """A tiny run measures every way of asking and prints a row for each."""
    out = tmp_path / "latency.json"
    few = ["--sizes", 40, "--asked", 1, "--repeat", 1, "--near", 8, "--many", 4]
    assert run(script("latency"), *few, "--out", out) == 0
    found = json.loads(out.read_text())
    [size] = found["sizes"]
    assert (size["items"], size["vectors"]) == (40, 44)  # one in ten has a caption
    ways = {"encoding alone", "numpy", "FAISS Flat", "text", "text, vectors alone", "picture",
            "text, 10 % kept", "text, 1 % kept", "text, 0.1 % kept"}  # fmt: skip
    assert set(size["warm_ms"]) == ways
    assert all(one["median"] > 0 for one in size["warm_ms"].values())
    assert len(script("tables").latency(found)) == 2 + 2 + len(ways) + 3


@needs_data
def test_scale_runs(script, tmp_path, monkeypatch):
    """A tiny run finds all files unchanged, adds sixteen photos, and has a figure of everything."""
    out = tmp_path / "scale.json"
    few = ["--repeat", 1, "--near", 8, "--sizes", 40]
    assert run(script("scale"), *few, "--out", out) == 0
    found = json.loads(out.read_text())
    [size] = found["sizes"]
    assert all(figure(size) > 0 for figure in script("tables").SCALE.values())
    monkeypatch.setattr(
        script("scale"), "measure", lambda size, *_: {**found["sizes"][0], "items": size}
    )
    assert run(script("scale"), *few, 20, "--resume", "--out", out) == 0
    joined = json.loads(out.read_text())
    assert [one["items"] for one in joined["sizes"]] == [20, 40]  # 40 was not measured again
    assert joined["sizes"][1] == size
    assert joined["slopes"]["on disk, MB"] == {"an_item": 0.0, "power": 0.0}


def test_slopes_are_those_of_a_line(script, monkeypatch):
    """What grows in proportion has the power 1, what does not grow has 0."""
    scale = script("scale")
    figures = {"even": lambda one: 5.0, "line": lambda one: 2.0 * one["items"]}
    monkeypatch.setattr(scale.tables, "SCALE", figures)
    found = scale.slopes([{"items": items} for items in (10, 100, 1000)])
    assert found["line"] == {"an_item": 2.0, "power": pytest.approx(1)}
    assert found["even"] == {"an_item": 0.0, "power": pytest.approx(0)}


@needs_data
def test_retrieval_runs(script, tmp_path):
    """Eight photos of COCO: both directions, bare and served; a set that is missing is an error."""
    out = tmp_path / "retrieval.json"
    few = ["--sets", "coco_free", "--limit", 8, "--out", out]
    assert run(script("retrieval"), *few) == 0
    found = json.loads(out.read_text())
    table = script("tables").retrieval(found)
    assert [line.split(" | ")[1:3] for line in table[2:]] == [
        ["text→image", "40, 8"], ["image→text", "8, 40"],
    ]  # fmt: skip
    assert run(script("retrieval"), *few, "--data", tmp_path) == 1
    assert "COCO" in json.loads(out.read_text())["problems"][0]


def test_no_data_is_said(script, tmp_path, capsys):
    """A benchmark that cannot run says why and exits with 1."""
    for name in ("latency", "scale", "peers"):
        out = tmp_path / "out.json"
        assert run(script(name), "--flickr8k", tmp_path / "none", "--out", out) == 1
        assert f"no Flickr8k at {tmp_path / 'none'}" in capsys.readouterr().err
        assert not out.exists()


# -- tables ---------------------------------------------------------------------------------------


def test_engines_are_listed(script):
    """A line for each engine that is asked in text; what was not measured is a dash."""
    one = {
        "data": "real", "n": 200_000, "dim": 256, "engine": "faiss-flat", "setting": None,
        "recall@10": 1.0, "qps_single": 31.5, "qps_batch": None, "build_s": 0.25,
        "bytes_per_vector": 1024, "peak_mb": 300,
    }  # fmt: skip
    lines = script("tables").index([{**one, "queries": "text"}, {**one, "queries": "image"}])
    told = "| real (200,000 × 256) | faiss-flat | - | 1.0000 | 32 | - | 0.2 | 1,024 | 300 |"
    assert lines[2:] == [told]


# -- what is published ---------------------------------------------------------------------------


def test_report_is_that_of_the_committed_results(script):
    """REPORT.md is what report.py makes of the committed JSON."""
    report = script("report")
    assert report.PLACE.read_text(encoding="utf-8") == report.report()


def test_plots_show_the_committed_results(script):
    """Every result that has a plot has it drawn from the figures as they are now."""
    pytest.importorskip("matplotlib", reason="the plots need matplotlib")
    report, plots = script("report"), script("plots")
    for name, (result, _) in plots.PLOTS.items():
        if found := report.read(result):
            text = (report.PLOTS / f"{name}.svg").read_text(encoding="utf-8")
            assert re.search(r"figures (\w{64})", text)[1] == plots.hash_of(found), name


def test_programs_import_nothing_of_ours():
    """What runs in a peer's environment cannot import this project."""
    for path in sorted((PLACE / "programs").glob("*.py")):
        ours = re.search(r"^(from|import) mmsearch", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert (ours is None) == (path.name != "warm_mmsearch.py"), path.name


@pytest.mark.parametrize("path", sorted((PLACE / "results").glob("*.json")), ids=lambda p: p.stem)
def test_every_result_says_where_and_when(path):
    """Machine, date and commit stand beside the figures, or beside those of each part or row."""
    text = path.read_text(encoding="utf-8")
    found = json.loads(text)
    if isinstance(found, list):
        parts = found
    else:
        parts = [found] if "machine" in found or "date" in found else list(found.values())
    for part in parts:
        about = {**part, **part.get("origin", {}), **part.get("machine", {})}
        assert about.keys() >= {"processor", "date", "commit"}
        assert re.fullmatch(r"[0-9a-f]{40}", about["commit"])
    assert not re.search(r'"(/|~/|[A-Z]:)[^ ,"]*[/\\]', text)  # no folder of whoever measured it


@needs_data
def test_indexing_is_measured_in_pieces(script, tmp_path, capsys):
    """A part is written with its rows; another run adds what is missing, and one table has all."""
    out = tmp_path / "indexing.json"
    few = ["--limit", 9, "--repeat", 1, "--rounds", 1, "--scale", 2, "--out", out, "--part"]
    assert run(script("indexing"), *few, "cold") == 0
    first = json.loads(out.read_text())["cold"]
    assert (first["files"], first["indexed"]) == (9, 9)
    assert run(script("indexing"), *few, "cold", "scaled", "--resume") == 0
    found = json.loads(out.read_text())
    assert found["cold"] == first
    assert found["scaled"]["report"]["added"] == 18
    rows = first["table"] + found["scaled"]["table"]
    assert [line.split(" | ")[0].removeprefix("| ") for line in found["table"][4:]] == [
        row[0] for row in rows
    ]
    assert found["table"][4].startswith("| cold, 9 photos: CPU at most 10 ms a photo | ")
    assert capsys.readouterr().out.splitlines()[-len(rows) :] == found["table"][4:]
