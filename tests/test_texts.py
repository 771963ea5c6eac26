"""Texts are read as passages, streamed, in whatever encoding they announce, or refused."""

from __future__ import annotations

import codecs
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.errors import LoadError
from mmsearch.loaders.texts import LONGEST, passages
from mmsearch.records import Reason


def read(data: bytes | str, **options) -> list[str]:
    raw = data if isinstance(data, bytes) else data.encode()
    return list(passages(io.BytesIO(raw), **options))


def refusal(data: bytes, **options) -> LoadError:
    with pytest.raises(LoadError) as caught:
        read(data, **options)
    return caught.value


# -- passages ----------------------------------------------------------------------------


def test_short_paragraphs_share_a_passage():
    """What fits is one passage, white space made single."""
    assert read("A dog.\n\nA  cat,\tand\r\na bird.\n") == ["A dog. A cat, and a bird."]


def test_a_passage_ends_with_a_paragraph_in_its_second_half():
    """A paragraph that ends at 250 of 400 characters ends the passage."""
    first, second = "a " * 125, "b. " * 100
    assert read(f"{first}\n\n{second}") == [first.strip(), second.strip()]


def test_a_passage_ends_with_a_sentence_else_before_a_word():
    """An early paragraph is kept together with the sentences after it; long ones are cut."""
    heading, sentence = "A heading\n\n", "x" * 99 + ". "
    text = heading + sentence * 5
    assert read(text) == [f"A heading {(sentence * 3).strip()}", (sentence * 2).strip()]
    words = "word " * 200  # not one sentence ends
    assert read(words) == [("word " * 80).strip()] * 2 + [("word " * 40).strip()]
    assert read("y" * 1000) == ["y" * 400, "y" * 400, "y" * 200]


def test_chinese_sentences_end_without_spaces():
    """An ideographic full stop ends a sentence by itself."""
    sentence = "这只狗在草地上奔跑。"
    assert read(sentence * 50) == [sentence * 40, sentence * 10]


@settings(deadline=None)
@given(st.text(st.sampled_from("ab .!\n\t。é\u2028"), max_size=3000))
def test_no_word_is_lost(text):
    """The passages hold every character that is no white space, in order, 400 at most each."""
    wanted = "".join(text.split())
    if not wanted:
        assert refusal(text.encode()).reason == Reason.EMPTY
        return
    found = read(text)
    assert "".join("".join(found).split()) == wanted
    assert all(0 < len(passage) <= LONGEST and passage == passage.strip() for passage in found)


def test_markdown_without_its_marks():
    """Headings, lists, emphasis, links, code: the words stay; plain text keeps its signs."""
    source = (
        "# A dog\n\n> *Very* **fast** and `brown`, see [the page](https://x.y/z).\n\n"
        "- one\n- two_three\n\n---\n\n```python\nrun(2 * 3 * 4)\n```\n![a cat](cat.jpg)\n"
    )
    assert read(source, markdown=True) == [
        "A dog Very fast and brown, see the page. one two_three run(2 * 3 * 4) a cat"
    ]
    assert read("# 2 *x* _y_") == ["# 2 *x* _y_"]


# -- row 53: encodings -------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        "Größe 狗 🐈".encode(), codecs.BOM_UTF8 + "Größe 狗 🐈".encode(),
        codecs.BOM_UTF16_LE + "Größe 狗 🐈".encode("utf-16-le"),
        codecs.BOM_UTF16_BE + "Größe 狗 🐈".encode("utf-16-be"),
    ],
)  # fmt: skip
def test_row_53_encodings(data):
    """Row 53: UTF-8 and UTF-16 say the same, the mark itself is no word."""
    assert read(data) == ["Größe 狗 🐈"]


def test_row_53_a_character_across_chunks():
    """Row 53: chunks end where they will, between the bytes of a character too."""
    for shift in range(4):
        text = "é" * shift + "a" * shift + "狗🐈é " * 20_000
        assert "".join("".join(read(text)).split()) == text.replace(" ", "")


def test_row_53_mixed_encodings_are_counted():
    """Row 53: a few characters of another encoding do no harm; many are no text."""
    latin = ("Die Größe der Vögel ist schön. " * 30).encode("latin-1")
    assert read(latin)[0].startswith("Die Gr\ufffd\ufffde der V\ufffdgel ist sch\ufffdn.")
    russian = ("Собака бежит по траве. " * 30).encode("cp1251")
    assert refusal(russian).reason == Reason.TYPE_MISMATCH
    assert refusal("words in utf-16".encode("utf-16-le")).reason == Reason.TYPE_MISMATCH


@pytest.mark.parametrize(
    "data",
    [bytes(1000), bytes(range(256)) * 40, b"\x7fELF" + bytes(90), b"\x89PNG\r\n\x1a\n\0\0\0"],
)
def test_row_53_binary_is_no_text(data):
    """Row 53: NULs and bytes that are no characters are counted, and too many refused."""
    error = refusal(data)
    assert error.reason == Reason.TYPE_MISMATCH
    assert "characters are none" in str(error)


def test_row_53_some_nuls_are_white_space():
    """Row 53: a NUL or another control character among words is white space."""

    assert read(b"a dog\0and\x1ba cat") == ["a dog and a cat"]


@pytest.mark.parametrize("data", [b"", b" \n\t \r\n", codecs.BOM_UTF8, b" \n" * 300_000])
def test_row_53_a_text_without_words_is_empty(data):
    """Row 53: white space alone says nothing."""
    assert refusal(data).reason == Reason.EMPTY


class Endless(io.RawIOBase):
    """Ten gigabytes of one line, made as they are read; knows how far it was read."""

    def __init__(self) -> None:
        self.given = 0

    def read(self, size: int = -1) -> bytes:
        assert 0 < size <= 1 << 20
        size = min(size, 10**10 - self.given)
        self.given += size
        return b"x" * size


def test_row_53_ten_gigabytes_of_one_line():
    """Row 53: passages come while it is read, in small pieces, and at the limit it ends."""
    file = Endless()
    found = passages(file, max_megabytes=1)
    assert next(found) == "x" * LONGEST
    assert file.given < 200_000
    with pytest.raises(LoadError, match="MMSEARCH_MAX_TEXT_MB") as caught:
        for _ in found:
            pass
    assert caught.value.reason == Reason.TOO_LARGE
    assert file.given < 1_200_000
