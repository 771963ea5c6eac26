"""Words of file names, folder names and passages, found by SQLite's full-text search (FTS5).

A row of `keywords` has the id of an item. The first item of a file has its path in `names`,
an item of a text has its passage in `text`; FTS5 splits both at whatever is neither a letter
nor a digit. Another database would have a full-text index of its own here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sqlalchemy import (
    Connection,
    Float,
    Integer,
    column,
    delete,
    insert,
    literal_column,
    select,
    table,
    update,
)

from mmsearch.catalog.tables import files, folders, items, parts

# Not in the metadata, which creates tables: this one is virtual, and has tables of its own.
# `rank` is FTS5's BM25, the best first.
keywords = table(
    "keywords", column("rowid", Integer), column("names"), column("text"), column("rank", Float)
)
match = literal_column("keywords").op("MATCH")

_CREATE = (
    "CREATE VIRTUAL TABLE keywords "
    "USING fts5(names, text, tokenize = 'unicode61 remove_diacritics 2')"
)

# Chinese and Japanese put no spaces between words, and FTS5 would take a whole sentence for
# one. So every such character becomes a word of its own, and what is asked for a phrase.
_CHARACTER = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")

_WORDS = (
    select(items.c.id, items.c.part, folders.c.path, files.c.name, parts.c.text)
    .join(files, files.c.id == items.c.file_id)
    .join(folders, folders.c.id == files.c.folder_id)
    .outerjoin(parts, (parts.c.content_id == files.c.content_id) & (parts.c.part == items.c.part))
)


def create(connection: Connection) -> None:
    """Make the table, and fill it with the words of what is there."""
    connection.exec_driver_sql(_CREATE)
    take_up(connection, 0)


def take_up(connection: Connection, after: int) -> None:
    """Add the words of all items whose id is above `after`."""
    found = connection.execute(_WORDS.where(items.c.id > after).order_by(items.c.id))
    for chunk in found.partitions(1000):
        rows = [
            {"rowid": id, "names": _names(path, name, part), "text": text and _separated(text)}
            for id, part, path, name, text in chunk
            if part == 0 or text
        ]
        if rows:
            connection.execute(insert(keywords), rows)


def rename(connection: Connection, file_id: int) -> None:
    """Take a file's new path for its old one."""
    query = _WORDS.where(items.c.file_id == file_id, items.c.part == 0)
    for id, part, path, name, _ in connection.execute(query).all():
        names = _names(path, name, part)
        connection.execute(update(keywords).where(keywords.c.rowid == id).values(names=names))


def drop(connection: Connection, file_ids: Sequence[int]) -> None:
    """Drop what these files' items say, before the items themselves go."""
    theirs = select(items.c.id).where(items.c.file_id.in_(file_ids))
    connection.execute(delete(keywords).where(keywords.c.rowid.in_(theirs)))


def refresh(connection: Connection, file_ids: Sequence[int]) -> None:
    """Read again what these files' items say."""


def merge(connection: Connection) -> None:
    """Rewrite the index, in which dropped words stay for a while, without them."""
    connection.exec_driver_sql("INSERT INTO keywords (keywords) VALUES ('optimize')")


def expression(wanted: Sequence[str], unwanted: Sequence[str] = ()) -> str | None:
    """What FTS5 is asked: any of the wanted words and none of the unwanted; None for no words.

    Every word is quoted, for FTS5 has a language of its own, with column filters and NEAR.
    """
    yes, no = _phrases(wanted), _phrases(unwanted)
    return f"({yes}) NOT ({no})" if yes and no else f"({yes})" if yes else None


def _phrases(texts: Sequence[str]) -> str:
    words = dict.fromkeys(word for text in texts for word in text.replace("\0", "").split())
    return " OR ".join('"' + _separated(word).replace('"', '""') + '"' for word in words)


def _names(folder: bytes, name: bytes, part: int) -> str | None:
    """The path of a file's first item: the others would only say it again."""
    return _separated(b"/".join((folder, name)).decode("utf-8", "replace")) if part == 0 else None


def _separated(text: str) -> str:
    return _CHARACTER.sub(r" \g<0> ", text.replace("\0", " "))
