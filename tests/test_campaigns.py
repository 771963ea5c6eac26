"""A short sample of each campaign in tests/campaigns; each says there how to start the whole."""

from __future__ import annotations

import pytest
from campaigns import bugs, stand_ins
from campaigns.power_cuts import Campaign, cut
from campaigns.report import Report, in_memory
from campaigns.scenarios import SCENARIOS
from faults.harness import compiler


@pytest.fixture(scope="module")
def power():
    """Power cuts of traced runs."""
    if compiler() is None:
        pytest.skip("no C compiler (cc) to build the preloaded library")
    campaign = Campaign(Report("power cuts", 1), 1, in_memory())
    with pytest.MonkeyPatch.context() as patch:
        stand_ins.install(patch.setattr)
        yield campaign
    campaign.close()


@pytest.mark.parametrize("name", ["small", "cache"])
def test_row_7_power_cuts(power, name):
    """Row 7: un-synced writes lost, torn or reordered: what was acknowledged is there."""
    power.report = report = Report("power cuts", 1)
    recording, judge = power.prepared(SCENARIOS[name], ("count", 0))
    cut(recording, judge, report, 800, seed=1)
    assert report.findings == []
    assert report.counts["states"] > 500 and report.counts["distinct states"] > 50


@pytest.mark.parametrize("name", bugs.BUGS)
def test_row_7_the_campaign_catches_seeded_bugs(power, name):
    """Row 7: the same campaign finds each of eight durability bugs that are put in on purpose."""
    found = power.bug(name, 4000)
    assert found["caught"], found
