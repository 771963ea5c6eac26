"""The fusion of an item's modalities by hand arithmetic, and in a small training run."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from mmsearch.errors import UsageError  # noqa: E402
from mmsearch.training.fusion import Fusion  # noqa: E402
from mmsearch.training.losses import InfoNCE, pairwise  # noqa: E402

normalize = torch.nn.functional.normalize


@pytest.fixture
def by_hand():
    """A fusion whose every weight is known: A = [1 1 0; 2 0 1], B = [2 1 0], b = -1, C = (3, 0)."""
    fusion = Fusion({"image": 1, "text": 2}, dim=2, hidden=1)
    with torch.no_grad():
        fusion.head.linear.weight.copy_(torch.tensor([[1.0, 1.0, 0.0], [2.0, 0.0, 1.0]]))
        fusion.head.hidden.weight.copy_(torch.tensor([[2.0, 1.0, 0.0]]))
        fusion.head.hidden.bias.fill_(-1.0)
        fusion.head.output.weight.copy_(torch.tensor([[3.0], [0.0]]))
    return fusion


def unit(x, y):
    """(x, y) scaled to length 1."""
    return pytest.approx([x / math.hypot(x, y), y / math.hypot(x, y)], rel=1e-6)


GELU_OF_1 = 0.8413447460685429  # 1 times the normal distribution below 1


def test_a_fusion_is_the_formula_of_its_docstring(by_hand):
    """Both modalities, then each alone."""
    image, text = torch.tensor([[0.5]]), torch.tensor([[1.0, -3.0]])
    # A x = (0.5 + 1, 1 - 3); B x + b = 1 + 1 - 1
    assert by_hand({"image": image, "text": text})[0].tolist() == unit(1.5 + 3 * GELU_OF_1, -2.0)
    # A x = (1, 2); B x + b = 2 - 1
    assert by_hand({"image": 2 * image})[0].tolist() == unit(1 + 3 * GELU_OF_1, 2.0)
    # A x = (2, -6); B x + b = 2 - 1
    assert by_hand({"text": 2 * text})[0].tolist() == unit(2 + 3 * GELU_OF_1, -6.0)


def test_a_modality_that_some_items_lack_is_left_out_of_their_sums(by_hand):
    """Whatever stands in its place, NaN too, and in the gradients as well."""
    image, text = torch.tensor([[0.5], [math.nan], [1.0]]), torch.tensor([[1.0, -3.0]] * 3)
    present = {
        "image": torch.tensor([True, False, True]),
        "text": torch.tensor([True, True, False]),
    }
    fused = by_hand({"image": image, "text": text}, present)
    alone = [
        by_hand({"image": image[:1], "text": text[:1]}),
        by_hand({"text": text[1:2]}),
        by_hand({"image": image[2:]}),
    ]
    torch.testing.assert_close(fused, torch.cat(alone))
    fused[:, 0].sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in by_hand.parameters())


def test_an_untrained_fusion_of_one_space_is_the_mean():
    """Whoever trains it starts from there; a modality of another width starts at random."""
    torch.manual_seed(0)
    rows = {name: normalize(torch.randn(5, 4), dim=1) for name in ("image", "text")}
    fusion = Fusion({"image": 4, "text": 4}, dim=4)
    mean = normalize((rows["image"] + rows["text"]) / 2, dim=1)
    torch.testing.assert_close(fusion(rows), mean)
    assert fusion({"text": rows["text"]}).tolist() == [
        pytest.approx(row, abs=1e-6) for row in rows["text"].tolist()
    ]
    wide = Fusion({"image": 4, "sound": 6}, dim=4)
    torch.testing.assert_close(wide({"image": rows["image"]}), rows["image"])
    assert wide({"sound": torch.randn(3, 6)}).norm(dim=1).tolist() == pytest.approx([1.0] * 3)


@pytest.mark.parametrize("rows", [{}, {"sound": torch.ones(1, 4)}], ids=["none", "another"])
def test_modalities_it_was_not_made_for_are_refused(rows):
    """The message has both sides."""
    fusion = Fusion({"image": 4, "text": 4}, dim=4)
    with pytest.raises(UsageError, match=r"takes \['image', 'text'\], not \[.*\]"):
        fusion(rows)


def items(count, seed):
    """Pictures, captions and queries of items that differ in 8 of 32 dimensions, (count, 32) each.

    All three are the item and a little noise, but the picture of every second item is noise alone.
    """
    random = torch.Generator().manual_seed(seed)
    turned = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(7)))[0]
    item = torch.randn(count, 8, generator=random) @ turned[:8]
    image, text, query = (
        normalize(item + 0.3 * torch.randn(count, 32, generator=random), dim=1) for _ in range(3)
    )
    image[::2] = normalize(torch.randn(count, 32, generator=random), dim=1)[::2]
    return {"image": image, "text": text}, query


def recall(rows, queries):
    """The share of queries whose own row is the nearest of all."""
    return ((queries @ rows.T).argmax(1) == torch.arange(len(queries))).double().mean().item()


def test_a_trained_fusion_beats_the_mean_where_half_of_the_pictures_are_noise():
    """On items it has not seen; and it beats the captions alone, so it does use the pictures."""
    torch.manual_seed(0)
    fusion, loss = Fusion({"image": 32, "text": 32}, dim=32, hidden=64), InfoNCE(start=20.0)
    optimizer = torch.optim.Adam([*fusion.parameters(), *loss.parameters()], lr=3e-3)
    rows, queries = items(2048, seed=1)
    for _ in range(150):
        batch = torch.randperm(2048)[:256]
        item = fusion({name: part[batch] for name, part in rows.items()})
        value = pairwise(
            loss, {"item": item, "query": queries[batch]}, {"item": batch, "query": batch}
        )
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    rows, queries = items(300, seed=2)
    mean = normalize(rows["image"] + rows["text"], dim=1)
    with torch.no_grad():
        fused = recall(fusion(rows), queries)
    # 0.74, 0.45 and 0.65 where this was written
    assert fused > recall(mean, queries) + 0.2
    assert fused > recall(rows["text"], queries) + 0.03
