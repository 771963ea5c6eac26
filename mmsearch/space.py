"""One encoder's vectors, searched: the catalog's rows through a mapped cache and a store."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch import engines
from mmsearch.catalog import Catalog, Phrases, Standing
from mmsearch.durable import storage_error
from mmsearch.errors import LibraryDamaged
from mmsearch.groups import Group
from mmsearch.querylog import QueryLog
from mmsearch.records import Kind
from mmsearch.vectors import Engine
from mmsearch.vectors.matrix import Matrix, hash_file, open_matrix, write_matrix
from mmsearch.vectors.planning import INDEX_FROM_ROWS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmsearch.filters import Filter
    from mmsearch.records import Ids, Rows, Scores, Vectors
    from mmsearch.vectors.codes import IndexFile

# A cache is written anew when more than this share of its rows is missing or dead:
# until then the fresh rows are searched beside it, exactly.
STALE_SHARE = 0.05

_LATER = "-later"  # in the names of files that are built beside the one writer
_FILTERS = 8  # whose items are remembered until the catalog changes


@dataclass(frozen=True, slots=True)
class CacheState:
    """How the cache stands to the catalog: rows cached, rows newer, rows dead; and why unusable."""

    rows: int
    fresh: int
    dead: int
    problem: str | None


@dataclass(frozen=True, slots=True)
class Draft:
    """Cache files that are whole and not searched yet: the generation `before` them, their record
    for the catalog, whether they were built beside the one writer, and what there is to say.
    """

    before: int
    record: dict[str, Any]
    later: bool
    notes: list[str]


class Space:
    """The vectors of one encoder in one library."""

    def __init__(self, catalog: Catalog, cache: Path, row: tuple[int, str, str, int]) -> None:
        self.id, self.encoder_name, self.fingerprint, self.dim = row
        self._catalog = catalog
        self._cache = cache
        self.asked = QueryLog(cache, self.fingerprint, self.dim)
        self._groups: dict[Kind, Group] = {}
        self._asked = 0  # queries since these were read
        self._standing: dict[Filter | None, Standing] = {}
        self._version = -1  # of the catalog when they were read
        self.phrases = Phrases()  # that were asked for since then
        self.problem: str | None = None  # why the cache is not used

    # -- reading -----------------------------------------------------------------------

    def groups(self) -> dict[Kind, Group]:
        """The vectors by what they stand for, as of this snapshot of the catalog."""
        with self._catalog.snapshot():
            version = self._catalog.data_version()
            if version != self._version:
                # hidden rows may be back, so a changed catalog begins with new stores over the map
                self._groups = self._read()
                self._version = version
                self._asked = 0
                self._standing.clear()
                self.phrases = Phrases()
            return self._groups

    def exact(self, queries: Vectors, ids: Sequence[int]) -> tuple[Ids, Scores]:
        """(m,) ids and (t, m) scores of vectors from the catalog itself, each checked.

        Those that are no longer there are left out. Raises LibraryDamaged.
        """
        found, rows = self._catalog.vectors_of(ids)
        return found, products(queries, rows)

    def standing(self, filter: Filter | None, asked: int = 1) -> Catalog | Standing:
        """Where to look up what vectors stand for: for a first query without a filter in the
        catalog, else in what is kept of it in memory until it changes. `asked` questions are.
        """
        with self._catalog.snapshot():
            self.groups()
            self._asked += asked
            if filter is None and self._asked == 1:
                return self._catalog
            if filter not in self._standing:
                if len(self._standing) == _FILTERS:
                    self._standing.pop(next(iter(self._standing)))
                self._standing[filter] = self._catalog.standing(self.id, filter)
            return self._standing[filter]

    def _read(self) -> dict[Kind, Group]:
        record = self._record()
        matrix = self._open(record) if record else None
        fresh: dict[Kind, list[Rows]] = {}
        for rows in self._catalog.vectors_after(self.id, matrix.last_id if matrix else 0):
            for kind in map(Kind, np.unique(rows.kinds).tolist()):
                fresh.setdefault(kind, []).append(rows.of(kind))
        groups = {}
        for kind in Kind:
            base = matrix.of(kind) if matrix else None
            if base is not None or kind in fresh:
                index = self._index(record, base, kind) if record and base else None
                groups[kind] = Group(self.dim, _quick(base, index), fresh.get(kind, []), index)
        return groups

    def _index(self, record: dict[str, Any], base: Matrix, kind: Kind) -> IndexFile | None:
        """The index of one kind, None where there is none or (see `problem`) none to be used."""
        mine = json.loads(record["indexes"]).get("files", {}).get(kind.name)
        if mine is None:
            return None
        index, why = engines.opened(self._cache, mine, base)
        self.problem = self.problem or why or None
        return index

    def searched(
        self, sentences: Vectors | None = None, *, anew: bool = False
    ) -> list[dict[str, Any]]:
        """How each kind of vectors is searched, and what was measured of it; `anew`: now."""
        found = []
        with self._catalog.snapshot():
            groups = self.groups()
            record = self._record()
            matrix = self._open(record) if record else None
            for kind, group in groups.items():
                measured = group.index.measured if group.index else {}
                if anew and matrix is not None:
                    asked = engines.queries(matrix, kind, sentences, self.asked.rows())
                    measured = engines.measure(group, asked)
                plan = group.store.plan
                found.append(
                    {
                        "kind": kind.name.lower(), "vectors": len(group),
                        "engine": str(plan.engine),
                        "faiss": plan.factory, "target_recall": plan.target_recall,
                        "bytes_per_vector": plan.bytes_per_vector, "measured": measured,
                        "note": group.index.note if group.index else "",
                    }
                )  # fmt: skip
        return found

    def _record(self) -> dict[str, Any] | None:
        """The record of the matrix file, if it says what is so."""
        record = self._catalog.cache(self.id)
        return record if record and record["sha256"] else None

    def _open(self, record: dict[str, Any]) -> Matrix | None:
        """The matrix of this record, None (and `problem`) when it is not what was written."""
        path = str(self._cache / record["file"])
        self.problem = None
        try:
            if engines.figures(path) != _recorded(record) and hash_file(path) != record["sha256"]:
                self.problem = f"{path} is not what was written"
                return None
            matrix = open_matrix(path)
        except (OSError, LibraryDamaged) as error:
            self.problem = str(error)
            return None
        head = (matrix.generation, len(matrix.rows.ids), matrix.last_id, matrix.fingerprint)
        expected = (record["generation"], record["rows"], record["last_id"], self.fingerprint)
        if head != expected or matrix.rows.vectors.shape[1] != self.dim:
            self.problem = f"{path} belongs to another state of the library"
            return None
        return matrix

    # -- writing and checking ----------------------------------------------------------

    def state(self, *, hashed: bool = False) -> CacheState:
        """How the cache stands; `hashed` reads it in full."""
        with self._catalog.snapshot():
            record = self._record()
            total, _ = self._catalog.count_vectors(self.id)
            if record is None:
                return CacheState(0, total, 0, None)
            fresh, _ = self._catalog.count_vectors(self.id, after=record["last_id"])
            matrix = self._open(record)
            if matrix is not None and hashed:
                try:
                    self._compare(record, matrix)
                except OSError as error:  # a writer has replaced it
                    self.problem = str(error)
            if matrix is not None and self.problem is None:
                for kind in Kind:
                    if (base := matrix.of(kind)) is not None:
                        self._index(record, base, kind)
            return CacheState(record["rows"], fresh, record["rows"] - (total - fresh), self.problem)

    def _compare(self, record: dict[str, Any], matrix: Matrix) -> None:
        """Set `problem` unless the file's hash is right and its rows are the catalog's."""
        if hash_file(matrix.path) != record["sha256"]:
            self.problem = f"{matrix.path} is not what was written"
            return
        for mine in json.loads(record["indexes"]).get("files", {}).values():
            path = self._cache / mine["file"]
            if not path.exists() or hash_file(str(path)) != mine["sha256"]:
                self.problem = f"{path} is not what was written"
                return
        for kind in Kind:
            base = matrix.of(kind)
            for rows in self._catalog.vectors_after(self.id, 0, kind):
                old = rows.ids <= matrix.last_id
                if old.any() and not (base and _same(base.rows, rows, old)):
                    self.problem = f"{matrix.path} has other vectors than the catalog"
                    return

    def outdated(self) -> bool:
        """Whether too much of the cache is stale, or something else was wished for."""
        state, record = self.state(), self._catalog.cache(self.id)
        stale = state.fresh + state.dead > STALE_SHARE * state.rows
        other = record is not None and self._built_for(record) != engines.wished(self._catalog)
        return stale or other or state.problem is not None

    def large(self) -> bool:
        """Whether an index is to be built, which takes a while."""
        counts = self._catalog.kinds_of_vectors(self.id)
        plans, _ = engines.plans(counts, self.dim, engines.wished(self._catalog))
        return any(plan.engine is not Engine.PLAIN for plan in plans.values())

    def write_cache(self, *, always: bool = False, sentences: Vectors | None = None) -> list[str]:
        """Write the matrix, and the indexes of what is large, anew where they are `outdated` (or
        `always`); what there is to say of it.

        An index is measured with what was asked and kept, and with captions, or `sentences` where
        these are few. The caller is the one writer. Raises DiskFull or StorageFailed; the library
        is then as searchable as before, as it is when this is cut off anywhere.
        """
        if not (always or self.outdated()):
            self._accept()
            self._remove_others()  # a run that was cut off before it did may be the last for long
            return []
        draft = self.draft(sentences)
        self.switch(draft)
        return draft.notes

    def announce(self) -> None:
        """Have a record that tells whether another cache was written while one is being made.
        The caller is the one writer.
        """
        if self._catalog.cache(self.id) is None:
            figures = {"size": 0, "inode": 0, "mtime_ns": 0, "ctime_ns": 0}
            with self._catalog.transaction():
                self._catalog.put_cache(
                    self.id, generation=0, file="", rows=0, last_id=0, sha256="", indexes="{}",
                    **figures,
                )  # fmt: skip

    def draft(self, sentences: Vectors | None = None, *, later: bool = False) -> Draft:
        """Write new files of the vectors of now, which nobody searches yet. `later`: the caller is
        not the one writer, who may write others of the same generation meanwhile. The catalog is
        only read, and only while the matrix is written. Raises as `write_cache` does.
        """
        with self._catalog.snapshot():
            record, wishes = self._catalog.cache(self.id), engines.wished(self._catalog)
            before = record["generation"] if record else 0
            count, last_id = self._catalog.count_vectors(self.id)
            counts = self._catalog.kinds_of_vectors(self.id)
            plans, why = engines.plans(counts, self.dim, wishes)
            half = any(plan.engine is not Engine.PLAIN for plan in plans.values())
            stem = f"space-{self.id}-{before + 1}{_LATER if later else ''}"
            path = str(self._cache / f"{stem}.matrix")
            try:
                self._cache.mkdir(mode=0o700, exist_ok=True)
                blocks = (
                    rows
                    for kind in counts
                    for rows in self._catalog.vectors_after(self.id, 0, kind)
                )
                sha256 = write_matrix(
                    path, blocks, count, self.dim, before + 1, last_id, self.fingerprint, half=half
                )
            except OSError as error:
                raise storage_error(error, path) from error
        try:
            files, notes = engines.build(
                str(self._cache / stem), open_matrix(path), plans, sentences, self.asked.rows()
            )
            figures = engines.figures(path)
        except OSError as error:
            raise storage_error(error, path) from error
        built = json.dumps({"wishes": asdict(wishes), "files": files})
        told = dict(
            generation=before + 1, file=f"{stem}.matrix", rows=count, last_id=last_id,
            sha256=sha256, indexes=built, **figures,
        )  # fmt: skip
        return Draft(before, told, later, [*filter(None, [why]), *notes])

    def switch(self, draft: Draft) -> bool:
        """Have these files searched from now on; False when others were written since the draft
        was begun. Vectors that were added since are searched beside them. The caller is the one
        writer.
        """
        with self._catalog.transaction():
            record = self._catalog.cache(self.id)
            if (record["generation"] if record else 0) != draft.before:
                return False
            self._catalog.put_cache(self.id, **draft.record)
        self._remove_others(later=draft.later)
        return True

    def _built_for(self, record: dict[str, Any] | None) -> engines.Wishes:
        built = json.loads(record["indexes"]) if record else {}
        return engines.Wishes(**built.get("wishes", {}))

    def drop_if_empty(self) -> None:
        """Forget this space, of an older model, when none of its vectors is left."""
        if self._catalog.count_vectors(self.id)[0] == 0:
            with self._catalog.transaction():
                self._catalog.drop_space(self.id)
            self._remove_others()
            self.asked.forget()

    def _accept(self) -> None:
        """Record the figures of files that were copied with their library: no more hashing."""
        record = self._record()
        if record:
            built = json.loads(record["indexes"])
            for mine in built.get("files", {}).values():
                mine.update(engines.figures(str(self._cache / mine["file"])))
            now = record | engines.figures(str(self._cache / record["file"]))
            if built != json.loads(record["indexes"]):
                now["indexes"] = json.dumps(built)
            if now != record:
                with self._catalog.transaction():
                    self._catalog.put_cache(**now)

    def _remove_others(self, *, later: bool = False) -> None:
        """Older generations and what an interrupted writer left. Readers keep their maps. What is
        built beside the one writer is left alone, but by who builds it himself.
        """
        record = self._catalog.cache(self.id)
        keep: set[str] = set()
        if record:
            built = json.loads(record["indexes"]).get("files", {}).values()
            keep = {record["file"], *(one["file"] for one in built)}
        with suppress(OSError):
            for name in os.listdir(self._cache):
                mine = name.startswith(f"space-{self.id}-") and (later or _LATER not in name)
                if mine and name not in keep:
                    os.unlink(self._cache / name)


def _quick(base: Matrix | None, index: IndexFile | None) -> Matrix | None:
    """Rows that every query is multiplied with, in single precision where they are few."""
    if base is None or index is not None or base.rows.vectors.dtype == np.float32:
        return base
    if len(base.rows.ids) > INDEX_FROM_ROWS:
        return base
    rows = replace(base.rows, vectors=base.rows.vectors.astype(np.float32))
    return replace(base, rows=rows)


def products(queries: Vectors, rows: Vectors) -> Scores:
    """(t, m) inner products, row by row: equal rows have equal ones wherever they lie."""
    if not len(rows):
        return np.empty((len(queries), 0), np.float32)
    return np.stack([(rows * query).sum(axis=1) for query in queries])


def _same(there: Rows, rows: Rows, old: NDArray[np.bool_]) -> bool:
    """Whether those of the catalog's rows that are `old` are among these, as they are."""
    at = np.searchsorted(there.ids, rows.ids[old]).clip(max=len(there.ids) - 1)
    pairs = (
        (there.ids, rows.ids),
        (there.vectors, rows.vectors),
        (there.kinds, rows.kinds),
        (there.hubness, rows.hubness),
    )
    return all(np.array_equal(mine[at], theirs[old]) for mine, theirs in pairs)


def _recorded(record: dict[str, Any]) -> dict[str, int]:
    return {key: record[key] for key in ("size", "inode", "mtime_ns", "ctime_ns")}
