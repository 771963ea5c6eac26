"""The campaign of mutants: what is changed, how it is put in place, what is said of survivors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from campaigns import attempts, mutants, trace
from campaigns.attempts import Fate
from campaigns.branches import subjects
from campaigns.mutation import (
    ROOT,
    Mutant,
    Substitute,
    changed_function,
    functions_of,
    in_children,
    put_into,
)
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
    lower = functions_of([FILE])[before]
    assert put_into(lower, after) == 1
    try:
        assert functions.lower("Ä") is None
        assert functions.like(b"*.png", b"a.png") is True
    finally:
        assert put_into(functions_of([FILE])[after], before) == 1
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


def test_another_process_imports_the_change(tmp_path):
    """What a decoder or a command runs is changed there as well."""
    one = mutant("6371.0088 → 6372.0088", "_EARTH = 6371.0088  # km, its mean radius (IUGG, "
                 "Geodetic Reference System 1980)")  # fmt: skip
    paths = os.pathsep.join([in_children(one, tmp_path), str(ROOT)])
    program = "from mmsearch.catalog import functions; print(functions._EARTH)"
    told = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": paths},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert told == "6372.0088\n"


def test_the_sample_is_the_same_each_time():
    """Of all mutants of all files, each once; a smaller one is where it begins."""
    one, total = mutants.sample(300, 1)
    assert one[:7] == mutants.sample(7, 1)[0]
    assert one == mutants.sample(300, 1)[0] != mutants.sample(300, 2)[0]
    assert len({mutants.key(m) for m in one}) == 300 < total
    assert {m.file for m in one} <= {str(path.relative_to(ROOT)) for path in subjects()}


@pytest.mark.parametrize(
    "code, seen, fate",
    [
        (0, Fate("began", "b"), Fate("survived")),
        (1, Fate("killed", "b", "1 == 2"), Fate("killed", "b", "1 == 2")),
        (1, Fate("began", "b"), Fate("untried", "b", "exit code 1")),  # not by a test
        (90, Fate("began", "b"), Fate("untried", "b", "exit code 90")),
        (-27, Fate("began", "b"), Fate("endless", "b")),
        (-9, Fate("began", "b"), Fate("hangs", "b")),
        (-11, Fate("began", "b"), Fate("killed", "b", "signal 11")),
    ],
)
def test_the_fate_of_a_mutant(code, seen, fate):
    """By how its tests ended; 27 is the signal of too much CPU. Only a test can notice one."""
    assert attempts.fate(code, [seen]) == fate


def test_what_a_process_saw_is_read_back(tmp_path):
    """Tests that failed, or else the last one that began."""
    began, failed = '["began", "a", ""]\n["began", "b", ""]\n', '["killed", "b", "1 == 2"]\n'
    assert attempts.seen_in(tmp_path) == []
    (tmp_path / "seen").write_text(began)
    assert attempts.seen_in(tmp_path) == [Fate("began", "b")]
    (tmp_path / "seen").write_text(began + failed + '["began", "c", ""]\n')
    assert attempts.seen_in(tmp_path) == [Fate("killed", "b", "1 == 2")]


def test_the_tests_of_a_line_are_the_shortest_first(tmp_path, monkeypatch):
    """As many as the budget allows; a test's second parameter waits, and a line that is not
    traced has the tests of the one before it.
    """
    told = {
        "lines": {FILE: {"10": ["t[1]", "t[2]", "u", "f::v"], "20": ["f::v"]}},
        "seconds": {"t[1]": 1.0, "t[2]": 1.1, "u": 2.0, "f::v": 15.0},
    }
    (tmp_path / "trace").write_text(json.dumps(told))
    monkeypatch.setattr(trace, "TRACE", tmp_path / "trace")
    one = Mutant(FILE, 0, 12, "", "", 0)
    assert trace.Trace(4).tests(one, 5) == ["t[1]", "u"]
    assert trace.Trace(100).tests(one, 5) == ["t[1]", "u", "t[2]", "f::v"]
    assert trace.Trace(100).tests(replace(one, line=22), 15) == ["f::v"]
    assert trace.Trace(0.5).tests(one, None) == ["t[1]"]
    learnt = trace.Trace(100)
    learnt.noticed(FILE, "import")
    learnt.noticed(FILE, "f::v")
    assert learnt.tests(one, 5) == ["t[1]", "f::v", "u", "t[2]"]
    assert [learnt.reaches(one, first) for first in (9, 10, 13)] == [True, False, False]


def test_a_survivor_without_a_reason_is_a_finding(monkeypatch):
    """And of the others the reason stands in the report."""
    chosen, _ = mutants.sample(5, 1)
    a, b, c, d, _ = chosen
    fates = {mutants.key(one): Fate("survived") for one in (b, c)}
    fates |= {mutants.key(a): Fate("killed", "t"), mutants.key(d): Fate("untried", "", "code 90")}
    monkeypatch.setattr(mutants, "reasons", lambda: {(b.file, b.text, b.what): "because"})
    report = Report("mutants", 1)
    mutants.summed(report, chosen, fates)
    told = report.as_dict()
    assert (told["size"], told["percent"]) == (4, 25.0)
    assert [one["reason"] for one in told["survivors"]] == ["because", ""]
    assert [one["case"] for one in told["findings"]] == [str(c), str(d)]


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
    counts = told["counts"]
    assert len(without) + counts.get("untried", 0) == counts.get("findings", 0)
    assert {one["reason"] for one in told["survivors"]} - {""} <= set(mutants.reasons().values())
