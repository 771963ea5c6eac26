"""The losses against the papers' formulas, written as slow loops."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from mmsearch.training import losses  # noqa: E402
from mmsearch.training.towers import LogitScale  # noqa: E402


def unit_rows(n, dim, seed):
    """Random unit rows, (n, dim)."""
    rows = torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return rows / rows.norm(dim=1, keepdim=True)


def slow_info_nce(first, second, scale, first_ids, second_ids):
    """Every pair that belongs together against the negatives of its row, in both directions."""

    def direction(rows, others, ids, other_ids):
        per_row = []
        for i, row in enumerate(rows):
            values = []
            for j, other in enumerate(others):
                if ids[i] != other_ids[j]:
                    continue
                own = math.exp(scale * float(row @ other))
                rest = sum(
                    math.exp(scale * float(row @ others[k]))
                    for k in range(len(others))
                    if other_ids[k] != ids[i]
                )
                values.append(-math.log(own / (own + rest)))
            if values:
                per_row.append(sum(values) / len(values))
        return sum(per_row) / len(per_row)

    there = direction(first, second, first_ids, second_ids)
    return (there + direction(second, first, second_ids, first_ids)) / 2


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_info_nce_with_one_positive_is_the_formula_of_the_paper(scale):
    """With pairs on the diagonal it is symmetric cross-entropy over all others."""
    first, second, ids = unit_rows(6, 8, 0), unit_rows(6, 8, 1), torch.arange(6)
    found = losses.info_nce(first, second, scale, ids, ids)
    assert found.item() == pytest.approx(slow_info_nce(first, second, scale, ids, ids))
    logits = scale * first @ second.T
    cross = torch.nn.functional.cross_entropy
    assert found.item() == pytest.approx((cross(logits, ids) + cross(logits.T, ids)).item() / 2)


def test_info_nce_with_several_positives_is_the_formula_of_its_docstring():
    """Photos with one, two and no captions, and a caption without a photo."""
    first, second = unit_rows(3, 5, 2), unit_rows(4, 5, 3)
    first_ids, second_ids = torch.tensor([7, 8, 9]), torch.tensor([7, 8, 7, 5])
    found = losses.info_nce(first, second, 10.0, first_ids, second_ids)
    expected = slow_info_nce(first, second, 10.0, first_ids.tolist(), second_ids.tolist())
    assert found.item() == pytest.approx(expected)


def test_captions_of_one_photo_are_never_negatives_of_each_other():
    """A second caption that lies as near as the first costs nothing."""
    photos = torch.eye(2, dtype=torch.float64)
    once = losses.info_nce(photos, photos, 5.0, torch.arange(2), torch.arange(2))
    twice = torch.cat([photos, photos])
    ids = torch.tensor([0, 1, 0, 1])
    # Text to photo is unchanged; photo to text has each negative twice.
    found = losses.info_nce(photos, twice, 5.0, torch.arange(2), ids)
    e = math.exp(5.0)
    assert once.item() == pytest.approx(math.log(1 + 1 / e))
    assert found.item() == pytest.approx((math.log(1 + 1 / e) + math.log(1 + 2 / e)) / 2)


def test_a_batch_of_one_photo_has_no_negatives_and_no_loss():
    """Five captions of the only photo: zero loss, and gradients that are numbers."""
    photo = unit_rows(1, 4, 4).requires_grad_()
    loss = losses.info_nce(photo, unit_rows(5, 4, 5), 20.0, torch.zeros(1), torch.zeros(5))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.isfinite(photo.grad).all()


def test_info_nce_has_the_gradient_of_its_value():
    """Against finite differences, with several positives."""
    first = unit_rows(3, 4, 6).requires_grad_()
    second = unit_rows(4, 4, 7).requires_grad_()
    ids = torch.tensor([0, 1, 0, 2])
    assert torch.autograd.gradcheck(
        lambda a, b: losses.info_nce(a, b, 3.0, torch.arange(3), ids), (first, second)
    )


def test_soft_cross_entropy_is_the_mean_of_loops():
    """Minus the sum of probability times logarithm of ours."""
    logits, targets = torch.tensor([[1.0, 2.0], [0.5, -1.0]]), torch.tensor([[0.3, 0.7], [1, 0]])
    expected = 0.0
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        total = sum(math.exp(value) for value in row)
        pairs = zip(target, row, strict=True)
        expected -= sum(p * math.log(math.exp(value) / total) for p, value in pairs) / 2
    assert losses.soft_cross_entropy(logits, targets).item() == pytest.approx(expected)


def test_similarity_is_zero_only_where_neighbourhoods_agree():
    """The same rows turned in space cost nothing; other rows cost something."""
    teacher = unit_rows(6, 5, 8).float()
    turn = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(9)))[0]
    assert losses.similarity(teacher @ turn, teacher, 10.0).item() == pytest.approx(0, abs=1e-5)
    assert losses.similarity(unit_rows(6, 5, 10).float(), teacher, 10.0).item() > 0.1


def test_synthetic_features_move_toward_their_class_and_stay_positive():
    """The push has the wanted length; what would be negative is cut, as by ReLU."""
    features = torch.tensor([[3.0, 4.0]])
    pushed = losses.synthetic_features(features, torch.tensor([[0.0, -2.0]]), torch.tensor([[0.6]]))
    assert pushed.tolist() == [pytest.approx([3.0, 1.0])]
    cut = losses.synthetic_features(features, torch.tensor([[0.0, -2.0]]), torch.tensor([[2.0]]))
    assert cut.tolist() == [[3.0, 0.0]]


def test_the_logit_scale_learns_below_its_maximum_and_is_clamped_there():
    """CLIP's rule: the scale never exceeds 100, and a clamped one may come back down."""
    scale = LogitScale(start=1 / 0.07)
    assert scale().item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        scale.logarithm.fill_(10.0)
    assert scale().item() == pytest.approx(100.0)
    low = LogitScale(start=20.0)
    low().backward()
    assert low.logarithm.grad.item() == pytest.approx(20.0)
