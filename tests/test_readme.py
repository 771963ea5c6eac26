"""What the README shows is run as it stands."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


COMMANDS = [
    line.partition("#")[0].strip()
    for block in blocks("sh")
    for line in block.splitlines()
    if line.startswith("mmsearch")
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A new user's folder: ./photos with pictures in it, `mmsearch` on the PATH, no library yet."""
    folder = tmp_path_factory.mktemp("user")
    photos = folder / "photos"
    photos.mkdir()
    for name, colour in {"pool": "blue", "dog": "brown", "grass": "green"}.items():
        Image.new("RGB", (64, 48), colour).save(photos / f"{name}.jpg")
    program = folder / "bin" / "mmsearch"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m mmsearch "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return folder


@pytest.fixture(scope="module")
def environment(place):
    """The environment of that user."""
    paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    return os.environ | {
        "PATH": f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(paths),
        "MMSEARCH_INDEX": str(place / "index"),
    }


def run(command: str, place: Path, environment: dict[str, str]) -> subprocess.CompletedProcess:
    """One line in a shell, as typed."""
    return subprocess.run(
        ["sh", "-c", command], cwd=place, env=environment, capture_output=True, text=True
    )


def test_commands_run_in_their_order(place, environment):
    """Every command of the README does what it says, typed as it stands, one after the other."""
    assert COMMANDS[0] == "mmsearch index ./photos"
    outputs = {}
    for command in COMMANDS:
        done = run(command, place, environment)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        outputs[command] = done.stdout
    assert "3 added" in outputs["mmsearch index ./photos"]
    # a picture finds itself first, and nothing was unreadable
    assert outputs["mmsearch query ./photos/pool.jpg"].splitlines()[0].endswith("pool.jpg")
    assert outputs["mmsearch errors"] == ""


def test_python_runs(place, environment):
    """The Python of the README runs as it stands and finds what was indexed."""
    (code,) = blocks("python")
    code = code.replace("k=5)", "k=5, all=True)")  # painted squares: nothing of what is asked for
    done = subprocess.run(
        [sys.executable, "-c", code + "\nprint(rows.shape, len(hits))"],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "3 added, 0 failed"
    assert lines[-1].startswith("(2, 256) ")
    assert [line.split()[0] for line in lines[1:-2]] == ["1", "2", "3"]


def test_make_targets_exist():
    """`make demo` and `make test` are what the README, the Makefile and CI all call."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for target in ("demo", "test"):
        assert f"make {target}" in README
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
        assert f"make {target}" in ci.splitlines()


def test_figures_are_those_of_the_committed_results(monkeypatch):
    """The README's figures are what benchmarks/readme.py makes of the committed JSON."""
    place = ROOT / "benchmarks" / "readme.py"
    monkeypatch.syspath_prepend(str(place.parent))  # as when it is run
    spec = importlib.util.spec_from_file_location("readme_figures", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.spliced(README) == README
