"""The preloaded library is compiled once a session; without a C compiler its tests skip."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .campaign import Campaign, make_pictures
from .harness import Preload


@pytest.fixture(scope="session")
def preload(tmp_path_factory: pytest.TempPathFactory) -> Preload:
    """preload.c, compiled for this machine."""
    if not sys.platform.startswith("linux"):
        pytest.skip("preloading a library works this way on Linux alone")
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("no C compiler (cc) to build the preloaded library")
    library = tmp_path_factory.mktemp("preload") / "preload.so"
    source = Path(__file__).with_name("preload.c")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return Preload(library)


@pytest.fixture(scope="session")
def campaign(preload: Preload, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    """The pictures, what an undisturbed run makes of them, and the means to disturb one."""
    folder = tmp_path_factory.mktemp("campaign")
    campaign = Campaign(preload, folder, make_pictures(folder / "pictures"))
    try:
        campaign.measure()
        yield campaign
    finally:
        campaign.close()
