"""The list of answers: a list, a table of pandas, cards in a notebook, other orders."""

from __future__ import annotations

import builtins
import math
import random
from datetime import datetime
from pathlib import Path

import html5lib
import pytest
from conftest import paint

from mmsearch.errors import MissingExtra
from mmsearch.hits import Hits, arranged
from mmsearch.records import Hit, Modality, Share, Sort, Why

IMAGE, AUDIO, TEXT = Modality.IMAGE, Modality.AUDIO, Modality.TEXT
NOON = datetime(2024, 5, 1, 12)
PICTURE = Hit(1, 0.31, 0.9, Path("/p/b.png"), IMAGE, 7, taken=NOON, captions=("a dog",))
SOUND = Hit(2, 0.25, None, Path("/p/a.ogg"), AUDIO, 5, 5.0, 10.0)
PASSAGE = Hit(3, None, 0.5, Path("/p/c.txt"), TEXT, 9, text="so it says")
ALL = [PICTURE, SOUND, PASSAGE]


def test_hits_are_a_list():
    """Equal to the list of the same answers; a slice, and only a slice, is Hits again."""
    hits = Hits(ALL, ["nothing else matched"])
    assert hits == ALL
    assert isinstance(hits, list)
    assert hits[0] is PICTURE
    assert type(hits[1:]) is Hits
    assert (hits[1:], hits[1:].notes) == ([SOUND, PASSAGE], ("nothing else matched",))
    assert hits[::-1] == ALL[::-1]
    assert hits.paths == [Path("/p/b.png"), Path("/p/a.ogg"), Path("/p/c.txt")]
    assert (Hits(), Hits().notes, Hits().paths) == ([], (), [])


def test_a_table_of_pandas():
    """A row an answer; numbers are numbers and dates are dates, in an empty table as well."""
    pd = pytest.importorskip("pandas")
    frame = Hits(ALL).to_pandas()
    assert list(frame.columns) == list(Hit.__dataclass_fields__)
    assert frame["path"].tolist() == ["/p/b.png", "/p/a.ogg", "/p/c.txt"]
    assert frame["modality"].tolist() == ["image", "audio", "text"]
    assert frame["rank"].tolist() == [1, 2, 3]
    assert frame["score"].tolist()[:2] == [0.31, 0.25]
    assert math.isnan(frame["score"][2])
    assert frame["taken"][0] == pd.Timestamp(NOON)
    assert pd.isna(frame["taken"][1])
    assert frame["captions"][0] == ("a dog",)
    empty = Hits().to_pandas()
    assert (len(empty), empty.dtypes["score"]) == (0, frame.dtypes["score"])
    assert list(empty.columns) == list(frame.columns)


def test_without_pandas(monkeypatch):
    """The exact line that installs it."""
    plain = builtins.__import__

    def refuse(name, *arguments, **more):
        if name == "pandas":
            raise ImportError(name)
        return plain(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtra, match=r'needs an extra: pip install "mmsearch\[pandas\]"'):
        Hits(ALL).to_pandas()


def test_a_notebook_shows_cards(tmp_path):
    """A small picture as data, the words of a passage, the notes; at most 60 cards."""
    picture = Hit(1, 0.5, None, paint(tmp_path / "red.png", "red", (500, 250)), IMAGE, 1)
    shown = Hits([picture, SOUND, PASSAGE], ["<b>mind</b>"])._repr_html_()
    tree = html5lib.parse(shown, namespaceHTMLElements=False)
    (image,) = tree.iter("img")
    assert (image.get("width"), image.get("height")) == ("240", "120")
    assert image.get("src").startswith("data:image/jpeg;base64,")
    said = "".join(tree.itertext())
    assert "so it says" in said
    assert "<b>mind</b>" in said
    assert "5–10 s" in said
    many = Hits([PASSAGE] * 75)._repr_html_()
    assert many.count("<article>") == 60
    assert "and 15 more" in many
    assert "nothing found" in Hits()._repr_html_()


def test_other_orders():
    """By path as bytes, then by seconds; by date the newest first and the undated last."""
    late, early = datetime(2024, 1, 2), datetime(2023, 1, 2)
    hits = [
        Hit(1, 0.9, None, Path("/b"), IMAGE, 1, taken=early),
        Hit(2, 0.8, None, Path("/a"), AUDIO, 2, 5.0, 10.0),
        Hit(3, 0.7, None, Path("/a"), AUDIO, 3, 0.0, 5.0),
        Hit(4, 0.6, None, Path("/é"), IMAGE, 4, taken=late),
        Hit(5, 0.5, None, Path("/Z"), IMAGE, 5, taken=late),
    ]
    shuffled = random.Random(3).sample(hits, k=5)
    ranks = {sort: [hit.rank for hit in arranged(shuffled, sort)] for sort in Sort}
    assert ranks == {
        Sort.SCORE: [1, 2, 3, 4, 5],
        Sort.DATE: [4, 5, 1, 2, 3],
        Sort.PATH: [5, 3, 2, 1, 4],
    }


def test_a_hit_as_json():
    """The contract's keys first, in order; `why` only when it was asked; odd bytes as base64."""
    row = PICTURE.as_dict()
    assert list(row) == [
        "rank", "score", "relevance", "path", "modality", "id", "start", "end",
        "text", "captions", "taken", "duplicates",
    ]  # fmt: skip
    assert (row["taken"], row["captions"], row["relevance"]) == (
        "2024-05-01T12:00:00", ["a dog"], 0.9,
    )  # fmt: skip
    why = Why((Share("dog", 0.12),), (Share("5–6 s", -0.01, 5.0, 6.0),))
    odd = Path(b"/p/\xff.png".decode("utf-8", "surrogateescape"))
    row = Hit(1, 0.1, None, odd, IMAGE, 1, duplicates=(odd,), why=why).as_dict()
    assert row["why"] == {
        "words": [{"what": "dog", "carried": 0.12}],
        "pieces": [{"what": "5–6 s", "carried": -0.01, "start": 5.0, "end": 6.0}],
    }
    path = {"path": "/p/\N{REPLACEMENT CHARACTER}.png", "path_bytes": "L3Av/y5wbmc="}
    assert row["duplicates"] == [path]
    assert {key: row[key] for key in path} == path
