"""The tables of library.db, as the newest migration leaves them. indexes/README.md explains."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

metadata = MetaData()

_KINDS: dict[type, tuple[type, ...]] = {
    Integer: (int,), Float: (float, int), LargeBinary: (bytes,)
}  # fmt: skip

CAPTION = "caption"  # the format of a content that is the words of a caption


def _id() -> Column[int]:
    return Column("id", Integer, primary_key=True)


# A file or folder that was given to `mmsearch index`. `device` tells a mounted disk from
# the empty folder it was mounted on.
roots = Table(
    "roots",
    metadata,
    _id(),
    Column("path", LargeBinary, nullable=False, unique=True),
    Column("device", Integer, nullable=False),
    Column("added_at", Integer, nullable=False),
)

folders = Table(
    "folders",
    metadata,
    _id(),
    Column("path", LargeBinary, nullable=False, unique=True),
)

# What was read, known by its SHA-256. Copies share it, and so share its vectors. `described`
# is 0 where nobody has looked yet what the file says of itself: the columns before it.
contents = Table(
    "contents",
    metadata,
    _id(),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("modality", String, nullable=False),
    Column("format", String, nullable=False),
    Column("width", Integer),
    Column("height", Integer),
    Column("duration", Float),
    Column("taken", Integer),
    Column("taken_source", String),
    Column("camera", String),
    Column("lens", String),
    Column("iso", Integer),
    Column("latitude", Float),
    Column("longitude", Float),
    Column("described", Integer, nullable=False, server_default="0"),
    Index("contents_by_modality", "modality"),
    sqlite_autoincrement=True,
)

# The windows of a sound with their seconds, the passages of a text with their words; a
# picture is whole and has none. Every file with this content has an item for each.
parts = Table(
    "parts",
    metadata,
    Column("content_id", ForeignKey("contents.id", ondelete="CASCADE"), primary_key=True),
    Column("part", Integer, primary_key=True),
    Column("start", Float),
    Column("end", Float),
    Column("text", String),
    sqlite_with_rowid=False,
)

# Every file seen, the skipped and the failed too, so that they are not opened again until
# they change. Exactly one of content_id and reason is set. gone_at: seen before, not now.
# sidecars: a number made of the names and states of the files that caption this one, 0 for none.
files = Table(
    "files",
    metadata,
    _id(),
    Column("folder_id", ForeignKey("folders.id"), nullable=False),
    Column("name", LargeBinary, nullable=False),
    Column("size", Integer, nullable=False),
    Column("mtime_ns", Integer, nullable=False),
    Column("inode", Integer, nullable=False),
    Column("content_id", ForeignKey("contents.id")),
    Column("reason", String),
    Column("message", String),
    Column("gone_at", Integer),
    Column("added_at", Integer, nullable=False),
    Column("sidecars", Integer, nullable=False, server_default="0"),
    UniqueConstraint("folder_id", "name"),
    Index("files_by_content", "content_id"),
    Index("files_by_size", "size"),
    sqlite_autoincrement=True,
)

# What can be found: a picture is one item, a long sound or text is several.
items = Table(
    "items",
    metadata,
    _id(),
    Column("file_id", ForeignKey("files.id", ondelete="CASCADE"), nullable=False),
    Column("part", Integer, nullable=False),
    Column("modality", String, nullable=False),
    Column("start", Float),
    Column("end", Float),
    UniqueConstraint("file_id", "part"),
    sqlite_autoincrement=True,
)

# What is said of a file: the words are a content of their own, of the format "caption", which
# has a vector but no file and no item. source: see records.Caption.
captions = Table(
    "captions",
    metadata,
    _id(),
    Column("file_id", ForeignKey("files.id", ondelete="CASCADE"), nullable=False),
    Column("content_id", ForeignKey("contents.id"), nullable=False),
    Column("source", String, nullable=False),
    UniqueConstraint("file_id", "content_id", "source"),
    Index("captions_by_content", "content_id"),
)

# The labels that a content was given, of a vocabulary that the user named.
labels = Table(
    "labels",
    metadata,
    Column("content_id", ForeignKey("contents.id", ondelete="CASCADE"), primary_key=True),
    Column("label", String, primary_key=True),
    Column("relevance", Float, nullable=False),
    Index("labels_by_label", "label"),
    sqlite_with_rowid=False,
)

# One encoder: its vectors compare with one another and with no others. model: what opens it (a
# name, or the folder of a training run), and modalities: what it reads, a word each; both are
# empty where an older mmsearch began the space.
spaces = Table(
    "spaces",
    metadata,
    _id(),
    Column("name", String, nullable=False),
    Column("fingerprint", String, nullable=False, unique=True),
    Column("dim", Integer, nullable=False),
    Column("model", String, nullable=False, server_default=""),
    Column("modalities", String, nullable=False, server_default=""),
)

# float16 little-endian unit rows with their CRC-32. Ids only grow (AUTOINCREMENT): a cache
# that lags can then never give an old row's id to a new one.
vectors = Table(
    "vectors",
    metadata,
    _id(),
    Column("space_id", ForeignKey("spaces.id"), nullable=False),
    Column("content_id", ForeignKey("contents.id", ondelete="CASCADE"), nullable=False),
    Column("part", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("crc", Integer, nullable=False),
    UniqueConstraint("content_id", "space_id", "part"),
    sqlite_autoincrement=True,
)

# What is taken off a picture's scores with words, where it lies near whatever is asked.
backgrounds = Table(
    "backgrounds",
    metadata,
    Column("vector_id", ForeignKey("vectors.id", ondelete="CASCADE"), primary_key=True),
    Column("hubness", Float, nullable=False),
)

# The one matrix file of a space that may be searched, as it was when it was written, and in
# `indexes` (JSON) the index files beside it.
caches = Table(
    "caches",
    metadata,
    Column("space_id", ForeignKey("spaces.id"), primary_key=True),
    Column("generation", Integer, nullable=False),
    Column("file", String, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("last_id", Integer, nullable=False),
    Column("sha256", String, nullable=False),
    Column("size", Integer, nullable=False),
    Column("inode", Integer, nullable=False),
    Column("mtime_ns", Integer, nullable=False),
    Column("ctime_ns", Integer, nullable=False),
    Column("indexes", String, nullable=False, server_default="{}"),
)

settings = Table(
    "settings",
    metadata,
    Column("key", String, primary_key=True),
    Column("value", String, nullable=False),
)


def fits(column: Any, value: Any) -> bool:
    """Whether a column can hold this value."""
    if value is None:
        return bool(column.nullable) or column.table.primary_key.columns.keys() == [column.name]
    kinds = next((k for kind, k in _KINDS.items() if isinstance(column.type, kind)), (str,))
    if not isinstance(value, kinds):
        return False
    return not isinstance(value, str) or not any("\udc80" <= sign <= "\udcff" for sign in value)
