"""Row 1, of a model that is added to a library: killed at any moment, nothing is lost or mixed."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import mmsearch
from mmsearch.encoders.builtin import Builtin

from .campaign import BATCH, Campaign
from .harness import for_each, sample

_ACKNOWLEDGED = re.compile(r"^encoded with second (\d+) of (\d+)", re.MULTILINE)
Vectors = dict[tuple[str, bytes], bytes]  # by model and digest of the content


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model's files under another card: to a library, another model."""
    own = Builtin("builtin-2").folder
    assert own is not None
    folder = tmp_path_factory.mktemp("models") / "second"
    folder.mkdir()
    for file in own.iterdir():
        (folder / file.name).symlink_to(file)
    card = json.loads((own / "model.json").read_text())
    card["name"] = "second"
    card["text"]["max_tokens"] -= 1
    (folder / "model.json").unlink()
    (folder / "model.json").write_text(json.dumps(card))
    return folder


@pytest.fixture(scope="module")
def indexed(campaign: Campaign) -> Iterator[Path]:
    """A library of the pictures, by the built-in model alone."""
    index = campaign.fresh("to-fill")
    assert campaign.index(index).code == 3
    yield index
    shutil.rmtree(index)


def stored(index: Path) -> Vectors:
    """What SQLite itself finds, each vector once."""
    with closing(sqlite3.connect(index / "library.db")) as database:
        assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
        rows = database.execute(
            "select spaces.name, contents.digest, vectors.data from vectors"
            " join spaces on spaces.id = vectors.space_id"
            " join contents on contents.id = vectors.content_id"
        ).fetchall()
    found = {(name, digest): data for name, digest, data in rows}
    assert len(found) == len(rows)
    return found


def test_row_1_killed_while_a_model_is_added(campaign: Campaign, indexed: Path, second: Path):
    """row 1: the first model's vectors stay, the second's come in whole batches, none that was
    reported is lost, the library answers in between, and the next run completes it.
    """

    def adding(index: Path) -> list[str]:
        return ["index", "--index", str(index), "--model", str(second), "--json"]

    def fresh(name: str) -> Path:
        index = campaign.fresh(name)
        shutil.copytree(indexed, index)
        return index

    before = stored(indexed)
    whole = fresh("filled")
    outcome = campaign.run(adding(whole), whole, "count", 0)
    assert outcome.code == 0, outcome
    clean = stored(whole)
    added = {key for key in clean if key[0] == "second"}
    assert {key: clean[key] for key in before} == before
    assert {digest for _, digest in added} == {digest for _, digest in before}
    assert [int(n) for n, _ in _ACKNOWLEDGED.findall(outcome.err)] == [2, 4]

    def trial(n: int) -> None:
        index = fresh(f"fill-{n}")
        struck = campaign.run(adding(index), index, "kill", n)
        assert struck.code == -9
        have = stored(index)
        assert have.items() <= clean.items()
        assert before.items() <= have.items()
        promised = max((int(n) for n, _ in _ACKNOWLEDGED.findall(struck.err)), default=0)
        there = len(have) - len(before)
        assert there in ({promised, promised + BATCH} if not struck.slow else range(5))
        with mmsearch.open_library(index) as library:
            assert library.check() == []
            assert len(library.query("red", k=50, all=True)) == 5
        again = campaign.run(adding(index), index, "count", 0)
        assert again.code == 0, again
        assert stored(index) == clean
        shutil.rmtree(index)

    for_each(sample([change.n for change in outcome.changes], 6, 3), trial)
    shutil.rmtree(whole)
