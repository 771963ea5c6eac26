"""The model card: every figure in it is set from the results, none is typed."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from mmsearch.training import card

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "model.json"
MARK = re.compile(r"<!-- ([^>]+) -->([0-9.]+)")


def put(tree, path, value):
    *above, last = path.split("/")
    for key in above:
        tree = tree.setdefault(key, {})
    tree[last] = value


@pytest.fixture
def measured():
    """Results in which every figure of the card is another number, and a model.json to match."""
    facts = {"name": "builtin-9", "dim": 7, "files": {"image.onnx": "ab"}, "training": {}}
    results = {
        "sha256": {"image.onnx": "ab"},
        "machine": {"processor": "a slide rule", "cores": 1},
        "date": "2026-11-22T10:00:00",
        "table": ["| measure | bar |", "| --- | --- |", "| how far | 3 |"],
        "bars": [{"measure": "how far", "measured": 4.5}],
    }
    for number, key in enumerate(re.findall(r"\{([^{}]+)\}", card.CARD)):
        if key.startswith("facts/"):
            if key not in ("facts/name", "facts/dim"):
                put(facts, key.removeprefix("facts/"), number)
        elif key.startswith("config/"):
            put(facts["training"], key, 1000 + number)
        elif "/" in key:
            put(results, key, number)
    results["sound_to_picture"]["held_out_fold"]["classes"] = {"sea_waves": 12.5, "dog": 50.0}
    return results, facts


def test_every_figure_is_set_from_its_place(measured):
    """Each mark is followed by the figure of that place; what is not a figure is set as well."""
    results, facts = measured
    text = card.card(results, facts)
    quoted = MARK.findall(text)
    assert len(quoted) > 40
    for key, figure in quoted:
        assert float(figure) == card.place(results, key), key
    assert "{" not in text
    assert text.startswith("# builtin-9\n")
    assert "one space of 7 dimensions" in text
    assert "\n| how far | 3 |\n" in text
    assert "sea waves 12.5, dog 50.0" in text
    assert "a slide rule (1 cores), 2026-11-22" in text


def test_no_figure_is_typed():
    """A digit between the bars of a table of figures comes from a placeholder."""
    tables = card.CARD[card.CARD.index("## Measured") : card.CARD.index("## What it cannot")]
    for line in tables.splitlines():
        if line.startswith("|"):
            cells = line.split("|")[2:-1]
            assert not re.search(r"\d", re.sub(r"\{[^}]*\}|R@\d+", "", "".join(cells))), line


def write(folder, measured):
    results, facts = measured
    (folder / "model.json").write_text(json.dumps(facts))
    (folder / "results.json").write_text(json.dumps(results))
    return ["card", "--model", str(folder), "--results", str(folder / "results.json")]


def test_the_card_and_the_measured_part_are_written(tmp_path, measured, monkeypatch):
    """CARD.md beside the model, and the bars' figures in model.json."""
    monkeypatch.setattr(sys, "argv", write(tmp_path, measured))
    card.main()
    facts = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    assert facts["training"]["measured"] == {"how far": 4.5}
    assert (tmp_path / "CARD.md").read_text(encoding="utf-8") == card.card(measured[0], facts)


def test_results_of_other_files_are_refused(tmp_path, measured, monkeypatch):
    """A card never quotes what was measured on other weights."""
    results, facts = measured
    monkeypatch.setattr(sys, "argv", write(tmp_path, (results, facts | {"files": {"x": "y"}})))
    with pytest.raises(SystemExit, match="results are of other files"):
        card.main()
    assert not (tmp_path / "CARD.md").exists()


def test_the_committed_card_is_that_of_the_committed_results():
    """What ships beside the model is what this makes of the committed figures."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    folder = ROOT / "mmsearch" / "models" / results["model"]
    if "table" not in results:
        pytest.skip(f"the figures of {results['model']} are older than this card")
    facts = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    assert (folder / "CARD.md").read_text(encoding="utf-8") == card.card(results, facts)
