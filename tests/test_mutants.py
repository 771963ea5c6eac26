"""The campaign of mutants: what is changed, how it is put in place, what is said of survivors."""

from __future__ import annotations

import json

import pytest
from campaigns import mutants
from campaigns.branches import subjects
from campaigns.mutation import ROOT, Mutant, Substitute, changed_function, put_into
from campaigns.mutation import mutants as mutants_of
from campaigns.report import RESULTS, Report

from mmsearch.catalog import functions

FILE = "mmsearch/catalog/functions.py"


def mutant(what: str, text: str) -> Mutant:
    """The one of functions.py with this change to this line."""
    (found,) = [m for m in mutants_of(ROOT / FILE) if (m.what, m.text) == (what, text)]
    return found


def test_a_change_in_a_function_is_put_into_it():
    """And taken out again; nothing else of the file is other."""
    one = mutant("IfExp the other way", "return None if text is None else text.lower()")
    before, after = changed_function(one)
    assert put_into(before, after) == 1
    try:
        assert functions.lower("Ä") is None
        assert functions.like(b"*.png", b"a.png") is True
    finally:
        assert put_into(after, before) == 1
    assert functions.lower("Ä") == "ä"


def test_a_change_to_what_runs_at_import_is_imported():
    """There is no function that it could be put into."""
    one = mutant("6371.0088 → 6372.0088", "_EARTH = 6371.0088  # km, its mean radius (IUGG, "
                 "Geodetic Reference System 1980)")  # fmt: skip
    assert changed_function(one) is None
    finder = Substitute(one)
    assert finder.find_spec("mmsearch.catalog.files") is None
    module = type(functions)("mmsearch.catalog.functions")
    finder.exec_module(module)
    assert (module._EARTH, functions._EARTH) == (6372.0088, 6371.0088)


def test_the_sample_is_the_same_each_time():
    """Of all mutants of all files, each once."""
    one, total = mutants.sample(300, 1)
    assert one == mutants.sample(300, 1)[0] != mutants.sample(300, 2)[0]
    assert len({mutants.key(m) for m in one}) == 300 < total
    assert {m.file for m in one} <= {str(path.relative_to(ROOT)) for path in subjects()}


@pytest.mark.parametrize("code, fate", [(0, "survived"), (1, "killed"), (2, "killed"),
                                        (-9, "stuck"), (-24, "endless")])  # fmt: skip
def test_the_fate_of_a_mutant(code, fate):
    """By how its tests ended: 24 is the signal of too much CPU."""
    assert mutants._fate(code) == fate


def test_a_survivor_without_a_reason_is_a_finding(monkeypatch):
    """And of the others the reason stands in the report."""
    chosen, _ = mutants.sample(4, 1)
    a, b, c, _ = chosen
    fates = {mutants.key(a): "killed", mutants.key(b): "survived", mutants.key(c): "survived"}
    monkeypatch.setattr(mutants, "reasons", lambda: {(b.file, b.text, b.what): "because"})
    report = Report("mutants", 1)
    mutants.summed(report, chosen, fates)
    told = report.as_dict()
    assert (told["size"], told["percent"]) == (3, 33.33)
    assert [one["reason"] for one in told["survivors"]] == ["because", ""]
    assert [one["case"] for one in told["findings"]] == [str(c)]


def test_what_is_said_of_survivors_is_said_of_code_that_is_there():
    """A line that was changed is to be looked at again."""
    there = {(m.file, m.text, m.what) for path in subjects() for m in mutants_of(path)}
    assert set(mutants.reasons()) <= there
    assert all(len(reason) > 20 for reason in mutants.reasons().values())


def test_the_committed_run_has_a_reason_for_every_survivor_that_the_list_has():
    """The JSON and the list do not part."""
    path = RESULTS / "mutants.json"
    if not path.exists():
        pytest.skip("no run is committed")
    told = json.loads(path.read_text(encoding="utf-8"))
    without = [one for one in told["survivors"] if not one["reason"]]
    assert len(without) == told["counts"].get("findings", 0)
    assert {one["reason"] for one in told["survivors"]} - {""} <= set(mutants.reasons().values())
