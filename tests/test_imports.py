"""What starting costs: nothing is imported before it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import clean_environment, paint

import mmsearch

PUBLIC = {
    "Failure", "Hit", "Library", "MmsearchError", "Modality", "Query", "Report",
    "audio", "embed", "image", "open_library", "text",
}  # fmt: skip
HEAVY = {
    "numpy", "sqlalchemy", "onnxruntime", "tokenizers", "PIL", "rich", "faiss", "tqdm", "torch",
    "open_clip", "scipy", "skimage", "soundfile", "portalocker",
}  # fmt: skip

# Prints the top packages of sys.modules on stderr when the interpreter ends.
SPY = """
import atexit, sys
def tell():
    names = sorted({name.partition(".")[0] for name in sys.modules})
    sys.stderr.write("MODULES " + " ".join(names) + "\\n")
atexit.register(tell)
"""


@pytest.fixture(scope="module")
def modules_of(tmp_path_factory):
    """Run the interpreter; give back (exit code, stdout, packages imported by its end)."""
    spy = tmp_path_factory.mktemp("spy")
    (spy / "sitecustomize.py").write_text(SPY, encoding="utf-8")
    environment = clean_environment(spy)
    environment["PYTHONPATH"] = f"{spy}:{environment['PYTHONPATH']}"

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            env=environment, cwd=spy, capture_output=True, text=True, check=False,
        )  # fmt: skip
        told = [line for line in done.stderr.splitlines() if line.startswith("MODULES ")]
        assert told, done.stderr
        return done.returncode, done.stdout, set(told[-1].split()[1:])

    return run


def test_all_is_the_documented_list():
    """`mmsearch.__all__` is the public surface, no more and no less, in order."""
    assert set(mmsearch.__all__) == PUBLIC
    assert list(mmsearch.__all__) == sorted(mmsearch.__all__)
    assert len(mmsearch.__all__) == len(PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_resolves(name):
    """Each name of __all__ is there, and is what its home module calls so."""
    found = getattr(mmsearch, name)
    assert getattr(sys.modules[found.__module__], name) is found
    assert found.__doc__


def test_an_unknown_name_is_an_attribute_error():
    """A misspelt name is told as Python tells it."""
    with pytest.raises(AttributeError, match="has no attribute 'serach'"):
        _ = mmsearch.serach


def test_importing_mmsearch_pulls_in_nothing_heavy(modules_of):
    """`import mmsearch` is free: its names load when they are asked for."""
    code, _, modules = modules_of("-c", "import mmsearch; mmsearch.__version__")
    assert code == 0
    assert "mmsearch" in modules
    assert not modules & (HEAVY | {"typer", "click", "platformdirs"})


@pytest.mark.parametrize("arguments", [["--help"], ["index", "--help"], ["query", "-h"]])
def test_help_imports_no_heavy_package(modules_of, arguments):
    """`mmsearch --help` needs no numpy, no database, no model and no decoration."""
    code, out, modules = modules_of("-m", "mmsearch", *arguments)
    assert (code, out.startswith("Usage:")) == (0, True)
    assert not modules & HEAVY


def test_a_cold_query_imports_no_training_or_picture_package(modules_of, tmp_path):
    """A query of words never imports torch, scipy, Pillow and their like."""
    paint(tmp_path / "photos" / "red.png", "red")
    index = ["--index", tmp_path / "index"]
    assert modules_of("-m", "mmsearch", "index", tmp_path / "photos", *index)[0] == 0
    code, out, modules = modules_of("-m", "mmsearch", "query", "a", "dog", "--all", *index)
    assert code == 0
    assert "red.png" in out
    unwanted = {"torch", "open_clip", "transformers", "scipy", "skimage", "PIL", "tqdm", "rich",
                "soundfile", "faiss", "portalocker", "pandas", "matplotlib"}  # fmt: skip
    assert not modules & unwanted
