"""Past queries: kept for who opted in alone, as vectors, and never in a search's way."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from conftest import COLOURS, colour_row
from test_candidates import unit_rows

import mmsearch
from mmsearch import engines
from mmsearch.errors import LibraryError, UsageError
from mmsearch.querylog import MOST, QueryLog
from mmsearch.records import Kind
from mmsearch.settings import load_settings
from mmsearch.vectors.matrix import open_matrix


def half(rows):
    return np.asarray(rows, np.float32).astype(np.float16).astype(np.float32)


def kept(library):
    """What lies in the library's cache of past queries."""
    return QueryLog(library.folder / "cache", "fa" * 32, 3).rows()


@pytest.fixture
def keeping(three):
    """The library of three pictures, opened by one who opted in."""
    with mmsearch.open_library(three.folder, keep_queries=True, workers=1) as library:
        yield library


def test_nothing_is_kept_of_one_who_did_not_opt_in(three):
    """By default: no file more, and the status says so."""
    before = sorted(os.listdir(three.folder / "cache"))
    three.query("red")
    three.query_many(["green", "blue"])
    assert sorted(os.listdir(three.folder / "cache")) == before
    assert three.status()["queries"] == {"kept": 0, "keep": False}


def test_what_is_asked_in_words_is_kept_as_vectors(keeping, photos):
    """What is looked for, oldest first; no unwanted term, no picture, and none of the words."""
    keeping.query("red")
    keeping.query_many(["green", '"blue" - "red"'])
    keeping.query(mmsearch.image(photos / "red.png"))
    keeping.query("yellow", hybrid="only")  # nothing was encoded
    np.testing.assert_array_equal(
        kept(keeping), half([colour_row(one) for one in ("red", "green", "blue")])
    )
    [path] = (keeping.folder / "cache").glob("queries-*")
    assert not any(colour.encode() in path.read_bytes() for colour in COLOURS)
    assert path.stat().st_mode & 0o777 == 0o600
    assert keeping.status()["queries"] == {"kept": 3, "keep": True}


def test_only_the_newest_are_kept(tmp_path):
    """Of many more than are read the newest come, in their order; two files hold them."""
    log = QueryLog(tmp_path, "ab", 4)
    rows = half(unit_rows(0, 5 * MOST, 4))
    for start in range(0, len(rows), MOST // 2):
        log.keep(list(rows[start : start + MOST // 2]))
    np.testing.assert_array_equal(log.rows(), rows[-MOST:])
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2 * MOST * (8 + 4 + 8)
    log.keep(list(rows))  # at once
    np.testing.assert_array_equal(log.rows(), rows[-MOST:])


@pytest.mark.parametrize("at", [0, 1, 9, 13, 19])
def test_what_is_no_whole_record_is_passed_over(tmp_path, at):
    """A half that a full disk left, with more behind it, or a flipped bit: the others are read."""
    log = QueryLog(tmp_path, "ab", 4)
    rows = half(unit_rows(1, 3, 4))
    log.keep(list(rows[:2]))
    path = tmp_path / "queries-ab"
    raw = bytearray(path.read_bytes())
    path.write_bytes(raw[: 20 + at])
    log.keep([rows[2]])
    np.testing.assert_array_equal(log.rows(), rows[[0, 2]])
    raw[20 + at] ^= 1
    path.write_bytes(raw)
    np.testing.assert_array_equal(log.rows(), rows[:1])


def test_a_query_never_fails_because_it_was_not_kept(keeping):
    """Where the file cannot be written, or the cache is gone, answers are as ever."""
    expected = [hit.id for hit in keeping.query("red")]
    (keeping.folder / "cache" / f"queries-{'fa' * 32}").unlink()
    (keeping.folder / "cache" / f"queries-{'fa' * 32}").mkdir()
    assert [hit.id for hit in keeping.query("red")] == expected
    assert len(kept(keeping)) == 0
    (keeping.folder / "cache" / f"queries-{'fa' * 32}").rmdir()
    os.rename(keeping.folder / "cache", keeping.folder / "elsewhere")
    assert [hit.id for hit in keeping.query("red")] == expected


def test_forgotten_by_a_command_and_when_it_is_switched_off(keeping, three, photos, run_cli):
    """`forget --queries` deletes them and nothing else; so does `index` without the setting."""
    keeping.query_many(["red", "green"])
    done = run_cli("forget", "--queries", "--json", "--index", three.folder)
    assert json.loads(done.stdout) == {"forgotten": 0, "queries": 2}
    assert not list((three.folder / "cache").glob("queries-*"))
    assert keeping.forget_queries() == 0
    keeping.query("red")
    keeping.index(photos)
    assert len(kept(keeping)) == 1
    three.index(photos)
    assert len(kept(keeping)) == 0
    assert len(keeping.query("red")) == 3
    (three.folder / "cache" / f"queries-{'fa' * 32}").unlink()
    (three.folder / "cache" / f"queries-{'fa' * 32}").mkdir()
    with pytest.raises(LibraryError, match="queries-"):
        three.forget_queries()


def test_an_index_is_measured_with_what_was_asked(keeping):
    """Half of the words are what was asked, in either half; without captions these alone, once
    they are enough.
    """
    matrix = open_matrix(str(next((keeping.folder / "cache").glob("*.matrix"))))
    asked, sentences = half(unit_rows(2, 1500, 3)), unit_rows(3, 3000, 3)
    nothing = asked[:0]
    few = engines.queries(matrix, Kind.IMAGE, None, asked[:199])
    assert list(few) == ["image"]
    alone = engines.queries(matrix, Kind.IMAGE, None, asked)["text"]
    assert sorted(map(tuple, alone)) == sorted(map(tuple, asked[-1000:]))
    bank = engines.queries(matrix, Kind.IMAGE, sentences, nothing)["text"]
    both = engines.queries(matrix, Kind.IMAGE, sentences, asked)["text"]
    assert sorted(map(tuple, both)) == sorted(map(tuple, [*bank[:1000], *asked[-1000:]]))
    mine = set(map(tuple, asked))
    shares = [sum(tuple(row) in mine for row in part) for part in (both[:1000], both[1000:])]
    assert all(400 < share < 600 for share in shares)


def test_the_setting_comes_as_the_others_do(tmp_path, monkeypatch):
    """Off; on by the environment; off again by an argument."""
    assert load_settings().keep_queries is False
    monkeypatch.setenv("MMSEARCH_KEEP_QUERIES", "1")
    assert load_settings().keep_queries is True
    assert load_settings(keep_queries=False).keep_queries is False
    monkeypatch.setenv("MMSEARCH_KEEP_QUERIES", "off")
    assert load_settings().keep_queries is False
    with pytest.raises(UsageError, match="no setting is called 'keep_query'"):
        load_settings(keep_query=True)
