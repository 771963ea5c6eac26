"""Large batches in small memory: gradient caching (Gao et al. 2021, arXiv 2101.06983).

The loss of a batch needs all rows at once, but no more than the rows: the graphs of the towers,
which hold nearly all of the memory, can be built and used up chunk by chunk. The price is a second
forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor


def cached_backward(
    chunks: Mapping[str, Sequence[Callable[[], Tensor]]],
    loss: Callable[[dict[str, Tensor]], Tensor],
) -> Tensor:
    """Backpropagate the loss of a whole batch with the graph of one chunk at a time.

    chunks: for each modality, functions that embed one chunk of its inputs, (n, dim) a chunk:

        info_nce = InfoNCE()
        cached_backward(
            {
                "image": [partial(image_tower, part) for part in pixels.split(32)],
                "text": [partial(text_tower, *parts) for parts in zip(ids.split(32), ...)],
            },
            lambda rows: pairwise(info_nce, rows, ids),
        )

    loss: from the rows of all chunks, (n_m, dim) of each modality m, to a scalar; with several
    processes it starts by ``gather``. Returns its value. Gradients are added to those of all
    parameters, as by ``backward()``, and equal those of the whole batch.

    Each function is called twice, with torch's random state as it was, so that dropout drops the
    same. What depends on a chunk's other rows, as batch norm does in training, knows the chunk
    only. The modules must not average gradients by themselves, as ``DistributedDataParallel`` does
    at each chunk: use ``average_gradients`` afterwards.
    """
    rows: dict[str, list[Tensor]] = {}
    states: dict[str, list[list[Tensor]]] = {}
    with torch.no_grad():
        for name, parts in chunks.items():
            rows[name], states[name] = [], []
            for embed in parts:
                states[name].append(_random_state())
                rows[name].append(embed())
    # Older torch would take the weights that it cast above, without a graph, for the second pass
    # too (pytorch issue 65766).
    torch.clear_autocast_cache()

    leaves = {name: torch.cat(parts).requires_grad_() for name, parts in rows.items()}
    value = loss(leaves)
    value.backward()  # type: ignore[no-untyped-call]

    after = _random_state()
    for name, parts in chunks.items():
        gradient = leaves[name].grad
        if gradient is None:  # the loss made no use of it
            continue
        pieces = torch.split(gradient, [len(part) for part in rows[name]])
        for embed, state, piece in zip(parts, states[name], pieces, strict=True):
            _set_random_state(state)
            again = embed()
            if again.requires_grad:  # else the tower is frozen
                again.backward(piece)  # type: ignore[no-untyped-call]
    _set_random_state(after)
    return value.detach()


def _random_state() -> list[Tensor]:
    """Of torch on the CPU and, where there is one, on the present GPU."""
    gpu = [torch.cuda.get_rng_state()] if torch.cuda.is_available() else []
    return [torch.get_rng_state(), *gpu]


def _set_random_state(state: list[Tensor]) -> None:
    torch.set_rng_state(state[0])
    for gpu in state[1:]:
        torch.cuda.set_rng_state(gpu)
