"""Row 13: one open Library answers while another process indexes, forgets and rebuilds.

The writer moves a window over a row of pictures, one file a transaction: state t of the
library holds pictures t to t + 2, so every state has a set of its own and an answer says
which state it was made from.
"""

from __future__ import annotations

import itertools
import os
import random
import select
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mmsearch

from .campaign import ROOT, SETTINGS
from .harness import ALL, SEED

WIDTH = 3
STEPS = 200 if ALL else 12

WRITER = """
import sys
import mmsearch
index, photos, steps, width = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
library = mmsearch.open_library(index, workers=1)
for line in sys.stdin:
    verb, name = line.split()
    path = f"{photos}/{name}"
    if verb == "index":
        assert library.index(path).added == 1
    else:
        assert library.forget(path) == 1
    print("done", flush=True)
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Pictures that no two scores are alike of."""
    folder = tmp_path / "photos"
    folder.mkdir()
    chance = np.random.default_rng(SEED)
    for number in range(STEPS + WIDTH):
        blocks = chance.integers(0, 255, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((64, 64)).save(folder / f"{number:03}.png")
    return folder


def scores(photos: Path) -> dict[str, float]:
    """What each picture must score, from its embedding alone."""
    names = sorted(os.listdir(photos))
    rows = mmsearch.embed([photos / name for name in names], modality="image")
    query = mmsearch.embed(["red"], modality="text")[0]
    return dict(zip(names, (rows @ query).tolist(), strict=True))


def test_row_13_a_reader_beside_a_writer(tmp_path: Path, photos: Path) -> None:
    """row 13: an answer is one state, never older than the last, nor than what was acknowledged.

    The reader asks before, after and without pause during every transaction of the writer;
    each score is that of the picture it stands beside.
    """
    expected = scores(photos)
    names = sorted(expected)
    index = tmp_path / "library"
    # state 2 t: the window begins at t; state 2 t + 1: the next picture is in, the first not out
    states = [frozenset(names[t : t + WIDTH]) for t in range(STEPS + 1)]
    between = [a | b for a, b in itertools.pairwise(states)]
    order = {state: 2 * t for t, state in enumerate(states)}
    order |= {state: 2 * t + 1 for t, state in enumerate(between)}

    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(index), str(photos), str(STEPS), str(WIDTH)],
        cwd=ROOT,
        env=os.environ | SETTINGS | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdin and writer.stdout

    def tell(verb: str, name: str) -> None:
        assert writer.stdin
        writer.stdin.write(f"{verb} {name}\n")
        writer.stdin.flush()

    def told(wait: float | None = 0) -> bool:
        assert writer.stdout
        if not select.select([writer.stdout], [], [], wait)[0]:
            return False
        assert writer.stdout.readline() == "done\n", "the writer ended"
        return True

    try:
        for name in names[:WIDTH]:
            tell("index", name)
            assert told(wait=60)
        chance = random.Random(SEED)
        asked = 0
        with mmsearch.open_library(index) as library:

            def ask(at_least: int) -> int:
                hits = library.query("red", k=chance.choice([50, 50, 2 * STEPS]), all=True)
                answer = {hit.path.name: hit.score for hit in hits}
                assert len(answer) == len(hits), "a picture twice in one answer"
                assert frozenset(answer) in order, f"no state of the library: {sorted(answer)}"
                for name, score in answer.items():
                    assert score == pytest.approx(expected[name], abs=2e-3)
                state = order[frozenset(answer)]
                assert state >= at_least, "older than what was already known"
                return state

            seen = 0
            for t in range(STEPS):
                for step, verb, name in (
                    (2 * t + 1, "index", names[t + WIDTH]),
                    (2 * t + 2, "forget", names[t]),
                ):
                    tell(verb, name)
                    while not told():
                        seen = ask(seen)
                        asked += 1
                    seen = ask(max(seen, step))  # acknowledged, so it must be seen
                    assert seen == step
            assert library.check() == []
    finally:
        writer.stdin.close()
        writer.wait(timeout=60)
    assert asked > 2 * STEPS, "the reader hardly met the writer at work"
