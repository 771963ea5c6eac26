"""ONNX Runtime's operators, as they are called here, against numpy's."""

from __future__ import annotations

import numpy as np
import pytest

from mmsearch.vectors.kernels import multiplied, products_at, singles


@pytest.mark.parametrize("at_once", [2**21, 999])
def test_every_half_becomes_the_single_that_numpy_makes_of_it(monkeypatch, at_once):
    """To the bit, in one piece or many: both zeros, subnormals, the greatest, infinity."""
    monkeypatch.setattr("mmsearch.vectors.kernels._AT_ONCE", at_once)
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[~np.isnan(halves)].reshape(-1, 2)
    assert singles(halves).view(np.int32).tolist() == (
        halves.astype(np.float32).view(np.int32).tolist()
    )
    assert singles(halves[::3]).tolist() == halves[::3].astype(np.float32).tolist()
    whole = halves.astype(np.float32)
    assert singles(whole) is whole


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_products_with_rows_at_positions(kind):
    """Each query with its own rows, some of them more than once."""
    rng = np.random.default_rng(41)
    rows, queries = rng.normal(size=(50, 24)).astype(kind), rng.normal(size=(7, 24))
    positions = rng.integers(0, 50, (7, 13))
    expected = [
        [float(rows[place].astype(np.float64) @ query) for place in line]
        for line, query in zip(positions, queries, strict=True)
    ]
    found = products_at(rows, queries.astype(np.float32), positions)
    assert found == pytest.approx(np.array(expected), abs=1e-5)


@pytest.mark.parametrize("before", [(), (6,)])
def test_products_of_bytes_are_those_of_whole_numbers(before):
    """The greatest bytes with the greatest signed ones too, where narrow sums would overflow."""
    rng = np.random.default_rng(42)
    rows = rng.integers(0, 256, (*before, 9, 40)).astype(np.uint8)
    queries = rng.integers(-127, 128, (*before, 40, 5)).astype(np.int8)
    rows[..., 0, :], queries[..., 0] = 255, 127
    expected = rows.astype(np.int64) @ queries.astype(np.int64)
    assert multiplied(rows, queries).tolist() == expected.tolist()
