"""The directions of codes: products are kept, and what is left out is what queries see least."""

from __future__ import annotations

import numpy as np
import pytest
from test_index_file import clustered

from mmsearch.vectors.directions import coded, principal

pytestmark = pytest.mark.usefixtures("one_thread")

DIM = 32


@pytest.fixture(scope="module")
def drawn():
    """Rows about their mean, rows, and queries far from them that see few directions."""
    rng = np.random.default_rng(31)
    rows = clustered(rng, 4000, DIM)
    queries = rng.normal(size=(600, DIM)) * np.linspace(1, 0.02, DIM) ** 2 + 0.5
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    return rows - rows.mean(axis=0), rows, queries.astype(np.float32)


def weight(rows, queries):
    """The mean of q q' over both, half each, with a tenth of its mean in every direction."""
    moments = [
        sum(np.outer(each, each) for each in some.astype(np.float64)) for some in (rows, queries)
    ]
    mean = sum(moment / np.trace(moment) for moment in moments) / 2
    return mean + 0.1 * np.trace(mean) / DIM * np.eye(DIM)


def test_products_are_what_they_were_where_no_direction_is_left_out(drawn):
    left, rows, queries = drawn
    of_rows, of_queries = coded(left, rows, queries, 16, 2, DIM)
    assert of_rows.shape == (DIM, DIM)
    expected = queries @ left.T
    assert (queries @ of_queries) @ (left @ of_rows).T == pytest.approx(expected, abs=1e-5)


def test_what_is_left_out_moves_products_least(drawn):
    """The mean square of what products lose, over queries as weighed, is the sum of the least of
    the stretched rows' variances (Eckart and Young, 1936): a third less than
    what is lost without the directions in which the rows themselves vary least.
    """
    left, rows, queries = drawn
    of_rows, of_queries = coded(left, rows, queries, 4, 2, 1)
    assert of_rows.shape == (DIM, 8)
    w = weight(rows, queries)
    lost = left - (left @ of_rows) @ of_queries.T
    mean = np.einsum("nd,de,ne->", lost, w, lost) / len(left)
    root = np.linalg.cholesky(w)
    variances = np.linalg.eigvalsh(np.cov((left @ root).T, bias=True))
    assert mean == pytest.approx(variances[:-8].sum(), rel=1e-3)
    kept = principal(left)[1][:, :8]
    plain = left - (left @ kept) @ kept.T
    assert mean < 0.7 * np.einsum("nd,de,ne->", plain, w, plain) / len(left)


def test_every_part_holds_some_of_the_first_directions_and_some_of_the_last(drawn):
    """Variances fall to and fro: of 4 parts of 2, 0 goes with 7, 1 with 6, and so on."""
    left, rows, queries = drawn
    of_rows, _ = coded(left, rows, queries, 4, 2, 1)
    variances = (left @ of_rows).var(axis=0).reshape(4, 2)
    falling = np.sort(variances.ravel())[::-1]
    assert variances == pytest.approx(np.stack([falling[:4], falling[:3:-1]], axis=1))


def test_queries_too_few_to_tell_count_for_nothing(drawn):
    left, rows, queries = drawn
    alone = coded(left, rows, queries[:0], 4, 2, 1)[0]
    assert coded(left, rows, queries[: DIM - 1], 4, 2, 1)[0].tolist() == alone.tolist()
    assert coded(left, rows, queries[:DIM], 4, 2, 1)[0].tolist() != alone.tolist()


def test_rows_that_are_all_nought_have_directions_too():
    nothing = np.zeros((50, DIM), np.float32)
    of_rows, of_queries = coded(nothing, nothing, nothing[:0], 4, 2, 8)
    assert np.isfinite(of_rows).all()
    assert np.isfinite(of_queries).all()
