"""Codes of 4 bits: by value, against slow loops and FAISS's own."""

from __future__ import annotations

import numpy as np
import pytest

faiss = pytest.importorskip("faiss", reason="FAISS is not installed")


@pytest.mark.parametrize("dim, parts", [(32, 16), (6, 3), (30, 10), (32, 8)])
def test_a_code_names_the_nearest_centre_of_each_part_or_one_hardly_farther(dim, parts):
    """Slow loops over the 16 centres: the packed code's own is at most a cell's width farther."""
    from mmsearch.vectors.codebook import Codebook

    rng = np.random.default_rng(dim + parts)
    rows = rng.normal(size=(2000, dim)).astype(np.float32)
    book = Codebook(rows, parts)
    some = rows[:200]
    codes = book.codes(some)
    assert codes.shape == (200, (parts + 1) // 2)
    numbers = np.stack([codes & 15, codes >> 4], axis=2).reshape(200, -1)[:, :parts]
    size = dim // parts
    centres = faiss.vector_to_array(book.quantizer.centroids).reshape(parts, 16, size)
    width = np.ptp(rows, axis=0).max() / 64 * np.sqrt(size)
    same = 0
    for row, line in zip(some, numbers, strict=True):
        for part, number in enumerate(line):
            away = np.linalg.norm(centres[part] - row[part * size :][:size], axis=1)
            assert away[number] <= away.min() + width
            same += int(number == away.argmin())
    assert same >= 0.9 * numbers.size
    # as FAISS reads them
    decoded = book.quantizer.decode(codes)
    expected = np.concatenate([centres[p][numbers[:, p]] for p in range(parts)], axis=1)
    assert decoded == pytest.approx(expected)
