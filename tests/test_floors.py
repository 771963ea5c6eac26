"""A module imports only from floors below its own, or its own folder."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import clean_environment, paint

import mmsearch

PACKAGE = Path(mmsearch.__file__).parent

# From the ground up; a folder's modules share its floor. Within floors 0 and 1 there is an order.
FLOORS = [
    ["records"],
    ["errors"],
    ["settings", "durable", "places"],
    ["filters", "lists"],
    [
        "files",
        "locking",
        "loaders",
        "encoders",
        "vectors",
        "catalog",
        "language",
        "metrics",
        "ranking",
        "relevance",
        "hubness",
    ],
    ["sidecars"],
    ["datasets", "groups", "querylog"],
    ["engines"],
    [
        "scan",
        "decoding",
        "encoding",
        "space",
        "embedding",
        "fusion",
        "training",
        "thumbnails",
        "duplicates",
    ],
    ["backgrounds", "spaces", "bridging", "checking", "backup"],
    ["comparing", "rebuilding"],
    ["fates"],
    ["parcels"],
    ["ingest", "answers", "sheet", "explaining", "repairing"],
    ["hits", "filling", "labels"],
    ["search", "indexing"],
    ["joint"],
    ["access", "standing"],
    ["library"],
    ["evaluation", "doctor"],
    ["printing", "demo"],
    ["cli"],
    ["__main__", "__init__"],
]
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names}


def modules(package: Path = PACKAGE) -> Iterator[tuple[str, Path]]:
    """Every module as ("space" or "catalog/tables", its file)."""
    for path in sorted(package.rglob("*.py")):
        yield str(path.relative_to(package).with_suffix("")), path


def floor(module: str) -> str:
    """The name that stands in FLOORS: the folder of a module, or the module."""
    return module.split("/", maxsplit=1)[0]


def imported(source: str, module: str) -> Iterator[str]:
    """Dotted names of every import: late ones and those under TYPE_CHECKING too."""
    package = ["mmsearch", *module.split("/")[:-1]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            yield base
            if base == "mmsearch" or node.level:  # `from mmsearch import loaders`
                yield from (f"{base}.{name.name}" for name in node.names)


def ours(source: str, module: str) -> set[str]:
    """The floors' names that a module imports."""
    dotted = [name.split(".") for name in imported(source, module)]
    names = {parts[1] for parts in dotted if parts[0] == "mmsearch" and len(parts) > 1}
    # `from mmsearch import open_library` imports the library, by way of the front door
    return {mmsearch._HOMES.get(name, name) for name in names} & FLOOR_OF.keys()


@pytest.mark.parametrize("module, path", list(modules()), ids=[name for name, _ in modules()])
def test_a_module_imports_only_from_floors_below(module, path):
    """Every module has a floor, and imports from below it or from its own folder."""
    own = floor(module)
    assert own in FLOOR_OF, f"{module} has no floor yet: give it one here and in the design"
    source = path.read_text(encoding="utf-8")
    for other in ours(source, module) - {own}:
        assert FLOOR_OF[other] < FLOOR_OF[own], f"{module} imports {other}, which is not below it"


def test_the_parser_sees_every_kind_of_import():
    """Late, conditional and relative imports count; a wrong one would be found."""
    source = (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from mmsearch.library import Library\n"
        "def f():\n    import mmsearch.cli\n    from mmsearch import ingest\n"
        "    from . import space\n    from .catalog import Catalog\n"
        "    from mmsearch import embed\n"
    )
    assert ours(source, "loaders") == {
        "library", "cli", "ingest", "space", "catalog", "embedding"
    }  # fmt: skip
    assert ours("from . import tables\n", "catalog/migrations") == {"catalog"}
    assert ours("import numpy, mmsearch_other\n", "loaders") == set()


def test_records_import_nothing_of_ours():
    """The nouns stand alone."""
    source = (PACKAGE / "records.py").read_text(encoding="utf-8")
    assert not [name for name in imported(source, "records") if name.startswith("mmsearch")]


def test_the_front_door_only_re_exports():
    """__init__ holds names and where they live, no work of its own."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    functions = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    classes = [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    assert (functions, classes) == (["__getattr__"], [])


TORCH = {"torch", "open_clip", "transformers", "timm", "huggingface_hub"}


def reaches_torch(module: str) -> bool:
    """Whether a module is of those that may import torch: training, and encoders/foreign."""
    return floor(module) == "training" or module.startswith("encoders/foreign/")


def test_torch_is_for_training_and_for_what_exports_models():
    """No other module imports torch or what brings it, and only the command `train` reaches
    training.
    """
    for module, path in modules():
        if not reaches_torch(module):
            source = path.read_text(encoding="utf-8")
            names = {name.split(".")[0] for name in imported(source, module)}
            assert not names & TORCH, module
            allowed = floor(module) in ("cli", "printing")
            assert allowed or "training" not in ours(source, module), module


def test_training_can_be_removed(tmp_path):
    """`rm -r mmsearch/training` leaves index and query working."""
    leave_out = shutil.ignore_patterns("training", "web", "__pycache__")
    shutil.copytree(PACKAGE, tmp_path / "copy" / "mmsearch", ignore=leave_out)
    paint(tmp_path / "photos" / "red.png", "red")
    environment = clean_environment(tmp_path, PYTHONPATH=str(tmp_path / "copy"))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mmsearch", *arguments, "--index", str(tmp_path / "index")],
            env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip

    indexed = run("index", str(tmp_path / "photos"))
    assert indexed.returncode == 0, indexed.stderr
    found = run("query", "a", "red", "picture", "--format", "paths")
    assert found.returncode == 0, found.stderr
    assert found.stdout == f"{tmp_path / 'photos' / 'red.png'}\n"
