"""The catalog: which files were seen, what they hold, and every vector. The truth."""

from mmsearch.catalog.catalog import Catalog
from mmsearch.catalog.contents import Content, Part
from mmsearch.catalog.files import Known
from mmsearch.catalog.keywords import Phrases
from mmsearch.catalog.salvage import Salvaged
from mmsearch.catalog.spaces import Missing
from mmsearch.catalog.standing import Matches, Standing
from mmsearch.catalog.tables import metadata

__all__ = [
    "Catalog", "Content", "Known", "Matches", "Missing", "Part", "Phrases", "Salvaged", "Standing",
    "metadata",
]  # fmt: skip
