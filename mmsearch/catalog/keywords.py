"""Words of names, folders, passages, captions and labels, found by SQLite's full-text search.

A row of `keywords` has the id of an item. The first item of a file has its path in `names`,
and its captions and labels in `captions`; an item of a text has its passage in `text`. FTS5
splits them at whatever is neither a letter nor a digit. `substrings` has every three
characters in a row of names and captions, for parts of words. Another database would have a
full-text index of its own here.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import (
    Connection,
    Integer,
    Select,
    column,
    delete,
    func,
    insert,
    literal,
    select,
    table,
)
from sqlalchemy.exc import DatabaseError

from mmsearch.catalog import tables
from mmsearch.catalog.phrases import parts_of_words, phrases, separated
from mmsearch.catalog.tables import files, folders, items, labels, parts

if TYPE_CHECKING:
    from typing import Any

    from mmsearch.records import Ids, Scores

# Not in the metadata, which creates tables: these are virtual, and have tables of their own.
# Each has a column of its own name, for commands.
keywords, substrings = (
    table(name, column(name), column("rowid", Integer), *(column(one) for one in columns))
    for name, *columns in (
        ("keywords", "names", "text", "captions"),
        ("substrings", "names", "captions"),
    )
)

_TABLES = (
    "CREATE VIRTUAL TABLE {schema}.keywords "
    "USING fts5(names, text, captions, tokenize = 'unicode61 remove_diacritics 2')",
    "CREATE VIRTUAL TABLE {schema}.substrings "
    "USING fts5(names, captions, content = 'keywords', detail = 'none', tokenize = 'trigram')",
)

_OF_FILE = (
    select(func.group_concat(parts.c.text, "\n"))
    .join(tables.captions, tables.captions.c.content_id == parts.c.content_id)
    .where(tables.captions.c.file_id == files.c.id, items.c.part == 0)
)
_OF_CONTENT = select(func.group_concat(labels.c.label, "\n")).where(
    labels.c.content_id == files.c.content_id, items.c.part == 0
)
_WORDS = (
    select(
        items.c.id, items.c.part, folders.c.path, files.c.name, parts.c.text,
        *(said.correlate(files, items).scalar_subquery() for said in (_OF_FILE, _OF_CONTENT)),
    )
    .select_from(items)
    .join(files, files.c.id == items.c.file_id)
    .join(folders, folders.c.id == files.c.folder_id)
    .outerjoin(parts, (parts.c.content_id == files.c.content_id) & (parts.c.part == items.c.part))
)  # fmt: skip

# A phrase that so many items have is passed over: it tells little, and takes long to look up.
COMMON = 2000

_ENDLESS = 1 << 62
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR)  # FTS5 says the latter of lost tables
_AT_ONCE = 100  # phrases a statement: SQLite joins 500 at most
_KEPT = 1 << 22  # ids of phrases in memory: 32 MB
_LEAST = 1e-6  # nats of a phrase that half of the items have, or more
_LAST_ITEM = select(func.coalesce(func.max(items.c.id), 0))

# A library is taken for a thousand items at least: in one of ten, too, a rare word is rare.
_FEWEST = 1000


# -- kept in step ----------------------------------------------------------------------


def create(connection: Connection) -> None:
    """Make the tables, and fill them with the words of what is there."""
    for name in ("substrings", "keywords"):  # of an older schema, or damaged
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS main.{name}")
    for statement in _TABLES:
        connection.exec_driver_sql(statement.format(schema="main"))
    take_up(connection, 0)


def take_up(connection: Connection, after: int) -> None:
    """Add the words of all items whose id is above `after`."""
    _add(connection, _WORDS.where(items.c.id > after))


def drop(connection: Connection, file_ids: Sequence[int]) -> None:
    """Drop what these files' items say, before the items themselves go."""
    theirs = keywords.c.rowid.in_(select(items.c.id).where(items.c.file_id.in_(file_ids)))
    # substrings keeps no texts of its own, and has to be told what it was told
    told = ("rowid", "names", "captions")
    rows = select(literal("delete"), *(keywords.c[name] for name in told))
    rows = rows.where(theirs, keywords.c.names.is_not(None))
    connection.execute(insert(substrings).from_select(["substrings", *told], rows))
    connection.execute(delete(keywords).where(theirs))


def refresh(connection: Connection, file_ids: Sequence[int]) -> None:
    """Read again what these files' items say: a path, captions or labels are others now."""
    drop(connection, file_ids)
    _add(connection, _WORDS.where(items.c.file_id.in_(file_ids)))


def merge(connection: Connection) -> None:
    """Rewrite the indexes, in which dropped words stay for a while, without them."""
    for name in ("keywords", "substrings"):
        connection.exec_driver_sql(f"INSERT INTO {name} ({name}) VALUES ('optimize')")


def differences(connection: Connection) -> list[str]:
    """What of the keywords and their indexes is not as it would be were it made today.

    It is made once more, as temporary tables, and compared row by row and term by term: the
    file itself stays as it is.
    """
    run = connection.exec_driver_sql
    run("PRAGMA query_only = OFF")  # or there could be no temporary tables
    try:
        for statement in _TABLES:
            run(statement.format(schema="temp"))
        take_up(connection, 0)  # a name without a schema means a temporary table first
        found = []
        for table in (keywords, substrings):
            for schema in ("main", "temp"):
                run(
                    f"CREATE VIRTUAL TABLE temp.{schema}_{table.name} "
                    f"USING fts5vocab('{schema}', '{table.name}', 'instance')"
                )
            pairs = [
                [f"SELECT * FROM temp.{schema}_{table.name}" for schema in ("main", "temp")],
                [f"SELECT rowid, * FROM {schema}.{table.name} ORDER BY rowid"
                 for schema in ("main", "temp")],
            ]  # fmt: skip
            if not all(_alike(connection, *pair) for pair in pairs):
                found.append(table.name)
        return found
    finally:
        for name in ("main_keywords", "temp_keywords", "main_substrings", "temp_substrings"):
            run(f"DROP TABLE IF EXISTS temp.{name}")
        for name in ("substrings", "keywords"):
            run(f"DROP TABLE IF EXISTS temp.{name}")
        run("PRAGMA query_only = ON")


def _alike(connection: Connection, *queries: str) -> bool:
    """Whether two queries give the same rows; one that meets damage does not."""
    with ExitStack() as open_cursors:  # nothing is dropped while one is open
        try:
            one, other = (
                open_cursors.enter_context(closing(connection.exec_driver_sql(query)))
                for query in queries
            )
            return all(a == b for a, b in zip_longest(one, other))
        except DatabaseError as error:
            if getattr(error.orig, "sqlite_errorcode", 0) & 0xFF not in _DAMAGE:
                raise
            return False


def _add(connection: Connection, words: Select[Any]) -> None:
    for chunk in connection.execute(words.order_by(items.c.id)).partitions(1000):
        rows = [
            {
                "rowid": id,
                "names": separated(_path(folder, name)) if part == 0 else None,
                "text": text and separated(text),
                "captions": separated("\n".join(filter(None, said))) or None,
            }
            for id, part, folder, name, text, *said in chunk
            if part == 0 or text
        ]
        if rows:
            connection.execute(insert(keywords), rows)
        named = [
            {name: row[name] for name in ("rowid", "names", "captions")}
            for row in rows
            if row["names"] is not None
        ]
        if named:
            connection.execute(insert(substrings), named)


def _path(folder: bytes, name: bytes) -> str:
    return b"/".join((folder, name)).decode("utf-8", "replace")


# -- asked -----------------------------------------------------------------------------


class Phrases:
    """Which items have a phrase, kept for the questions to come: until the catalog changes."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], tuple[int, Ids]] = {}
        self._size = 0  # ids, of all

    def look_up(
        self, connection: Connection, name: str, asked: Iterable[str], most: int
    ) -> dict[str, tuple[int, Ids]]:
        """By phrase, how many items have it, counted up to `most`, and (n,) these where they are
        fewer, in no order.
        """
        wanted = list(dict.fromkeys(asked))
        if self._size > _KEPT:
            self._found, self._size = {}, 0
        known = {one: self._found[name, one] for one in wanted if (name, one) in self._found}
        new = [one for one in wanted if one not in known]
        for start in range(0, len(new), _AT_ONCE):
            found = _found(connection, name, new[start : start + _AT_ONCE], most)
            known |= found
            if most == COMMON:
                self._found |= {(name, one): there for one, there in found.items()}
                self._size += sum(len(ids) for _, ids in found.values())
        return known


def fits(
    connection: Connection,
    questions: Sequence[Sequence[str]],
    *,
    thorough: bool = False,
    known: Phrases | None = None,
) -> list[tuple[Ids, Scores]]:
    """How well items fit the words of each question, some texts: (n,) their ids, rising, and
    (n,) nats.

    A phrase that df of N items have tells w = log((N - df + 1/2) / (df + 1/2)) nats of one
    that has it: what it is worth where it stands in half of the items that are looked for
    (Robertson and Sparck Jones, Relevance weighting of search terms, 1976). An item with the
    sum s of what its phrases tell, of the sum t of all that are asked for, fits by s * s / t:
    what it says, times the share of the question that this is.

    Phrases that COMMON items have, or more, do not count at all, unless this is to be
    `thorough`. Where no item has any of the phrases, those fit that have all the words' parts,
    every three characters in a row of them. `known` is what was looked up before.
    """
    most = _ENDLESS if thorough else COMMON
    known = known or Phrases()
    asked = [phrases(texts) for texts in questions]
    found = known.look_up(connection, "keywords", (one for some in asked for one in some), most)
    count = max(connection.execute(_LAST_ITEM).scalar_one(), _FEWEST)  # ids only grow
    answers = []
    for texts, some in zip(questions, asked, strict=True):
        there = {one: found[one] for one in some}
        if not any(number for number, _ in there.values()):
            within = parts_of_words(texts)
            joined = [" AND ".join(within)] if within else []
            there = known.look_up(connection, "substrings", joined, most)
        answers.append(_summed(there, count, most))
    return answers


def _found(
    connection: Connection, name: str, asked: Sequence[str], most: int
) -> dict[str, tuple[int, Ids]]:
    rows = f"(SELECT count(*) FROM (SELECT 1 FROM {name} WHERE {name} MATCH ? LIMIT {most}))"
    statement = f"SELECT {', '.join([rows] * len(asked))}"
    counts = connection.exec_driver_sql(statement, tuple(asked)).one()
    nothing = np.empty(0, np.int64)
    found = {one: (number, nothing) for one, number in zip(asked, counts, strict=True)}
    told = [one for one, (number, _) in found.items() if 0 < number < most]
    if told:
        # one string for many ids: a row each would take longer than looking them up
        rows = f"SELECT ?, group_concat(rowid) FROM {name} WHERE {name} MATCH ?"
        listed = connection.exec_driver_sql(
            " UNION ALL ".join([rows] * len(told)),
            tuple(each for one in told for each in (one, one)),
        )
        for one, ids in listed:
            found[one] = found[one][0], np.fromstring(ids, np.int64, sep=",")
    return found


def _summed(found: dict[str, tuple[int, Ids]], count: int, most: int) -> tuple[Ids, Scores]:
    """Items and what they fit by, of what each phrase is found in, of `count` items in all."""
    nats = {
        one: max(math.log((count - number + 0.5) / (number + 0.5)), _LEAST)
        for one, (number, _) in found.items()
        if number < most
    }
    listed = {one: ids for one, (_, ids) in found.items() if len(ids)}
    if not listed:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    weights = np.repeat([nats[one] for one in listed], [len(ids) for ids in listed.values()])
    ids, at = np.unique(np.concatenate(list(listed.values())), return_inverse=True)
    sums = np.bincount(at, weights)
    return ids, (sums * sums / sum(nats.values())).astype(np.float32)
