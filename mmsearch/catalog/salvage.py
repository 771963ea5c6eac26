"""A new catalog out of what is left of a damaged one: only what is whole is taken over.

A file whose content has lost a vector, a passage or a window is kept as one that could not be
read, so that it is named and the next indexing run reads it again.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from sqlalchemy import Table, insert

from mmsearch.catalog import keywords, tables
from mmsearch.catalog.remains import Remains
from mmsearch.catalog.session import Session
from mmsearch.records import Modality, Reason

AGAIN = "what was known of it was damaged: the next mmsearch index reads it again"

_BLOCK = 1000  # rows a statement
_TABLES = (
    tables.roots, tables.folders, tables.settings, tables.spaces, tables.contents, tables.parts,
    tables.files, tables.items, tables.captions, tables.labels, tables.vectors, tables.backgrounds,
)  # fmt: skip

# A content is whole when it has its parts, numbered from 0, as far as its items say, and in
# every space that it has vectors in one for each part; a picture has one part that no row is of.
_PARTS = "(SELECT count(*) FROM parts WHERE content_id = contents.id)"
_UNSOUND = f"""
CREATE TEMP TABLE unsound AS SELECT id FROM contents WHERE
    modality NOT IN ({", ".join(f"'{kind}'" for kind in Modality)})
    OR (modality <> 'image' AND {_PARTS} = 0)
    OR coalesce((SELECT max(part) + 1 FROM parts WHERE content_id = contents.id), 0) <> {_PARTS}
    OR EXISTS (
        SELECT 1 FROM items JOIN files ON files.id = items.file_id
        WHERE files.content_id = contents.id AND items.part >= max(1, {_PARTS}))
    OR (modality = 'text' AND EXISTS (
        SELECT 1 FROM parts WHERE content_id = contents.id AND text IS NULL))
    OR (format <> 'caption' AND NOT EXISTS (
        SELECT 1 FROM vectors WHERE content_id = contents.id))
    OR EXISTS (
        SELECT 1 FROM vectors WHERE content_id = contents.id GROUP BY space_id
        HAVING count(*) <> max(1, {_PARTS}) OR max(part) + 1 <> count(*))
"""
_QUEUED = f"""
SELECT files.id FROM files WHERE
    content_id IN (SELECT id FROM unsound)
    OR content_id NOT IN (SELECT id FROM contents)
    OR (content_id IS NULL) = (reason IS NULL)
    OR reason NOT IN ({", ".join(f"'{reason}'" for reason in Reason)})
"""
# What says nothing without what it refers to.
_ORPHANS = (
    "DELETE FROM vectors WHERE space_id NOT IN (SELECT id FROM spaces) "
    "OR content_id NOT IN (SELECT id FROM contents)",
    "DELETE FROM files WHERE folder_id NOT IN (SELECT id FROM folders)",
    "DELETE FROM parts WHERE content_id NOT IN (SELECT id FROM contents)",
    "DELETE FROM labels WHERE content_id NOT IN (SELECT id FROM contents)",
    "DELETE FROM items WHERE file_id NOT IN (SELECT id FROM files)",
)
_ITEMS = (
    # an item is what the parts say; those that are not are made anew
    """DELETE FROM items WHERE NOT EXISTS (
        SELECT 1 FROM files JOIN contents ON contents.id = files.content_id
        LEFT JOIN parts ON parts.content_id = contents.id AND parts.part = items.part
        WHERE files.id = items.file_id AND contents.modality = items.modality
        AND parts."start" IS items."start" AND parts."end" IS items."end"
        AND (parts.part IS NOT NULL OR contents.modality = 'image' AND items.part = 0))""",
    """INSERT INTO items (file_id, part, modality, "start", "end")
        SELECT files.id, coalesce(parts.part, 0), contents.modality, parts."start", parts."end"
        FROM files JOIN contents ON contents.id = files.content_id
        LEFT JOIN parts ON parts.content_id = contents.id
        WHERE NOT EXISTS (
            SELECT 1 FROM items WHERE file_id = files.id AND part = coalesce(parts.part, 0))
        ORDER BY files.id, parts.part""",
)
_UNUSED = (
    "DELETE FROM contents WHERE id IN (SELECT id FROM unsound) "
    "OR id NOT IN (SELECT content_id FROM files WHERE content_id IS NOT NULL) "
    "AND id NOT IN (SELECT content_id FROM captions)",
    "DELETE FROM backgrounds WHERE vector_id NOT IN (SELECT id FROM vectors)",
)
_BARE = """
DELETE FROM captions WHERE file_id NOT IN (SELECT id FROM files WHERE content_id IS NOT NULL)
    OR content_id NOT IN (SELECT id FROM contents WHERE format = 'caption')
    OR content_id IN (SELECT id FROM unsound)
"""


@dataclass(slots=True)
class Salvaged:
    """What a salvage brought: files of the new catalog, files to be read again, labels lost."""

    files: int = 0
    again: list[bytes] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)  # damaged rows by table
    broken: dict[str, int] = field(default_factory=dict)  # stretches that could not be read


class Salvage(Session):
    """A catalog that is being filled from another's remains."""

    def take_over(self, remains: Remains) -> Salvaged:
        """Fill this catalog, which is empty, in the transaction that is open."""
        run = self._connection.exec_driver_sql
        run("PRAGMA defer_foreign_keys = ON")
        for table in _TABLES:
            found = self._checked(remains, table)
            while block := list(islice(found, _BLOCK)):
                self._connection.execute(insert(table).prefix_with("OR IGNORE"), block)
        for statement in _ORPHANS:
            run(statement)
        run(_UNSOUND)
        again = self._queue(list(run(_QUEUED).scalars()))
        self._have_captions_read(remains)
        for statement in (*_UNUSED, *_ITEMS):
            run(statement)
        for name, last in remains.sequences():
            there = run("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (last, name))
            if not there.rowcount and name in tables.metadata.tables:  # it has no rows any more
                run("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (name, last))
        keywords.create(self._connection)
        files = run("SELECT count(*) FROM files WHERE content_id IS NOT NULL").scalar_one()
        return Salvaged(int(files), again, dict(remains.lost), dict(remains.broken))

    def _checked(self, remains: Remains, table: Table) -> Iterator[dict[str, Any]]:
        """The rows of a table, of vectors those that are what was written."""
        rows = remains.rows(table)
        if table is not tables.vectors:
            yield from rows
            return
        run = self._connection.exec_driver_sql
        dims = {row[0]: row[1] for row in run("SELECT id, dim FROM spaces")}
        for row in rows:
            data = row["data"]
            if zlib.crc32(data) == row["crc"] and len(data) == 2 * dims.get(row["space_id"], -1):
                length = float(np.linalg.norm(np.frombuffer(data, "<f2").astype(np.float32)))
                if abs(length - 1) < 0.01:
                    yield row
                    continue
            remains.lost[table.name] += 1

    def _queue(self, file_ids: list[int]) -> list[bytes]:
        """Have these files read by the next run; their paths. Those that are gone are forgotten."""
        run = self._connection.exec_driver_sql
        again: list[bytes] = []
        for id in file_ids:
            gone = run("DELETE FROM files WHERE id = ? AND gone_at IS NOT NULL", (id,)).rowcount
            if gone:
                continue
            run(
                "UPDATE files SET content_id = NULL, reason = ?, message = ?, inode = 0 "
                "WHERE id = ?",
                (str(Reason.UNREADABLE), AGAIN, id),
            )
            query = "SELECT path, name FROM files JOIN folders ON folders.id = folder_id"
            folder, name = run(f"{query} WHERE files.id = ?", (id,)).one()
            again.append(os.path.join(folder, name))
        return sorted(again)

    def _have_captions_read(self, remains: Remains) -> None:
        """Drop captions without words or file, and have what is said of their files read again.

        Where captions themselves were lost, nobody knows of which files: all are asked again.
        """
        run = self._connection.exec_driver_sql
        named = (
            "(SELECT file_id FROM captions WHERE content_id IN (SELECT id FROM unsound) "
            "OR content_id NOT IN (SELECT id FROM contents WHERE format = 'caption'))"
        )
        all_of_them = remains.lost["captions"] or remains.broken["captions"]
        here = "1" if all_of_them else f"id IN {named}"
        # no number of sidecars is 1 more than itself
        run(
            "UPDATE contents SET described = 0 WHERE id IN "
            f"(SELECT content_id FROM files WHERE content_id IS NOT NULL AND {here})"
        )
        run(f"UPDATE files SET sidecars = sidecars + 1 WHERE content_id IS NOT NULL AND {here}")
        run(_BARE)
