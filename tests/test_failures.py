"""tests/failures.toml: every fault has its tests, and every test that is named exists."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
from campaigns import promise

TESTS = Path(__file__).parent
ROWS = {int(row): told for row, told in tomllib.loads(
    (TESTS / "failures.toml").read_text(encoding="utf-8")
).items()}  # fmt: skip
NOT_BUILT = {*range(59, 65), *range(66, 69)}  # what there is no door for


def test_the_promise_has_the_figures_of_the_committed_runs():
    """The README's table is what campaigns/promise.py makes of the JSON in campaigns/results."""
    readme = (TESTS.parent / "README.md").read_text(encoding="utf-8")
    assert promise.spliced(readme) == readme


@cache
def functions(file: str) -> dict[str, ast.FunctionDef]:
    """The test functions of a file by name."""
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    found = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return {node.name: node for node in found if node.name.startswith("test_")}


def all_tests() -> set[str]:
    """Every test there is, as file::name."""
    files = sorted(str(path.relative_to(TESTS)) for path in TESTS.rglob("test_*.py"))
    return {f"{file}::{name}" for file in files for name in functions(file)}


def test_no_row_is_missing():
    """72 faults, no more and no fewer, each called by its name."""
    assert sorted(ROWS) == list(range(1, 73))
    assert all(told["fault"] for told in ROWS.values())


@pytest.mark.parametrize("row", range(1, 73))
def test_a_row_has_tests_that_exist(row):
    """Tests that are there and do something; a reason alone only for what is not built."""
    told = ROWS[row]
    if row in NOT_BUILT:
        assert set(told) == {"fault", "reason"} and told["reason"]
        return
    assert set(told) == {"fault", "tests"} and told["tests"]
    assert len(set(told["tests"])) == len(told["tests"])
    for test in told["tests"]:
        file, name = test.split("::")
        assert name in functions(file), f"there is no {test}"
        body = functions(file)[name].body[1:]  # a docstring says what it shows
        assert any(not isinstance(step, ast.Pass) for step in body), f"{test} does nothing"


def test_every_test_that_is_named_for_a_row_is_listed():
    """A test called test_row_16_... stands under 16."""
    for test in all_tests():
        name = test.split("::")[1]
        if named := re.match(r"test_row_(\d+)_", name):
            assert test in ROWS[int(named[1])]["tests"], f"{test} is not in failures.toml"
