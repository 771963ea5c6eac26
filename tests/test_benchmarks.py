"""The benchmark scripts run: a tiny run of each, and their words held to arithmetic."""

from __future__ import annotations

import importlib
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


@pytest.fixture
def script(monkeypatch):
    """A script of benchmarks/ as a module, by its name."""
    monkeypatch.syspath_prepend(str(PLACE))
    return importlib.import_module


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
def test_scale_runs(script, tmp_path):
    """A tiny run finds all files unchanged, adds sixteen photos, and has a figure of everything."""
    out = tmp_path / "scale.json"
    few = ["--sizes", 40, "--repeat", 1, "--near", 8]
    assert run(script("scale"), *few, "--out", out) == 0
    [size] = json.loads(out.read_text())["sizes"]
    assert all(figure(size) > 0 for figure in script("tables").SCALE.values())


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


# -- peers ---------------------------------------------------------------------------------------


def test_a_program_is_killed_when_it_says_enough(script, tmp_path):
    """It is ended by SIGKILL with what it said so far; one that ends before is no kill."""
    peers, programs = script("peers"), script("peer_programs")
    said = "import signal; print('indexed 3 of 9\\nindexed 6 of 9', flush=True); signal.pause()"
    program = programs.Mmsearch(tmp_path, "builtin", "mmsearch", tmp_path)
    assert peers.stopped(programs.Command([sys.executable, "-c", said]), program, 5) == 6
    quick = programs.Command([sys.executable, "-c", "print('indexed 3 of 9')"])
    assert peers.stopped(quick, program, 5) is None


def test_peers_are_compared_by_medians(script):
    """Figures stand beside their ratio to this project with the same model, and what cannot be."""
    tables = script("tables")

    def one(cpu: float, again: float, cannot: str | None = None) -> dict:
        return {
            "cannot": cannot, "cpu_a_photo_ms": {"median": cpu}, "again_cpu_s": {"median": again},
        }  # fmt: skip

    found = {
        "few": 4, "many": 20,
        "programs": {tables.SAME: one(10, 0.5), "other": one(25, 2, "it knows no files")},
    }  # fmt: skip
    lines = tables.peers_speed(found)
    assert lines[0] == "|  | mmsearch, same model | other |"
    assert lines[2] == "| indexing a photo, CPU ms | 10.0 | 25.0 (2.50 ×) |"
    again = "2.00 (4.00 ×); cannot pass over: it knows no files"
    assert f"| 20 photos again, nothing changed, CPU s | 0.50 | {again} |" in lines


def test_what_a_fault_cost_is_said(script):
    """Photos that were said to be done and are not found are counted as lost."""
    tables = script("tables")
    killed = {"killed": True, "said": 200, "found": 0, "again_cpu_s": 3.14, "found_again": 400}
    away = {"found_again": False, "found_while_away": False, "again_cpu_s": 0.2}
    broken = {"ended": True, "others": 3, "of": 3, "named": False, "broken_is_found": True}
    one = {"killed": killed, "away": away, "broken": broken}
    lines = tables.peers_faults({"photos": 400, "programs": {"other": one}})
    assert [line.split(" | ")[1].removesuffix(" |") for line in lines[2:]] == [
        "200 said, 0 found: **200 lost**",
        "400 found, 3.1 s of CPU",
        "**never found again**, 0.20 s of CPU",
        "3 of 3 others found, **not named**, **indexed half grey**",
    ]


def test_recall_of_an_index(script):
    """Ten queries: seconds become milliseconds a query and queries a second."""
    one = {"recall@10": 0.95, "single_s": 0.1, "batch_s": 0.02, "build_s": 3.0}
    lines = script("tables").peers_recall({"queries": 10, "programs": {"mmsearch": one}})
    assert lines[2] == "| mmsearch | 0.9500 | 10.00 | 500 | 3.0 |"


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
