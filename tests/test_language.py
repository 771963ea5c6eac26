"""What was asked: words, pictures and weights as one Query."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.errors import UsageError
from mmsearch.language import Query, Sum, Term, audio, combine, image, parse, text
from mmsearch.records import Modality


def terms(query: Query) -> list[tuple[str, object, float]]:
    return [(str(term.modality), term.value, term.weight) for term in query.terms]


def t(words: str, weight: float = 1.0) -> tuple[str, object, float]:
    return "text", words, weight


def f(path: str, weight: float = 1.0) -> tuple[str, object, float]:
    return "None", Path(path), weight  # the file itself says what it is


@pytest.mark.parametrize(
    "words, expected",
    [
        (["dog"], [t("dog")]),
        (["a", "dog", "on", "grass"], [t("a dog on grass")]),
        (["a dog", "on grass"], [t("a dog on grass")]),
        (["horse", "+", "stripes"], [t("horse"), t("stripes")]),
        (["horse", "-", "stripes"], [t("horse"), t("stripes", -1)]),
        (["-", "stripes"], [t("stripes", -1)]),
        (["horse", "+", "stripes", "-", "2:fruit"], [t("horse"), t("stripes"), t("fruit", -2)]),
        (["2:red", "fish"], [t("red fish", 2)]),
        (["0.5:fish", "-", "0.25:red"], [t("fish", 0.5), t("red", -0.25)]),
        (["2: dog"], [t("dog", 2)]),
        (["0:dog"], [t("dog", 0)]),
        (["./pool.jpg"], [f("./pool.jpg")]),
        (["../pool.jpg"], [f("../pool.jpg")]),
        (["/p/pool.jpg"], [f("/p/pool.jpg")]),
        (["2:./pool.jpg"], [f("./pool.jpg", 2)]),
        (["dog", "./pool.jpg", "cat"], [t("dog"), f("./pool.jpg"), t("cat")]),
        (["dog", "-", "./pool.jpg", "cat"], [t("dog"), f("./pool.jpg", -1), t("cat")]),
        (["dog", "+", "3:./a b.jpg"], [t("dog"), f("./a b.jpg", 3)]),
        (["16:9", "picture"], [t("9 picture", 16)]),
        (["at", "9:15"], [t("at 9:15")]),  # a weight stands before a whole phrase only
        (["pool.jpg"], [t("pool.jpg")]),  # a file as a term starts with ./
        (["c++"], [t("c++")]),
        (["-dog"], [t("-dog")]),
        (["a+b"], [t("a+b")]),
        ([":dog"], [t(":dog")]),
        (["x2:dog"], [t("x2:dog")]),
        (["2:"], [t("2:")]),
        (["狗", "在", "草地"], [t("狗 在 草地")]),
        (["dog", "-"], [t("dog")]),
    ],
)
def test_the_parser_table(words, expected):
    """+ adds, - takes away, 2: weighs, words beside each other are one phrase."""
    assert terms(parse(words)) == expected


def test_a_home_folder_is_expanded(monkeypatch):
    """~ stands for the home folder, as in a shell."""
    monkeypatch.setenv("HOME", "/home/ann")
    assert terms(parse(["~/pool.jpg"])) == [f("/home/ann/pool.jpg")]


@pytest.mark.parametrize("words", [[], ["+"], ["-", "+"], [""], ["  "], ["2: "]])
def test_nothing_to_look_for_is_wrong_usage(words):
    """A query that names nothing says what to write instead."""
    with pytest.raises(UsageError, match="nothing to look for: give some words"):
        parse(words)


@pytest.mark.parametrize("words", ["", " ", "\n\t"])
def test_text_needs_words(words):
    """Blank text is no query."""
    with pytest.raises(UsageError, match="nothing to look for"):
        text(words)


def test_combine_adds_everything_up():
    """The terms of all parts, in order; no parts at all are wrong usage."""
    both = combine([text("dog"), image("pool.jpg")])
    assert terms(both) == [t("dog"), ("image", "pool.jpg", 1.0)]
    with pytest.raises(UsageError, match="nothing to look for"):
        combine([])


def test_the_algebra_of_queries():
    """text + 0.5 * image - text is three terms with weights 1, 0.5 and -1."""
    query = text("dog") + 0.5 * image("pool.jpg") - text("toy")
    assert terms(query) == [t("dog"), ("image", "pool.jpg", 0.5), t("toy", -1)]
    assert terms(text("dog") * 3) == terms(3 * text("dog")) == [t("dog", 3)]
    assert terms(-(text("a") - 2 * text("b"))) == [t("a", -1), t("b", 2)]
    assert terms(audio("bark.ogg")) == [("audio", "bark.ogg", 1.0)]
    assert terms(text(Path("notes.txt"))) == [("text", Path("notes.txt"), 1.0)]


def test_terms_and_queries_are_values():
    """Two that say the same are equal, and neither can be changed."""
    assert text(" dog ") == Sum((Term(Modality.TEXT, "dog"),))
    with pytest.raises(AttributeError):
        text("dog").terms[0].weight = 2


PLAIN = st.text(st.characters(categories=["L"]), min_size=1, max_size=8)


@given(st.lists(st.tuples(st.sampled_from("+-"), st.integers(1, 9), PLAIN), min_size=1))
def test_what_is_written_out_is_read_back(parts):
    """Signs, weights and words in any number come back as they were written."""
    words = [word for sign, weight, name in parts for word in (sign, f"{weight}:{name}")]
    expected = [t(name, weight if sign == "+" else -weight) for sign, weight, name in parts]
    assert terms(parse(words)) == expected
