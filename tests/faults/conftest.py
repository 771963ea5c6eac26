"""The preloaded library is compiled once a session; without a C compiler its tests skip."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from campaigns import stand_ins

from .campaign import Campaign, make_pictures
from .harness import Preload, build, compiler


@pytest.fixture(scope="session")
def preload(tmp_path_factory: pytest.TempPathFactory) -> Preload:
    """preload.c, compiled for this machine."""
    if not sys.platform.startswith("linux"):
        pytest.skip("preloading a library works this way on Linux alone")
    if compiler() is None:
        pytest.skip("no C compiler (cc) to build the preloaded library")
    return build(tmp_path_factory.mktemp("preload"))


@pytest.fixture(scope="package")
def campaign(preload: Preload, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    """The pictures, what an undisturbed run makes of them, and the means to disturb one."""
    folder = tmp_path_factory.mktemp("campaign")
    campaign = Campaign(preload, folder, make_pictures(folder / "pictures"))
    with pytest.MonkeyPatch.context() as patch:
        stand_ins.sparing(patch.setattr)
        try:
            campaign.measure()
            yield campaign
        finally:
            campaign.close()
