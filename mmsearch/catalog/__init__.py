"""The catalog: which files were seen, what they hold, and every vector. The truth."""

from mmsearch.catalog.catalog import Catalog, Content, Known, Match
from mmsearch.catalog.tables import metadata

__all__ = ["Catalog", "Content", "Known", "Match", "metadata"]
