"""How `query` shows what it found: in other orders, folded, explained, on a sheet, with notes."""

from __future__ import annotations

import json
import os
import shutil

import html5lib
import pytest
from conftest import colour_row, unit
from typer.testing import CliRunner

import mmsearch
from mmsearch.cli import app
from mmsearch.errors import UsageError
from mmsearch.hits import Hits


@pytest.fixture
def shown(library, photos):
    """Red twice (a copy), nearly red, orange, green; the copy is the newest file."""
    photos.paint("red.png", (255, 0, 0))
    photos.paint("nearly.png", (255, 40, 0))
    photos.paint("orange.png", (255, 128, 0))
    photos.paint("green.png", (40, 255, 0))
    shutil.copy(photos / "red.png", photos / "a copy.png")
    for age, name in enumerate(["a copy", "green", "orange", "nearly", "red"]):
        os.utime(photos / f"{name}.png", (10**9 - age, 10**9 - age))
    library.index(photos)
    return library


def names(hits):
    return [hit.path.stem for hit in hits]


def test_answers_are_hits(shown):
    """A list that shows itself; empty, too."""
    assert type(shown.query("red")) is Hits
    assert names(shown.query("red", 3)) == ["red", "a copy", "nearly"]
    assert shown.query("red", where="width > 9") == []


def test_sorted_are_the_k_best_alone(shown):
    """In another order, each with its rank; the two that are not among the best do not come in."""
    assert names(shown.query("red", 3, sort="date")) == ["a copy", "nearly", "red"]
    hits = shown.query("red", 3, sort="path")
    assert names(hits) == ["a copy", "nearly", "red"]
    assert [hit.rank for hit in hits] == [2, 3, 1]
    assert [hit.rank for hit in shown.query("red", 3, sort="score")] == [1, 2, 3]
    with pytest.raises(UsageError, match="sort is one of score, date, path"):
        shown.query("red", sort="size")


def test_copies_and_lookalikes_are_one_answer(shown, photos):
    """As many groups as were asked for, ranked anew; a cosine below 0.95 is another picture."""
    nearly, orange = unit(255, 40, 0) @ colour_row("red"), unit(255, 128, 0) @ colour_row("red")
    assert orange < 0.95 < nearly
    hits = shown.query("red", 2, group_duplicates=True)
    assert names(hits) == ["red", "orange"]
    assert [hit.rank for hit in hits] == [1, 2]
    assert hits[0].duplicates == (photos / "a copy.png", photos / "nearly.png")
    assert hits[1].duplicates == ()
    assert names(shown.query("red", 9, group_duplicates=True)) == ["red", "orange", "green"]


def test_why(shown, encoder):
    """Words and pieces as they come out of encoding by hand."""
    [hit] = shown.query("red green", 1, explain=True, where="name = 'orange.png'")
    row = unit(255, 128, 0)
    whole, red, green = unit(1, 1, 0) @ row, colour_row("red") @ row, colour_row("green") @ row
    told = {share.what: share.carried for share in hit.why.words}
    assert told == pytest.approx({"red": whole - green, "green": whole - red}, abs=1e-3)
    assert [share.carried for share in hit.why.pieces] == pytest.approx([0] * 9, abs=1e-6)
    assert shown.query("red", 1)[0].why is None


def test_pieces_are_those_of_what_is_wanted(library, tmp_path):
    """What was to be left out explains no piece, even of an answer that is nearer to it."""
    (tmp_path / "notes.txt").write_text("green green red . blue blue !")
    library.index(tmp_path / "notes.txt")
    query = mmsearch.text("red") - 0.3 * mmsearch.text("green")
    [hit] = library.query(query, 1, explain=True, hybrid="off")
    texts = ["green green red . blue blue !", "blue blue !", "green green red ."]
    whole, *rest = library.encoder.encode("text", texts) @ colour_row("red")
    assert [share.what for share in hit.why.pieces] == ["green green red .", "blue blue !"]
    carried = [share.carried for share in hit.why.pieces]
    assert carried == pytest.approx([whole - other for other in rest], abs=1e-6)


def test_the_command_line_shows_all_of_it(shown):
    """Options reach the library; notes go to stderr, answers to stdout."""

    def run(*options):
        asked = ["query", "red", "-k", "2", *options, "--index", str(shown.folder)]
        done = CliRunner().invoke(app, asked)
        assert done.exit_code == 0, done.output
        return done.stdout

    rows = json.loads(run("--group-duplicates", "--explain", "--json"))
    assert [len(row["duplicates"]) for row in rows] == [2, 0]
    assert rows[0]["why"]["words"] == [{"what": "red", "carried": 1.0}]
    lines = run("--group-duplicates", "--explain").splitlines()
    assert [line[:12] for line in lines] == [
        "  1   1.000 ", "     and 2 l", "     words: ", "     pieces:",
        "  2   0.894 ", "     words: ", "     pieces:",
    ]  # fmt: skip
    assert lines[1:3] == ["     and 2 like it: a copy.png, nearly.png", "     words: red +1.000"]
    dated = [json.loads(line) for line in run("--sort", "date", "--format", "ndjson").splitlines()]
    assert [row["rank"] for row in dated] == [2, 1]
    tree = html5lib.parse(run("--format", "html"), namespaceHTMLElements=False)
    assert next(tree.iter("h1")).text == "red"
    assert len(list(tree.iter("img"))) == 2
    plain = run("--format", "html", "--no-thumbnails")
    assert "<img" not in plain


def test_what_is_noticed_is_noted(shown):
    """A remark on the question is on stderr and with the answers, not among them."""
    asked = ["query", "red without green", "--json", "--index", str(shown.folder)]
    done = CliRunner().invoke(app, asked)
    assert len(json.loads(done.stdout)) == 5
    note, unrated = shown.query("red without green").notes
    assert note in done.stderr
    assert unrated == (
        "fake is not calibrated: its answers are ranked, not rated, and the list ends with -k alone"
    )
    assert done.stderr.count(unrated) == 1
    assert shown.query("red").notes == (unrated,)
    assert shown.query("red", hybrid="only").notes == ()
