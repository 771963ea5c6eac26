"""What is in a library, as SQLite and plain arithmetic say, to hold mmsearch against."""

from __future__ import annotations

import hashlib
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

import mmsearch
from mmsearch.library import Library

Contents = dict[bytes, tuple[Any, ...]]

_FILES = """
select folders.path || x'2f' || files.name, files.id, files.size, contents.digest, files.reason,
  files.gone_at is not null, files.content_id
from files join folders on folders.id = files.folder_id
left join contents on contents.id = files.content_id
"""
_CAPTIONS = """
select captions.source, parts.text from captions
join parts on parts.content_id = captions.content_id where captions.file_id = ? order by 1, 2
"""
_VECTORS = "select part, data from vectors where content_id = ? order by part, data"
_LABELS = "select label from labels where content_id = ? order by 1"
_PARTS = "select part, start, end, text from parts where content_id = ? order by 1"
_ITEMS = """
select items.id, vectors.data from items join files on files.id = items.file_id
join vectors on vectors.content_id = files.content_id and vectors.part = items.part
where files.gone_at is null
"""


def contents(database: sqlite3.Connection) -> Contents:
    """By path, what is known of each file: no ids, no dates, so that two runs compare."""
    found: Contents = {}
    for path, id, size, digest, reason, gone, content in database.execute(_FILES).fetchall():
        assert path not in found, f"{path!r} is there twice"
        about = [
            tuple(database.execute(query, (key,)).fetchall())
            for query, key in (
                (_CAPTIONS, id), (_VECTORS, content), (_LABELS, content), (_PARTS, content),
            )
        ]  # fmt: skip
        found[path] = (size, digest, reason, gone, *about)
    return found


def indexed(known: Contents) -> Contents:
    """Of these those that can be found."""
    return {path: file for path, file in known.items() if file[1] is not None and not file[3]}


def whole(database: sqlite3.Connection) -> bytes:
    """A hash of every row of every table: one state of one database."""
    hashed = hashlib.blake2b(digest_size=16)
    tables = database.execute(
        "select name, sql from sqlite_schema where type = 'table' order by name"
    ).fetchall()
    for name, sql in tables:
        hashed.update(name.encode())
        if not sql or "VIRTUAL" not in sql:
            rows = database.execute(f'select * from "{name}"').fetchall()
            hashed.update(repr(sorted(rows, key=repr)).encode())
    return hashed.digest()


def copied(library: Path, to: Path) -> sqlite3.Connection:
    """A connection to a copy of what is durable of a library, which is not touched."""
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    for name in ("library.db", "library.db-wal", "library.db-journal"):
        if (library / name).exists():
            shutil.copyfile(library / name, to / name)
    return sqlite3.connect(to / "library.db")


def stored(library: Path, scratch: Path) -> Contents:
    """What SQLite itself finds in a library; empty when there is none."""
    if not (library / "library.db").exists():
        return {}
    with closing(copied(library, scratch)) as database:
        assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
        assert database.execute("pragma foreign_key_check").fetchall() == []
        return contents(database)


def scores(database: sqlite3.Connection, query: np.ndarray) -> dict[int, float]:
    """By item, the inner product of a (dim,) query with its own vector."""
    rows = database.execute(_ITEMS).fetchall()
    return {id: float(np.frombuffer(data, "<f2").astype(np.float32) @ query) for id, data in rows}


def complaints(
    library: Library, database: sqlite3.Connection, *, sound: bool = True, cached: bool = False
) -> list[str]:
    """Where mmsearch's answers differ from arithmetic, and, if `sound`, what its check finds.

    The database is a copy of the library's. A cache that is not there is no fault unless it has
    to be `cached`.
    """
    found = library.check() if sound else []
    if not cached:
        found = [line for line in found if "No such file" not in line]
    query = library.encoder.encode(mmsearch.records.Modality.TEXT, ["red"])[0]
    expected = scores(database, query)
    for k in (10_000, 1):
        hits = library.query("red", k=k, all=True, hybrid="off")
        answer = {hit.id: hit.score for hit in hits}
        if len(answer) != len(hits):
            found.append("an item twice in one answer")
        if len(answer) != min(k, len(expected)) or answer.keys() - expected.keys():
            found.append(f"{sorted(answer)} found of {sorted(expected)}, k={k}")
        elif wrong := {
            id: score for id, score in answer.items() if abs(score - expected[id]) > 1e-5
        }:
            found.append(f"scores {wrong}, not {expected}")
    return found


def names(folder: Path) -> list[str]:
    """The files below a folder that last: SQLite keeps two only while it is open.

    Caches without their generation: a run that was cut off may have used one up. What a restored
    library replaced counts once: each restoring keeps what it found.
    """
    found = (str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())
    lasting = [
        re.sub(r"^(cache/space-\d+)-\d+", r"\1", name)
        for name in found
        if not name.endswith(("library.db-wal", "library.db-shm"))
    ]
    replaced = {
        re.sub(r"-\d+", "", name, count=1) for name in lasting if name.startswith("before-restore")
    }
    return sorted([*replaced, *(name for name in lasting if not name.startswith("before-restore"))])
