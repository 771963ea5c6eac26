"""Gradients by chunks against the gradients of the whole batch."""

from __future__ import annotations

import weakref
from functools import partial

import pytest

torch = pytest.importorskip("torch")

from mmsearch.training.caching import cached_backward  # noqa: E402
from mmsearch.training.losses import InfoNCE, pairwise  # noqa: E402


def tower(seed, dropout=0.0):
    """(n, 5) -> (n, 4), with dropout twice."""
    torch.manual_seed(seed)
    drop = partial(torch.nn.Dropout, dropout)
    linear, tanh = torch.nn.Linear, torch.nn.Tanh
    return torch.nn.Sequential(linear(5, 16), tanh(), drop(), linear(16, 4), drop()).double()


@pytest.fixture
def batch():
    """Inputs of 7 photos and 12 captions, and their ids."""
    generator = torch.Generator().manual_seed(3)
    inputs = {
        "image": torch.randn(7, 5, generator=generator, dtype=torch.float64),
        "text": torch.randn(12, 5, generator=generator, dtype=torch.float64),
    }
    return inputs, {"image": torch.arange(7), "text": torch.arange(12) % 8}


def parameters(towers, loss):
    """All that learns, in one order."""
    modules = torch.nn.ModuleList([*towers.values(), loss])
    return list(modules.parameters())


@pytest.mark.parametrize("size", [1, 3, 12])
def test_gradients_by_chunks_are_those_of_the_whole_batch(batch, size):
    """Of every tower and of the temperature, added to what was there; the value too."""
    inputs, ids = batch
    results = []
    for by_chunks in (False, True):
        towers = {"image": tower(0), "text": tower(1)}
        loss = InfoNCE().double()
        for parameter in parameters(towers, loss):
            parameter.grad = torch.ones_like(parameter)
        if by_chunks:
            value = cached_backward(
                {name: [partial(towers[name], part) for part in inputs[name].split(size)]
                 for name in towers},
                lambda rows, loss=loss: pairwise(loss, rows, ids),
            )  # fmt: skip
            assert not value.requires_grad
        else:
            value = pairwise(loss, {name: towers[name](inputs[name]) for name in towers}, ids)
            value.backward()
        results.append((value.detach(), [p.grad for p in parameters(towers, loss)]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-12)


def test_dropout_drops_the_same_in_both_passes(batch):
    """Against one graph over all chunks from the same random state, which goes on from its end."""
    inputs, ids = batch

    def noisy(loss, rows):
        """A loss that draws random numbers, too."""
        rows = {name: part + 0.1 * torch.randn_like(part) for name, part in rows.items()}
        return pairwise(loss, rows, ids)

    results = []
    for by_chunks in (False, True):
        towers = {"image": tower(0, dropout=0.5), "text": tower(1, dropout=0.5)}
        loss = InfoNCE().double()
        chunks = {
            name: [partial(towers[name], part) for part in inputs[name].split(3)] for name in towers
        }
        torch.manual_seed(4)
        if by_chunks:
            cached_backward(chunks, partial(noisy, loss))
        else:
            rows = {name: torch.cat([embed() for embed in parts]) for name, parts in chunks.items()}
            noisy(loss, rows).backward()
        results.append(([p.grad for p in parameters(towers, loss)], torch.rand(3)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-12)
    assert sum(grad.norm() for grad in results[0][0]) > 0.1


class Chunk:
    """Stands for the graph of one chunk: everything that autograd saves for it holds on to it."""


def test_the_graph_of_one_chunk_lives_at_a_time(batch):
    """Counted by what autograd saves for it: 4 chunks of photos and 6 of captions."""
    inputs, ids = batch
    towers = {"image": tower(0), "text": tower(1)}
    living, peak, graphs = set(), 0, 0

    def watched(name, part):
        chunk = Chunk()
        number = id(chunk)
        weakref.finalize(chunk, living.discard, number)

        def pack(tensor):
            nonlocal peak, graphs
            graphs += number not in living
            living.add(number)
            peak = max(peak, len(living))
            return tensor, chunk

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda packed: packed[0]):
            return towers[name](part)

    chunks = {
        name: [partial(watched, name, part) for part in inputs[name].split(2)] for name in towers
    }
    cached_backward(chunks, lambda rows: pairwise(InfoNCE().double(), rows, ids))
    assert (peak, graphs, len(living)) == (1, 10, 0)

    rows = {name: torch.cat([embed() for embed in parts]) for name, parts in chunks.items()}
    assert peak == 10  # the same count sees all of them in a whole batch
    del rows


def test_a_frozen_tower_and_one_that_the_loss_leaves_out_are_no_error(batch):
    """The first gets no gradient, the other's captions have no pair with photos of other ids."""
    inputs, ids = batch
    towers = {"image": tower(0), "text": tower(1).requires_grad_(False)}
    chunks = {name: [partial(towers[name], inputs[name])] for name in towers}
    cached_backward(chunks, lambda rows: pairwise(InfoNCE().double(), rows, ids))
    assert all(p.grad is None for p in towers["text"].parameters())
    assert all(p.grad.any() for p in towers["image"].parameters())

    towers = {"image": tower(0), "text": tower(1)}
    chunks = {name: [partial(towers[name], inputs[name])] for name in towers}
    cached_backward(chunks, lambda rows: rows["image"].sum())
    assert all(p.grad is None for p in towers["text"].parameters())


def test_weights_cast_without_a_graph_lose_no_gradients(batch):
    """Under autocast around both passes, as around any training step."""
    inputs, ids = batch
    towers = {name: tower(i).float() for i, name in enumerate(inputs)}
    chunks = {
        name: [partial(towers[name], part) for part in inputs[name].float().split(3)]
        for name in towers
    }
    with torch.autocast("cpu", torch.bfloat16):
        cached_backward(chunks, lambda rows: pairwise(InfoNCE(), rows, ids))
    for module in towers.values():
        assert all(p.grad.any() for p in module.parameters())
