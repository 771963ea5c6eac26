"""Mutants: what may be other in a file, the code of the file with it, and how to have that run.

A mutant is one node of the syntax tree that is other: a comparison, an operator, a number, a
truth value, a condition the other way round, a call or an assignment that does not happen, a
result that is None and was not False, which no condition tells apart. Texts, and so SQL that is
written as text, are left as they are.
"""

from __future__ import annotations

import ast
import copy
import functools
import gc
import importlib
import importlib.abc
import importlib.util
import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

_SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE,
    ast.GtE: ast.Gt, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.And: ast.Or, ast.Or: ast.And, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult, ast.Div: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift, ast.Mod: ast.Mult,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mutant:
    """The `number`-th change that a file allows. `text` is its line as it is written, and it is
    the `nth` such change to such a line.
    """

    file: str  # below the root
    number: int
    line: int
    what: str
    text: str
    nth: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.what} (#{self.number})"


def mutants(path: Path) -> list[Mutant]:
    """All of a file."""
    source = path.read_text(encoding="utf-8")
    file, lines = str(path.relative_to(ROOT)), source.splitlines()
    found, met = [], Counter[tuple[str, str]]()
    for number, (line, what, _) in enumerate(_changes(ast.parse(source))):
        text = lines[line - 1].strip()
        found.append(Mutant(file, number, line, what, text, met[what, text]))
        met[what, text] += 1
    return found


def mutated(mutant: Mutant) -> CodeType:
    """The file's code with the change."""
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
                if isinstance(child, ast.AST) and not _is_left_alone(child):
                    for what, other in _others(child):
                        # an operator stands where its expression does
                        line = getattr(child, "lineno", 0) or getattr(node, "lineno", 1)
                        yield line, what, _put(node, field, at, other)


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
                if isinstance(child, ast.AST) and not _is_left_alone(child):
                    pending.append(child)


def _is_left_alone(node: ast.AST) -> bool:
    """Without an import nothing runs at all, a text is a text, and some only type checkers read."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        return True
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
    elif isinstance(node, ast.Return) and not _is_none_or_false(node.value):
        yield "returns None", ast.Return(ast.Constant(None))
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "call dropped", ast.Pass()
    elif isinstance(node, ast.AugAssign | ast.Raise | ast.Delete):
        yield f"{kind.__name__} dropped", ast.Pass()
    elif isinstance(node, ast.Continue):
        yield "Continue → Break", ast.Break()
    elif isinstance(node, ast.Break):
        yield "Break → Continue", ast.Continue()


def _is_none_or_false(node: ast.AST | None) -> bool:
    constant = node.value if isinstance(node, ast.Constant) else node
    return constant is None or constant is False


# -- having one run ----------------------------------------------------------------------


def changed_function(mutant: Mutant) -> tuple[CodeType, CodeType] | None:
    """The outermost function with the change, as it is and as it would be; None where it is
    code that runs when the file is imported.
    """
    return _changed(_compiled(ROOT / mutant.file), mutated(mutant))


@functools.cache
def _compiled(path: Path) -> CodeType:
    return compile(path.read_text(encoding="utf-8"), str(path), "exec")


def _changed(before: CodeType, after: CodeType) -> tuple[CodeType, CodeType] | None:
    if before.co_flags & inspect.CO_OPTIMIZED:  # a function: modules and classes have no locals
        return before, after
    ours, theirs = ([c for c in code.co_consts if isinstance(c, CodeType)]
                    for code in (before, after))  # fmt: skip
    own = [(code.co_code, code.co_names, [c for c in code.co_consts if type(c) is not CodeType])
           for code in (before, after)]  # fmt: skip
    others = [(a, b) for a, b in zip(ours, theirs, strict=False) if a != b]
    if own[0] != own[1] or len(ours) != len(theirs) or len(others) != 1:
        return None
    return _changed(*others[0])


def functions_of(files: Iterable[str]) -> dict[CodeType, list[FunctionType]]:
    """All functions there are of some files, which are imported, by their code: a decorated one
    has its own beside what stands for it.
    """
    paths = {str(ROOT / file) for file in files if importlib.import_module(module_name(file))}
    found: dict[CodeType, list[FunctionType]] = {}
    for one in gc.get_objects():
        if isinstance(one, FunctionType) and one.__code__.co_filename in paths:
            found.setdefault(one.__code__, []).append(one)
    return found


def put_into(functions: Sequence[FunctionType], after: CodeType) -> int:
    """Have functions run other code; how many have it now."""
    for one in functions:
        one.__code__ = after
    return len(functions)


def module_name(file: str) -> str:
    """What a file is imported as."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


class Substitute(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports a mutant in the place of its file."""

    def __init__(self, mutant: Mutant) -> None:
        self._name = module_name(mutant.file)
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


def in_children(mutant: Mutant, folder: Path) -> str:
    """Write a sitecustomize with which another Python imports the mutant; where, for PYTHONPATH."""
    tests = str(ROOT / "tests")
    lines = [
        "import sys",
        f"sys.path.insert(0, {tests!r})",
        "from campaigns.mutation import Mutant, Substitute",
        f"sys.path.remove({tests!r})",
        f"sys.meta_path.insert(0, Substitute({mutant!r}))",
    ]
    (folder / "sitecustomize.py").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(folder)
