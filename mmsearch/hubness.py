"""Hubs: pictures that lie near every query, and what to take off their scores.

Nearest Neighbor Normalization (arXiv 2410.24114) takes from an item's score a share of the mean of
its highest scores against a bank of reference queries. The bank is made here, not collected: the
library's own pictures, moved over half of the gap between the modalities, towards words about
them, and sentences that could be said of anything. Share and counts were chosen on the dev photos
of Flickr8k, with COCO and names of classes to lose nothing by (benchmarks/relevance.py). For words
that look for pictures alone: the other way, and between pictures, the correction hurts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mmsearch.records import Vectors

SHARE = 0.2  # of the mean, that is taken off
GAP = 0.5  # of the way from pictures to sentences, that pictures are moved
NEAREST = 8  # reference queries that the mean is of
SAMPLE = 2048  # of the library's own pictures, at most, that become reference queries
_BLOCK = 4096  # items whose scores with the bank are in memory at a time


def bank(sentences: Vectors, pictures: Vectors) -> Vectors:
    """The reference queries of a library, as unit rows: (s + p, dim) of (s, dim) and (p, dim).

    The gap between the modalities is the difference of their means (arXiv 2203.02053).
    """
    if not len(pictures):
        return sentences
    moved = pictures + GAP * (sentences.mean(axis=0) - pictures.mean(axis=0))
    lengths = np.linalg.norm(moved, axis=1, keepdims=True)
    return np.concatenate([sentences, moved / np.maximum(lengths, 1e-6)])


def constants(items: Vectors, bank: Vectors) -> Vectors:
    """What each of (n, dim) items scores too much against a bank of (m, dim) queries: (n,).

    As little memory as a block needs, and time in proportion to n.
    """
    most = min(NEAREST, len(bank))
    found = np.empty(len(items), np.float32)
    for start in range(0, len(items), _BLOCK):
        scores = items[start : start + _BLOCK] @ bank.T
        highest = np.partition(scores, len(bank) - most, axis=1)[:, len(bank) - most :]
        found[start : start + _BLOCK] = SHARE * highest.mean(axis=1)
    return found
