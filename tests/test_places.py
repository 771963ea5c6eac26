"""Where keys stand, by a table or a search, as numpy's search alone says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.places import Places

KEYS = st.lists(st.integers(-20, 60), max_size=60)


@given(KEYS, st.lists(st.lists(st.integers(-30, 70), max_size=8), max_size=6))
def test_a_table_says_what_a_search_says(keys, asked):
    """Keys met several times, none, below all and above all: asked once, and again and again."""
    rising = np.sort(np.array(keys, np.int64))
    places = Places(rising)
    for wanted in (np.array(some, np.int64) for some in asked):
        first, last = places.spans(wanted)
        np.testing.assert_array_equal(first, np.searchsorted(rising, wanted, "left"))
        np.testing.assert_array_equal(last, np.searchsorted(rising, wanted, "right"))


@pytest.mark.parametrize(("step", "table"), [(1, True), (4, True), (5, False)])
def test_a_table_is_made_for_keys_that_lie_close(step, table):
    """Four numbers a key at most; and not before it has been searched for a while."""
    places = Places(np.arange(0, 800 * step, step))
    places.spans(np.arange(99))
    assert places._first is None
    places.spans(np.arange(1))
    assert (places._first is not None) == table
