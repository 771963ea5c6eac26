"""Schema changes as numbered functions, never edited once released.

The number of the last one that ran is the schema version of a library, kept in SQLite's
user_version. `MARK` in application_id says that a database is ours at all.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, Table, inspect
from sqlalchemy.schema import CreateColumn

from mmsearch.catalog import keywords, tables

MARK = 0x6D6D7331  # "mms1"

Migration = Callable[[Connection], None]
MIGRATIONS: list[Migration] = []


def migration(function: Migration) -> Migration:
    """Register the next schema change."""
    MIGRATIONS.append(function)
    return function


@migration
def m001_begin(connection: Connection) -> None:
    """The first tables."""
    tables.metadata.create_all(connection)


@migration
def m002_parts_and_keywords(connection: Connection) -> None:
    """Windows of sounds, passages of texts. (The keywords came with it, which m004 makes anew.)"""
    tables.parts.create(connection, checkfirst=True)  # m001 makes a new library's
    for index in tables.contents.indexes:
        index.create(connection, checkfirst=True)


@migration
def m003_descriptions(connection: Connection) -> None:
    """What files say of themselves, captions, labels, and backgrounds of vectors."""
    _add_columns(connection, tables.contents)
    _add_columns(connection, tables.files)
    connection.exec_driver_sql("UPDATE contents SET described = 1 WHERE modality = 'text'")
    for table in (tables.captions, tables.labels, tables.backgrounds):
        table.create(connection, checkfirst=True)


@migration
def m004_keywords(connection: Connection) -> None:
    """Captions and labels among the keywords, and parts of words."""
    keywords.create(connection)


@migration
def m005_hubness(connection: Connection) -> None:
    """Of backgrounds the constants alone: the rest is worked out when it is asked for."""
    tables.backgrounds.drop(connection)
    tables.backgrounds.create(connection)


@migration
def m006_models(connection: Connection) -> None:
    """Of each space what opens its encoder, and what that reads."""
    _add_columns(connection, tables.spaces)


@migration
def m007_indexes(connection: Connection) -> None:
    """The index files beside a matrix."""
    _add_columns(connection, tables.caches)


def _add_columns(connection: Connection, table: Table) -> None:
    """Add what this table has not yet; m001 makes those of a new library."""
    there = {column["name"] for column in inspect(connection).get_columns(table.name)}
    for column in table.columns:
        if column.name not in there:
            made = CreateColumn(column).compile(dialect=connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {made}")


def schema_version(connection: Connection) -> int | None:
    """The version of this database, None when it is not a library of ours."""
    if connection.exec_driver_sql("PRAGMA application_id").scalar() != MARK:
        return None
    return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())


def migrate(connection: Connection, since: int) -> None:
    """Run what came after version `since`; the caller holds the one transaction."""
    for function in MIGRATIONS[since:]:
        function(connection)
    # PRAGMA takes no parameters; both are integers of our own
    connection.exec_driver_sql(f"PRAGMA application_id = {MARK}")
    connection.exec_driver_sql(f"PRAGMA user_version = {len(MIGRATIONS)}")
