"""Small changes to the catalog, the ingest and the cache code: does a test notice each?

    PYTHONPATH=tests python -m campaigns.branches     # which test goes through which line
    PYTHONPATH=tests python -m campaigns.mutants --size 500 --resume

A seeded sample of all mutants, as many of a file as it has a share of them. A mutant is one
node of the syntax tree that is other: a comparison, an operator, a number, a truth value, a
condition the other way round, a call or an assignment that does not happen, a result that is
None. Texts, and so SQL that is written as text, are left as they are. Each is tried by the
tests that go through its line, the shortest first, in a process of its own that is forked from
one which has paid for the imports. A finding is one that no test notices.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import random
import resource
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest
from campaigns.branches import ROOT, TRACE, InPlacePools, subjects
from campaigns.report import RESULTS, Report

_CPU = 20.0  # seconds that the tests of a mutant may take in all: the shortest come first
_ENDLESS = 60  # seconds of CPU after which a mutant hangs, and is noticed
_STUCK = 900  # seconds after which one that waits for something is ended

_SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE,
    ast.GtE: ast.Gt, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.And: ast.Or, ast.Or: ast.And, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult, ast.Div: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift, ast.Mod: ast.Mult,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mutant:
    """The `number`-th change that a file allows."""

    file: str  # below the root
    number: int
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.what} (#{self.number})"


def mutants(path: Path) -> list[Mutant]:
    """All of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    file = str(path.relative_to(ROOT))
    return [Mutant(file, n, line, what) for n, (line, what, _) in enumerate(_changes(tree))]


def mutated(mutant: Mutant) -> CodeType:
    """The file with the change."""
    path = ROOT / mutant.file
    tree = ast.parse(path.read_text(encoding="utf-8"))
    change = next(c for n, (_, _, c) in enumerate(_changes(tree)) if n == mutant.number)
    change()
    return compile(ast.fix_missing_locations(tree), str(path), "exec")


def _changes(tree: ast.Module) -> Iterator[tuple[int, str, Callable[[], None]]]:
    """(line, what, how to change the tree) of every mutant, in a fixed order."""
    for node in _code(tree):
        for field, value in ast.iter_fields(node):
            for at, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if isinstance(child, ast.AST):
                    for what, other in _others(child):
                        yield child_line(child, node), what, _put(node, field, at, other)


def child_line(child: ast.AST, parent: ast.AST) -> int:
    """Where a node stands; an operator stands where its expression does."""
    return int(getattr(child, "lineno", 0) or getattr(parent, "lineno", 1))


def _put(node: ast.AST, field: str, at: int | None, other: ast.AST) -> Callable[[], None]:
    def change() -> None:
        if at is None:
            setattr(node, field, other)
        else:
            getattr(node, field)[at] = other

    return change


def _code(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that does something: no annotations, nothing that only a type checker reads."""
    pending = [tree]
    while pending:
        node = pending.pop()
        yield node
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list", "type_params", "bases"):
                continue
            for child in value if isinstance(value, list) else [value]:
                typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
                if isinstance(child, ast.AST) and not typing and not _is_definition(child):
                    pending.append(child)


def _is_definition(node: ast.AST) -> bool:
    """An import or a type alias: without it nothing runs at all."""
    return isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr)


def _others(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What may stand in a node's place, and what that is called."""
    kind = type(node)
    if kind in _SWAPS:
        yield f"{kind.__name__} → {_SWAPS[kind].__name__}", _SWAPS[kind]()
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield f"{node.value} → {not node.value}", ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield f"{node.value} → {node.value + 1}", ast.Constant(node.value + 1)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert):
        yield f"{type(node.op).__name__} dropped", node.operand
    elif isinstance(node, ast.If | ast.While | ast.IfExp):
        other = copy.copy(node)
        other.test = ast.UnaryOp(ast.Not(), node.test)
        yield f"{kind.__name__} the other way", other
    elif isinstance(node, ast.Return) and not _is_none(node.value):
        yield "returns None", ast.Return(ast.Constant(None))
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "call dropped", ast.Pass()
    elif isinstance(node, ast.AugAssign | ast.Raise | ast.Delete):
        yield f"{kind.__name__} dropped", ast.Pass()
    elif isinstance(node, ast.Continue):
        yield "Continue → Break", ast.Break()
    elif isinstance(node, ast.Break):
        yield "Break → Continue", ast.Continue()


def _is_none(node: ast.AST | None) -> bool:
    return node is None or (isinstance(node, ast.Constant) and node.value is None)


# -- trying one --------------------------------------------------------------------------


class Substitute(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports a mutant in the place of its file."""

    def __init__(self, mutant: Mutant) -> None:
        self._name = mutant.file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        self._path = str(ROOT / mutant.file)
        self._code = mutated(mutant)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """See MetaPathFinder."""
        if name != self._name:
            return None
        package = [str(Path(self._path).parent)] if self._path.endswith("__init__.py") else None
        return importlib.util.spec_from_file_location(
            name, self._path, loader=self, submodule_search_locations=package
        )

    def exec_module(self, module: ModuleType) -> None:
        """See Loader."""
        exec(self._code, module.__dict__)


def attempt(mutant: Mutant | None, tests: list[str]) -> str:
    """killed, survived, endless (more CPU than is allowed), or stuck: nothing can be said."""
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            null = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
            resource.setrlimit(resource.RLIMIT_CPU, (_ENDLESS, _ENDLESS + 5))
            if mutant:
                sys.meta_path.insert(0, Substitute(mutant))
            options = ["-x", "-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}"]
            os._exit(int(pytest.main([*options, *tests], plugins=[InPlacePools()])))
        except BaseException:  # a mutant that cannot even be imported
            os._exit(1)
    watch = threading.Timer(_STUCK, lambda: os.killpg(child, signal.SIGKILL))
    watch.start()
    _, status = os.waitpid(child, 0)
    watch.cancel()
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return "endless" if code == -signal.SIGXCPU else "stuck"
    return "survived" if code == 0 else "killed"


class Trace:
    """Which tests go through which line, from campaigns/branches.py."""

    def __init__(self) -> None:
        told = json.loads(TRACE.read_text())
        self._lines: dict[str, dict[str, list[str]]] = told["lines"]
        self._seconds: dict[str, float] = told["seconds"]

    def tests(self, mutant: Mutant) -> list[str]:
        """The shortest of a line's tests, in that order; of what runs at import some of all."""
        found = set(self._lines[mutant.file].get(str(mutant.line), []))
        if not found:
            found = {test for tests in self._lines[mutant.file].values() for test in tests}
        chosen, spent = [], 0.0
        for test in sorted(found, key=lambda test: self._seconds.get(test, 0)):
            spent += self._seconds.get(test, 0)
            if chosen and spent > _CPU:
                break
            chosen.append(str(ROOT / test))
        return chosen


def warm() -> None:
    """Import what every test needs, and nothing of ours that a mutant may stand for."""
    import hypothesis
    import numpy
    import onnxruntime
    import PIL.Image
    import portalocker
    import soundfile
    import sqlalchemy.dialects.sqlite

    assert all((hypothesis, numpy, onnxruntime, PIL, portalocker, soundfile, sqlalchemy))
    ours = [name for name in sys.modules if name == "mmsearch" or name.startswith("mmsearch.")]
    for name in ours:  # campaigns.report has imported the package itself
        del sys.modules[name]
    for name in [name for name in sys.modules if name.startswith("campaigns.stand_ins")]:
        del sys.modules[name]


def sample(size: int, seed: int) -> tuple[list[Mutant], Counter[str]]:
    """A seeded sample, and how many there are of each file."""
    everything = [mutant for path in subjects() for mutant in mutants(path)]
    chosen = random.Random(seed).sample(everything, min(size, len(everything)))
    return chosen, Counter(mutant.file for mutant in everything)


def main() -> int:
    """Run it from a command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, default=RESULTS / "mutants.json")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--resume", action="store_true")
    given = parser.parse_args()
    report = Report("mutants", given.seed, given.report, resume=given.resume)
    chosen, all_of_them = sample(given.size, given.seed)
    report.fact(mutants=sum(all_of_them.values()), asked=len(chosen))
    trace = Trace()
    warm()
    left = chosen[report.done :]
    try:
        with ThreadPoolExecutor(given.processes) as pool:
            fates = pool.map(lambda mutant: attempt(mutant, trace.tests(mutant)), left)
            for mutant, fate in zip(left, fates, strict=True):
                report.count("tried", fate)
                if fate == "survived":
                    report.found(str(mutant), _line(mutant))
                report.step(report.done + 1)
    except KeyboardInterrupt:
        print("stopped; --resume goes on", file=sys.stderr)
    finally:
        noticed = report.counts["killed"] + report.counts["endless"]
        judged = max(report.counts["tried"] - report.counts["stuck"], 1)
        report.fact(percent=round(100 * noticed / judged, 2))
        report.write()
    return 1 if report.findings else 0


def _line(mutant: Mutant) -> str:
    return (ROOT / mutant.file).read_text(encoding="utf-8").splitlines()[mutant.line - 1]


if __name__ == "__main__":
    sys.exit(main())
