"""Hostile queries and filters: a sample of the campaign, and what is in the table of failures."""

from __future__ import annotations

import math
import socket
from contextlib import suppress

import pytest
from campaigns.strings import Strings, campaign
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import mmsearch
from mmsearch import cli
from mmsearch.errors import LoadError, UsageError
from mmsearch.filters import parse_filter
from mmsearch.language import checked, parse, said, terms_of


@pytest.fixture
def colours(library, photos):
    """Three pictures and a text."""
    for name in ("red", "green", "blue"):
        photos.paint(f"{name}.png", name)
    (photos / "words.txt").write_text("a red dog")
    library.index(photos)
    return library


def test_a_sample_of_the_campaign_finds_nothing(colours):
    """Rows 69 and 70: every string is answered or refused in our words; SQLite only reads."""
    report = campaign(colours, 2000, seed=7)
    assert report["findings"] == []
    assert sum(report["outcomes"].values()) == 2000
    kinds = {name.partition(":")[0] for name in report["outcomes"]}
    assert kinds == {"arguments", "question", "tree", "filter"}
    for kind in kinds:  # the generator is neither harmless nor hopeless
        for outcome in ("answered", "refused"):
            counts = [
                n for name, n in report["outcomes"].items() if kind in name and outcome in name
            ]
            assert sum(counts) > 20, (kind, outcome)


def test_the_same_seed_makes_the_same_strings():
    """So that a finding can be had again."""
    one, other = Strings(5), Strings(5)
    assert [one.filter() for _ in range(50)] == [other.filter() for _ in range(50)]
    assert [one.arguments() for _ in range(50)] == [other.arguments() for _ in range(50)]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(), max_size=8))
def test_any_command_line_is_parsed_or_refused(words):
    """Row 70: whatever characters there are."""
    with suppress(UsageError):
        checked(parse(words))


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_any_filter_is_parsed_or_refused_at_a_character(where):
    """Row 69: the error has a caret below the place."""
    try:
        parse_filter(where)
    except UsageError as error:
        assert str(error).rstrip("\n").endswith("^")


def test_row_71_huge_k(colours):
    """Any number of answers may be asked for; there are as many as there are items."""
    for k in (4, 10**6, 2**31, 2**63, 10**30):
        assert len(colours.query("red", k=k)) == 4


def test_row_71_ten_megabytes_of_query(colours):
    """Refused with the limit, as words and as a filter, before anything is encoded."""
    for long in ("a" * 10**7, "a " * (5 * 10**6), '"a" AND ' * 10**6 + '"b"', '"' * 10**7):
        with pytest.raises(UsageError, match="10,000 is the limit"):
            colours.query(long)
        with pytest.raises(UsageError, match="limit"):
            colours.query("red", where=long)


@pytest.mark.parametrize("weight", [math.nan, math.inf, -math.inf, 1e300, -1e300])
def test_row_71_weights_that_are_no_numbers(colours, weight):
    """NaN, infinity and what single precision cannot hold are refused; so are their terms."""
    with pytest.raises(UsageError, match="weight"):
        colours.query(mmsearch.text("red") + weight * mmsearch.text("blue"))


@pytest.mark.parametrize("path", ["./a\0b.png", "/\ud800.png", "~\0", "~nobody at all/x"])
def test_row_71_paths_that_no_file_can_have(colours, path):
    """NUL, half a surrogate pair, an unknown home: refused as a term and as a picture."""
    with pytest.raises(UsageError, match="is no path"):
        colours.query(parse([path]))
    for make in (mmsearch.image, mmsearch.audio):
        with pytest.raises((UsageError, LoadError), match=r"is no path|No such file"):
            colours.query(make(path))


def test_row_71_a_hundred_thousand_terms(colours):
    """In a filter and in a query: the limit is named."""
    with pytest.raises(UsageError, match=r"10,000 is the limit"):
        colours.query("red", where=" or ".join(["width = 1"] * 10**5))
    with pytest.raises(UsageError, match="200 comparisons are the limit"):
        colours.query("red", where=f"iso in ({','.join('1' * 4000)})")
    with pytest.raises(UsageError, match="characters to look for; 10,000 is the limit"):
        checked(parse(["red", "+"] * 10**5 + ["blue"]))
    with pytest.raises(UsageError, match="2,001 things to look for at once; 200 is the limit"):
        checked(parse(["red", "+"] * 2_000 + ["blue"]))
    with pytest.raises(UsageError, match="deep"):
        checked(parse(["NOT"] * 3_000 + ["blue"]))
    with pytest.raises(UsageError, match="deep"):
        checked(parse(["("] * 4_000 + ["blue"] + [")"] * 4_000))


@pytest.mark.parametrize(
    "pattern", ["*a" * 40 + "b", "*" * 9000, "?" * 4000 + "*", "*" + "a" * 4000 + "*b"]
)
def test_row_71_a_pattern_that_would_take_for_ever(colours, photos, pattern):
    """No pattern goes back and forth: it is matched in time or refused, and finds what fits."""
    photos.paint("a" * 200 + ".png", "red")
    colours.index(photos)
    fits = pattern.strip("*") == ""
    hits = colours.query("red", where=f"name like '{pattern}'")
    assert len(hits) == (5 if fits else 0)


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://example.com/a.jpg",
        "ftp://example.com/a.jpg",
        "file:///etc/hostname",
        "//example.com/a.jpg",
    ],
)
def test_row_72_a_url_is_never_fetched(colours, url, monkeypatch):
    """As a picture, a sound, a text or a term: an error that names it, and no connection."""

    def refuse(*_, **__):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for make in (mmsearch.image, mmsearch.audio):
        with pytest.raises(LoadError, match=url[-8:]):
            colours.query(make(url))
    for option in ("--image", "--audio", "--text-file"):
        done = CliRunner().invoke(cli.app, ["query", option, url, "--index", str(colours.folder)])
        assert isinstance(done.exception, LoadError | UsageError), (option, done.exception)
    with pytest.raises(LoadError):
        mmsearch.embed([url], modality="image")
    if not url.startswith("/"):  # a word like any other
        assert [term.value for term in terms_of(said(url))] == [url]
