"""The losses against the papers' formulas, written as slow loops."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

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
                values.append(math.log1p(rest / own))  # is -log(own / (own + rest))
            if values:
                per_row.append(sum(values) / len(values))
        return sum(per_row) / max(len(per_row), 1)

    there = direction(first, second, first_ids, second_ids)
    return (there + direction(second, first, second_ids, first_ids)) / 2


def slow_sigmoid(first, second, scale, bias, first_ids, second_ids):
    """Every pair as a yes or a no, over the batch size of either side."""
    total = 0.0
    for i, row in enumerate(first):
        for j, other in enumerate(second):
            z = 1 if first_ids[i] == second_ids[j] else -1
            total += math.log1p(math.exp(-z * (scale * float(row @ other) + bias)))
    return (total / len(first) + total / len(second)) / 2


@st.composite
def batches(draw):
    """(first, second, first_ids, second_ids): up to 6 rows a side of 1 to 4 items."""
    dim = draw(st.integers(1, 8))
    seed = draw(st.integers(0, 99))
    ids = st.lists(st.integers(0, draw(st.integers(0, 3))), min_size=1, max_size=6)
    first_ids, second_ids = draw(ids), draw(ids)
    first, second = unit_rows(len(first_ids), dim, seed), unit_rows(len(second_ids), dim, seed + 1)
    return first, second, torch.tensor(first_ids), torch.tensor(second_ids)


NEARLY_LEARNT = (
    torch.tensor([[1.0], [-1.0]]).double(), torch.tensor([[1.0], [-1.0]]).double(),
    torch.tensor([0, 1]), torch.tensor([0, 1]),
)  # fmt: skip


@settings(deadline=None)
@example(NEARLY_LEARNT, 20.0)
@given(batches(), st.floats(0.1, 100.0))
def test_info_nce_is_its_formula_for_any_sizes_and_ids(batch, scale):
    """To nine digits, however small."""
    first, second, first_ids, second_ids = batch
    found = losses.info_nce(first, second, scale, first_ids, second_ids).item()
    expected = slow_info_nce(first, second, scale, first_ids.tolist(), second_ids.tolist())
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-50)


@settings(deadline=None)
@given(batches(), st.floats(0.1, 100.0), st.floats(-20.0, 5.0))
def test_the_sigmoid_loss_is_its_formula_for_any_sizes_and_ids(batch, scale, bias):
    """Every row of an item's own is a yes, all others are a no."""
    first, second, first_ids, second_ids = batch
    found = losses.sigmoid_loss(first, second, scale, bias, first_ids, second_ids).item()
    expected = slow_sigmoid(first, second, scale, bias, first_ids.tolist(), second_ids.tolist())
    assert found == pytest.approx(expected, rel=1e-8)


@settings(deadline=None)
@given(batches())
def test_swapping_the_sides_changes_nothing(batch):
    """Both losses are symmetric."""
    first, second, first_ids, second_ids = batch
    for loss in (losses.InfoNCE().double(), losses.Sigmoid().double()):
        there = loss(first, second, first_ids, second_ids).item()
        assert loss(second, first, second_ids, first_ids).item() == pytest.approx(there)


@pytest.fixture(scope="module")
def open_clip_losses():
    """open_clip's module of losses, without the seconds that importing all of open_clip takes."""
    package = importlib.util.find_spec("open_clip")
    if package is None:
        pytest.skip("open_clip is not installed")
    path = Path(package.origin).with_name("loss.py")
    spec = importlib.util.spec_from_file_location("open_clip_loss", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", ["ClipLoss", "SigLipLoss"])
def test_with_one_positive_each_both_losses_are_open_clips(open_clip_losses, kind):
    """Values, and the gradients of rows, temperature and bias."""
    ids = torch.arange(7)
    values, gradients = [], []
    for theirs in (False, True):
        first, second = unit_rows(7, 5, 11).requires_grad_(), unit_rows(7, 5, 12).requires_grad_()
        scale = torch.tensor(12.0, dtype=torch.float64, requires_grad=True)
        bias = torch.tensor(-4.0, dtype=torch.float64, requires_grad=True)
        if theirs:
            constants = (scale,) if kind == "ClipLoss" else (scale, bias)
            loss = getattr(open_clip_losses, kind)()(first, second, *constants)
        elif kind == "ClipLoss":
            loss = losses.info_nce(first, second, scale, ids, ids)
        else:
            loss = losses.sigmoid_loss(first, second, scale, bias, ids, ids)
        loss.backward()
        values.append(loss.item())
        gradients.append([t.grad for t in (first, second, scale, bias) if t.grad is not None])
    assert values[0] == pytest.approx(values[1], rel=1e-12)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-14)
    assert len(gradients[0]) == (3 if kind == "ClipLoss" else 4)


def three_modalities():
    """Photos 0 to 2 with captions in two languages, and sounds of which one belongs to a photo."""
    ids = {
        "image": torch.tensor([0, 1, 2]),
        "english": torch.tensor([0, 0, 1, 2, 5]),
        "chinese": torch.tensor([1, 2, 2]),
        "audio": torch.tensor([5, 2]),
    }
    rows = {name: unit_rows(len(ids[name]), 6, 20 + i) for i, name in enumerate(ids)}
    return rows, ids


def test_pairwise_is_the_sum_over_all_pairs_of_modalities():
    """Image-English, image-Chinese, image-audio, English-Chinese, English-audio, Chinese-audio."""
    rows, ids = three_modalities()
    loss = losses.InfoNCE(start=9.0).double()
    expected = sum(
        slow_info_nce(rows[a], rows[b], 9.0, ids[a].tolist(), ids[b].tolist())
        for a, b in [
            ("image", "english"), ("image", "chinese"), ("image", "audio"),
            ("english", "chinese"), ("english", "audio"), ("chinese", "audio"),
        ]
    )  # fmt: skip
    assert losses.pairwise(loss, rows, ids).item() == pytest.approx(expected)


def test_pairwise_weighs_pairs_by_their_names_in_either_order():
    """One pair counts double, one not at all, the others once."""
    rows, ids = three_modalities()
    rows = {name: rows[name] for name in ("image", "english", "audio")}
    loss = losses.Sigmoid().double()

    def one(a, b):
        return slow_sigmoid(rows[a], rows[b], 10.0, -10.0, ids[a].tolist(), ids[b].tolist())

    weights = {("english", "image"): 2.0, ("image", "audio"): 0.0}
    expected = 2 * one("image", "english") + one("english", "audio")
    assert losses.pairwise(loss, rows, ids, weights).item() == pytest.approx(expected)


def test_modalities_without_a_common_id_are_no_pair():
    """They are not pushed apart, but have a gradient: zeros."""
    photos, sounds = unit_rows(3, 4, 30).requires_grad_(), unit_rows(2, 4, 31).requires_grad_()
    ids = {"image": torch.tensor([0, 1, 2]), "audio": torch.tensor([3, 4])}
    for loss in (losses.InfoNCE(), losses.Sigmoid()):
        value = losses.pairwise(loss, {"image": photos, "audio": sounds}, ids)
        value.backward()
        assert value.item() == 0.0
    assert not photos.grad.any()
    assert not sounds.grad.any()


def test_temperature_and_bias_of_the_sigmoid_loss_learn():
    """They start where SigLIP's do; a lone pair, half believed, raises both."""
    loss = losses.Sigmoid()
    assert loss.scale().item() == pytest.approx(10.0)
    assert loss.bias.item() == -10.0
    row, ids = torch.tensor([[1.0, 0.0]]), torch.zeros(1)
    value = loss(row, row, ids, ids)
    value.backward()
    assert value.item() == pytest.approx(math.log(2))
    assert loss.bias.grad.item() == pytest.approx(-0.5)
    assert loss.scale.logarithm.grad.item() == pytest.approx(-0.5 * 10)


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
