"""Rows 1, 2 and 8: a run that is killed, with or without half a write, loses nothing said.

Every change of a small indexing run is numbered by the preloaded library. The command line
is the real one; to run it some hundred times its imports are shared by fork (zygote.py), it
decodes in place, and each picture is encoded once (campaigns/stand_ins.py). Every twentieth
trial of row 1 goes through `python -m mmsearch` all the same.
"""

from __future__ import annotations

import random
from pathlib import Path

from .campaign import BATCH, SETTINGS, Campaign, acknowledged, stored
from .harness import ALL, SEED, WRITES, Outcome, for_each, sample


def test_row_1_killed_before_every_change(campaign: Campaign) -> None:
    """row 1, every n: acknowledged files stay, batches are whole, and a second run completes.

    Before the second run a reader opens every other library, so that recovery is seen both
    by a reader and by the writer. A program of its own makes the very same changes.
    """

    def program(index: Path, mode: str, n: int) -> Outcome:
        return campaign.preload.run(campaign.command(index), index, mode, n, **SETTINGS)

    own = program(campaign.fresh("own"), "count", 0)
    if not own.slow:
        assert [(c.call, c.path) for c in own.changes] == [
            (c.call, c.path) for c in campaign.changes
        ]

    def trial(n: int) -> None:
        index = campaign.fresh(f"kill-{n}")
        outcome = (program if n % 20 == 0 else campaign.index)(index, "kill", n)
        assert (outcome.code, len(outcome.changes)) == (-9, n)
        have = campaign.judge(index, outcome)
        if n % 2:
            campaign.judge_searchable(index, have)
        campaign.judge_resumed(index)

    for_each([change.n for change in campaign.changes], trial)


def test_row_2_torn_writes(campaign: Campaign) -> None:
    """row 2: as row 1 when half of a write arrives; every fourth write, seeded, or all."""

    def trial(n: int) -> None:
        index = campaign.fresh(f"torn-{n}")
        outcome = campaign.index(index, "torn", n)
        assert outcome.code == -9
        assert [(change.n, change.fault) for change in outcome.struck] == [(n, "torn")]
        have = campaign.judge(index, outcome)
        if n % 2:
            campaign.judge_searchable(index, have)
        campaign.judge_resumed(index)

    for_each(sample([c.n for c in campaign.changes if c.call in WRITES], 4, 2), trial)


def test_row_8_killed_while_recovering(campaign: Campaign) -> None:
    """row 8: killed, then killed early in the next run, and in the one after: it still recovers.

    24 seeded triples of moments by default, 400 with MMSEARCH_FAULTS=all. The second and
    third are among the first changes of a run, where recovery is.
    """
    chance = random.Random(SEED)
    last = campaign.changes[-1].n

    def trial(moments: tuple[int, int, int]) -> None:
        index = campaign.fresh("again-" + "-".join(map(str, moments)))
        there = 0
        for moment in moments:
            outcome = campaign.index(index, "kill", moment)
            assert outcome.code in {-9, 0, 3}, outcome
            promised = there + max(acknowledged(outcome), default=0)
            have = stored(index)
            assert promised <= len(have) <= promised + BATCH
            assert all(file.like(campaign.clean[name]) for name, file in have.items())
            there = len(have)
        campaign.judge_resumed(index)

    def moments() -> tuple[int, int, int]:
        return chance.randint(5, last), chance.randint(1, 40), chance.randint(1, 20)

    for_each([moments() for _ in range(400 if ALL else 24)], trial)
