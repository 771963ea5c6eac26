"""A library's folder: its catalog for its readers, one at a time, and for the one writer."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from mmsearch.catalog import Catalog
from mmsearch.catalog.connection import damaged
from mmsearch.durable import make_folders, storage_error, sync_folder
from mmsearch.errors import (
    LibraryDamaged,
    LibraryError,
    LibraryMissing,
    MmsearchError,
    SchemaMismatch,
    StorageFailed,
)
from mmsearch.locking import WriterLock
from mmsearch.spaces import Spaces, find_spaces


class Access:
    """What was opened for reading stays open until it is closed, or another library.db is there.

    `models` are those that are asked for (none: what the library has), `usual` that of a new one.
    """

    def __init__(self, folder: Path, models: Sequence[str], usual: str) -> None:
        self.folder, self.models, self._usual = folder, models, usual
        self.database = folder / "library.db"
        self._reader: tuple[Catalog, Spaces] | None = None
        self._version = -1  # of the catalog when its spaces were looked up last, and these
        self._rows: list[tuple[int, str, str, int]] = []
        self._reader_of: tuple[int, int] | None = None  # device and inode of library.db
        self._guard = threading.RLock()

    def spaces(self, catalog: Catalog) -> Spaces:
        """The spaces to ask. Raises EncoderMismatch, LibraryMissing."""
        return find_spaces(catalog, self.folder, self.models, self._usual)

    @contextmanager
    def writing(self, *, make: bool = False) -> Iterator[Catalog]:
        """The catalog for the one writer; where there is none, it is made, or (not `make`) missed.

        Raises LibraryLocked beside another writer, LibraryMissing.
        """
        if make:
            self._make_folder()
        elif not self.database.exists():
            raise LibraryMissing.at(self.folder)
        with WriterLock(self.folder / "LOCK"), self._open_for_writing() as catalog:
            yield catalog

    def _make_folder(self) -> None:
        try:
            above = make_folders(str(self.folder.parent))
            self.folder.mkdir(mode=0o700, exist_ok=True)
            if not self.database.exists():  # or a power cut may take the folder and all in it
                for folder in (str(self.folder.parent), *above):
                    sync_folder(folder)
        except OSError as error:
            raise storage_error(error, self.folder) from error

    def _open_for_writing(self) -> Catalog:
        if self.database.exists():
            return Catalog.open(self.database, write=True)
        return Catalog.create(self.database)

    @contextmanager
    def looking(self) -> Iterator[Catalog]:
        """The catalog for a run that writes nothing; an empty one where there is none."""
        if self.database.exists():
            with Catalog.open(self.database) as catalog:
                yield catalog
            return
        with (
            TemporaryDirectory(prefix="mmsearch-") as folder,
            Catalog.create(Path(folder) / "library.db") as catalog,
        ):
            yield catalog

    def open_catalog(self) -> Catalog:
        """The catalog to read, its schema first brought up to date where we may write."""
        try:
            return Catalog.open(self.database)
        except SchemaMismatch:
            # where that fails, opening it once more says what is wrong
            with suppress(LibraryError), WriterLock(self.folder / "LOCK"):
                Catalog.open(self.database, write=True).close()
            return Catalog.open(self.database)

    @contextmanager
    def reading(self) -> Iterator[tuple[Catalog, Spaces]]:
        """The catalog and its spaces for one reader at a time; after an error, opened anew."""
        with self._guard:
            try:
                yield self._read()
            except (StorageFailed, LibraryDamaged):
                self.close()
                raise
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                self.close()
                if not isinstance(error, MmsearchError) and (found := self._damage()):
                    raise LibraryDamaged(damaged(self.database, found)) from error
                raise

    def close(self) -> None:
        """Let go of the files. They may be opened again."""
        with self._guard:
            if self._reader:
                self._reader[0].close()
            self._reader = self._reader_of = None

    def _damage(self) -> str:
        """The first thing that is wrong with the database, where rows made no sense."""
        from mmsearch import checking  # a query has no need of it

        with Catalog.open(self.database) as catalog, catalog.snapshot():
            return next(iter(checking.database(catalog, quick=False)), "")

    def _read(self) -> tuple[Catalog, Spaces]:
        """The catalog and its spaces, opened again when another library.db took the place."""
        try:
            status = os.stat(self.database)
        except OSError as error:
            self.close()
            raise LibraryMissing.at(self.folder) from error
        here = (status.st_dev, status.st_ino)
        if self._reader is not None and self._reader_of == here:
            catalog, version = self._reader[0], self._reader[0].data_version()
            # another process may have begun a space, or dropped one
            if version == self._version or catalog.spaces() == self._rows:
                self._version = version
                return self._reader
        self.close()
        catalog = self.open_catalog()
        try:
            spaces = self.spaces(catalog)
        except BaseException:
            catalog.close()
            raise
        self._reader, self._reader_of = (catalog, spaces), here
        self._version, self._rows = catalog.data_version(), catalog.spaces()
        return self._reader
