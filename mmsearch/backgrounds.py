"""Hubness in a library: constants of its pictures, kept in the catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mmsearch import hubness
from mmsearch.catalog import Catalog
from mmsearch.encoders import Encoder
from mmsearch.relevance import SENTENCES
from mmsearch.space import Space

if TYPE_CHECKING:
    from mmsearch.records import Vectors

# All constants are worked out anew when more than this share of the pictures is without: until
# then those of new pictures alone, against the pictures that are there now.
GROWN = 0.2

_BLOCK = 4096  # pictures in memory at a time


def refresh(catalog: Catalog, space: Space, encoder: Encoder) -> bool:
    """Give every picture its constant; True when those of old ones changed: a cache has them too.

    Nothing happens for an encoder without sentences to compare with. The caller is the one
    writer. In blocks: a bank of fixed size, in time proportional to the pictures it is put to.
    """
    every, new = catalog.pictures(space.id)
    sentences = sentences_of(encoder)
    if not len(new) or sentences is None:
        return False
    step = -(-len(every) // hubness.SAMPLE)
    pictures = catalog.vectors_of(every[::step].tolist())[1]
    bank = hubness.bank(sentences, pictures)
    # what pictures have in common is no reason to rank them behind sounds and texts
    common = hubness.constants(pictures, bank).mean()
    anew = len(new) > GROWN * len(every)
    wanted = every if anew else new
    with catalog.transaction():
        for start in range(0, len(wanted), _BLOCK):
            ids, rows = catalog.vectors_of(wanted[start : start + _BLOCK].tolist())
            constants = hubness.constants(rows, bank) - common
            catalog.put_hubness(zip(ids.tolist(), constants.tolist(), strict=True))
        if anew:  # whatever happens before the cache is written, nobody reads the old ones
            catalog.outdate_cache(space.id)
    return anew


def sentences_of(encoder: Encoder) -> Vectors | None:
    """(s, dim) unit rows of sentences that could be said of anything, if the encoder has any."""
    if encoder.folder is None:
        return None
    try:
        rows: Vectors = np.load(encoder.folder / SENTENCES).astype(np.float32)
    except (OSError, ValueError):
        return None
    return rows
