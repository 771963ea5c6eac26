"""Roots, folders and files: what was seen, and what became of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, delete, exists, func, insert, select, update

from mmsearch.catalog import keywords
from mmsearch.catalog.session import Session, chunks, member
from mmsearch.catalog.tables import contents, files, folders, items, parts, roots
from mmsearch.records import Modality, Reason

_FILE_AT = select(files.c.id, files.c.content_id).where(
    files.c.folder_id == bindparam("folder"), files.c.name == bindparam("name")
)
_FOLDER = (0, 0, 0)  # the state of a folder that could not be listed; no file has inode 0


@dataclass(frozen=True, slots=True)
class Known:
    """A file as the catalog has it. `state` is (size, mtime_ns, inode).

    `mark` is the number of its sidecars as they were when they were read. `described`: it was
    asked, if it has a content, what it says of itself.
    """

    id: int
    state: tuple[int, int, int]
    content_id: int | None
    reason: Reason | None
    gone: bool
    mark: int
    described: bool


class Files(Session):
    """The tables roots, folders, files and items."""

    def roots(self) -> list[tuple[int, bytes, int]]:
        """Every root as (id, path, device)."""
        with self.snapshot():
            rows = self._connection.execute(
                select(roots.c.id, roots.c.path, roots.c.device).order_by(roots.c.path)
            )
            return [(row.id, row.path, row.device) for row in rows]

    def put_root(self, path: bytes, device: int, keep: Sequence[bytes] = ()) -> None:
        """Remember a root; one that contains others takes their place, but for those to keep."""
        below = _below(roots.c.path, path) & roots.c.path.not_in(keep)
        self._connection.execute(delete(roots).where(below))
        self._connection.execute(
            insert(roots).values(path=path, device=device, added_at=int(time.time()))
        )

    def set_device(self, root_id: int, device: int) -> None:
        """The device a root was seen on in this run."""
        self._connection.execute(update(roots).where(roots.c.id == root_id).values(device=device))

    def folder_id(self, path: bytes) -> int:
        """The id of a folder, made when it is new."""
        known = self._folder_ids.get(path)
        if known is None:
            query = select(folders.c.id).where(folders.c.path == path)
            known = self._connection.execute(query).scalar() or self._insert(folders, path=path)
            self._folder_ids[path] = known
        return known

    def folders_below(self, path: bytes) -> list[bytes]:
        """`path` and every known folder below it, sorted."""
        with self.snapshot():
            rows = self._connection.execute(
                select(folders.c.path).where(_below(folders.c.path, path)).order_by(folders.c.path)
            )
            return list(rows.scalars())

    def known_files(self, folder: bytes, name: bytes | None = None) -> dict[bytes, Known]:
        """The files of one folder by name, or one of them, those that are gone included."""
        query = (
            select(
                files.c.name, files.c.id, files.c.size, files.c.mtime_ns, files.c.inode,
                files.c.content_id, files.c.reason, files.c.gone_at, files.c.sidecars,
                func.coalesce(contents.c.described, 1),
            )
            .join(folders, folders.c.id == files.c.folder_id)
            .outerjoin(contents, contents.c.id == files.c.content_id)
            .where(folders.c.path == folder)
        )  # fmt: skip
        if name is not None:
            query = query.where(files.c.name == name)
        found: dict[bytes, Known] = {}
        with self.snapshot():
            for row in self._connection.execute(query):
                key, id, size, mtime_ns, inode, content_id, reason, gone_at, mark, asked = row
                why = member(Reason, reason) if reason else None
                state, gone = (size, mtime_ns, inode), gone_at is not None
                found[key] = Known(id, state, content_id, why, gone, mark, bool(asked))
        return found

    def known_sizes(self, sizes: Sequence[int]) -> set[int]:
        """Those of these sizes that some indexed file has, and so perhaps its content."""
        found: set[int] = set()
        with self.snapshot():
            for chunk in chunks(sorted(set(sizes))):
                query = select(files.c.size).where(files.c.size.in_(chunk))
                found.update(self._connection.execute(query.distinct()).scalars())
        return found

    def count_below(self, path: bytes) -> int:
        """How many files below a path are indexed and not gone."""
        query = (
            select(func.count())
            .select_from(files.join(folders))
            .where(_at_or_below(path))
            .where(_findable())
        )
        with self.snapshot():
            return int(self._connection.execute(query).scalar_one())

    def paths_of(self, content_id: int) -> list[tuple[int, bytes, bool]]:
        """Files with this content as (file id, path, gone): those that are gone first.

        A few are enough: a thousand copies of one icon need not all be asked where they are.
        """
        query = (
            select(files.c.id, folders.c.path, files.c.name, files.c.gone_at)
            .join(folders)
            .where(files.c.content_id == content_id)
            .order_by(files.c.gone_at.is_(None), files.c.id)
            .limit(8)
        )
        with self.snapshot():
            return [
                (id, os.path.join(folder, name), gone is not None)
                for id, folder, name, gone in self._connection.execute(query)
            ]

    def paths_by_id(self, file_ids: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """(id, path) of these files."""
        for chunk in chunks(file_ids):
            query = select(files.c.id, folders.c.path, files.c.name).join(folders)
            with self.snapshot():
                rows = self._connection.execute(query.where(files.c.id.in_(chunk))).all()
            for id, folder, name in rows:
                yield id, os.path.join(folder, name)

    def count_indexed(self, file_ids: Sequence[int]) -> int:
        """How many of these are indexed and not yet gone."""
        total = 0
        with self.snapshot():
            for chunk in chunks(file_ids):
                query = select(func.count()).where(files.c.id.in_(chunk), _findable())
                total += int(self._connection.execute(query).scalar_one())
        return total

    def some_files_below(self, path: bytes) -> list[tuple[bytes, int]]:
        """A few files that should be below a path, as (path, size)."""
        query = (
            select(folders.c.path, files.c.name, files.c.size)
            .join(folders)
            .where(_at_or_below(path), _findable())
            .limit(32)
        )
        with self.snapshot():
            rows = self._connection.execute(query)
            return [(os.path.join(folder, name), size) for folder, name, size in rows]

    def put_folder_failure(self, path: bytes, message: str) -> None:
        """Name a folder that could not be listed. Its state is one that no file has."""
        self.put_file(path, _FOLDER, reason=Reason.UNREADABLE, message=message)

    def clear_folder_failures(self, path: bytes) -> None:
        """Forget which folders at or below a path could not be listed."""
        here = select(files.c.id).join(folders).where(_at_or_below(path))
        self._connection.execute(
            delete(files).where(
                files.c.id.in_(here),
                files.c.size == _FOLDER[0],
                files.c.mtime_ns == _FOLDER[1],
                files.c.inode == _FOLDER[2],
            )
        )

    def put_file(
        self,
        path: bytes,
        state: tuple[int, int, int],
        *,
        content_id: int | None = None,
        modality: Modality = Modality.IMAGE,
        mark: int = 0,
        reason: Reason | None = None,
        message: str | None = None,
    ) -> int:
        """Record what became of a file: its content, or the reason why it has none; its id.

        A file that was known under this path keeps its id; one whose content is the same
        keeps its items, and one that has a content its captions.
        """
        folder, name = os.path.split(path)
        folder_id = self.folder_id(folder)
        size, mtime_ns, inode = state
        values: dict[str, Any] = {
            "size": size, "mtime_ns": mtime_ns, "inode": inode, "content_id": content_id,
            "reason": reason, "message": message, "gone_at": None, "sidecars": mark,
        }  # fmt: skip
        old = self._connection.execute(_FILE_AT, {"folder": folder_id, "name": name}).first()
        if old is None:
            file_id = self._insert(
                files, folder_id=folder_id, name=name, added_at=int(time.time()), **values
            )
        else:
            file_id = int(old.id)
            self._connection.execute(update(files).where(files.c.id == file_id).values(values))
            if old.content_id == content_id:
                return file_id
            self._flush()  # an item of this file may be among the new ones
            if content_id is None:
                self._drop_captions([file_id])
            keywords.drop(self._connection, [file_id])
            self._connection.execute(delete(items).where(items.c.file_id == file_id))
            self._loose.add(old.content_id)
        if content_id is not None:
            found = [] if modality is Modality.IMAGE else self._parts_of(content_id)
            self._new_items += [
                {"file_id": file_id, "part": part, "modality": modality, "start": start, "end": end}
                for part, start, end in found or [(0, None, None)]
            ]
        return file_id

    def _parts_of(self, content_id: int) -> list[tuple[int, float | None, float | None]]:
        query = select(parts.c.part, parts.c.start, parts.c.end).order_by(parts.c.part)
        rows = self._connection.execute(query.where(parts.c.content_id == content_id))
        return [(part, start, end) for part, start, end in rows]

    def put_mark(self, file_id: int, mark: int) -> None:
        """Note how a file's sidecars are now."""
        here = update(files).where(files.c.id == file_id)
        self._connection.execute(here.values(sidecars=mark))

    def move_file(
        self, file_id: int, path: bytes, state: tuple[int, int, int], mark: int = 0
    ) -> None:
        """A known file is now under another path: same id, same items, same vectors."""
        folder, name = os.path.split(path)
        folder_id = self.folder_id(folder)
        size, mtime_ns, inode = state
        # whatever was recorded under the new path has been replaced by this file
        there = {"folder": folder_id, "name": name}
        replaced = self._connection.execute(_FILE_AT, there).scalar()
        if replaced is not None:
            self.drop_files([replaced])
        self._connection.execute(
            update(files)
            .where(files.c.id == file_id)
            .values(
                folder_id=folder_id, name=name, size=size, mtime_ns=mtime_ns, inode=inode,
                gone_at=None, sidecars=mark,
            )
        )  # fmt: skip
        keywords.refresh(self._connection, [file_id])

    def mark_gone(self, file_ids: Sequence[int]) -> None:
        """Hide these files from answers; what was never indexed is forgotten instead."""
        now = int(time.time())
        for chunk in chunks(file_ids):
            here = files.c.id.in_(chunk)
            self._connection.execute(delete(files).where(here, files.c.content_id.is_(None)))
            self._connection.execute(update(files).where(here, _findable()).values(gone_at=now))

    def drop_files(self, file_ids: Sequence[int]) -> None:
        """Forget files, their items and every vector that no other file shares."""
        for chunk in chunks(file_ids):
            here = files.c.id.in_(chunk)
            held = select(files.c.content_id).where(here).distinct()
            content_ids = list(self._connection.execute(held).scalars())
            self._drop_captions(chunk)
            keywords.drop(self._connection, chunk)
            self._connection.execute(delete(files).where(here))
            self._loose.update(content_ids)

    def files_below(self, path: bytes) -> list[int]:
        """The ids of the file at `path` or of all files below it."""
        query = select(files.c.id).join(folders).where(_at_or_below(path))
        with self.snapshot():
            return list(self._connection.execute(query).scalars())

    def gone_files(self) -> list[int]:
        """The ids of all files that are gone."""
        with self.snapshot():
            query = select(files.c.id).where(files.c.gone_at.is_not(None))
            return list(self._connection.execute(query).scalars())

    def drop_roots_below(self, path: bytes) -> int:
        """Forget the roots at and below a path, and folders without files; how many roots."""
        dropped = self._connection.execute(delete(roots).where(_below(roots.c.path, path)))
        empty = ~exists().where(files.c.folder_id == folders.c.id)
        self._connection.execute(delete(folders).where(empty))
        self._folder_ids.clear()
        return int(dropped.rowcount)

    def problems(self, *, skipped: bool = False) -> list[tuple[bytes, Reason, str]]:
        """Files that failed (or were skipped): (path, reason, message), by path."""
        query = (
            select(folders.c.path, files.c.name, files.c.reason, files.c.message)
            .join(folders)
            .where(files.c.reason.is_not(None), files.c.gone_at.is_(None))
            .order_by(folders.c.path, files.c.name)
        )
        with self.snapshot():
            rows = [
                (os.path.join(folder, name), member(Reason, reason), message or "")
                for folder, name, reason, message in self._connection.execute(query)
            ]
        return [row for row in rows if row[1].skipped == skipped]


def _below(column: Any, path: bytes) -> Any:
    """The path itself or anything below it: a range scan, since "0" follows "/"."""
    stem = path.rstrip(b"/")
    return (column == path) | ((column > stem + b"/") & (column < stem + b"0"))


def _at_or_below(path: bytes) -> Any:
    """Files joined with their folders: the file at `path`, or all files below it."""
    folder, name = os.path.split(path)
    return _below(folders.c.path, path) | ((folders.c.path == folder) & (files.c.name == name))


def _findable() -> Any:
    return files.c.content_id.is_not(None) & files.c.gone_at.is_(None)
