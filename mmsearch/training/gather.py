"""One batch spread over several processes, as one: rows of all of them, with gradients.

Each process embeds its share, ``gather`` puts the shares together, and every process computes the
same loss of the whole batch. Who multiplies and divides by what? With P processes:

- A process has a graph of its own rows alone, and gets their part of the whole batch's gradient.
  ``gather`` multiplies it by P on its way back.
- Averaging over processes, as ``DistributedDataParallel`` or ``average_gradients`` do, sums the
  parts and divides by P. The towers' gradients are then those of one process with the whole batch.
- The temperature, and whatever else comes after ``gather``, has the whole gradient in every
  process; the average of P equal numbers leaves it as it is.

So nothing is to be scaled by hand, however uneven the shares are, and nothing is exchanged in the
backward pass but what is averaged. All this holds for losses of what ``gather`` returns: a loss of
a process's own rows, once averaged, is a mean of means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, distributed

from mmsearch.errors import UsageError


def gather(
    rows: Mapping[str, Tensor], ids: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The rows and ids of all processes, in order of process, with gradients.

    rows: (n_m, dim) of each modality m; ids: (n_m,) integers, equal for what belongs together on
    whichever process. Shares may differ in size, and a modality may be absent from some: all that
    is needed is one modality, of no rows if need be, so that dim is known. In a single process
    everything is returned as it came. All processes must call this together.

    Raises UsageError, in all processes, where their rows are of different dim.
    """
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return dict(rows), dict(ids)
    here = torch.cat(list(rows.values()))  # one tensor, so that one exchange serves all modalities
    counts = [(name, len(tensor)) for name, tensor in rows.items()]
    shares: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(shares, ((here.shape[1], str(here.dtype)), counts))
    kinds = [kind for kind, _ in shares]
    if len(set(kinds)) > 1:
        raise UsageError(f"rows of one dim and type are wanted; the processes hold {kinds}")

    sizes = [sum(count for _, count in counts) for _, counts in shares]
    row_parts = _gathered(here.detach(), sizes)
    row_parts[distributed.get_rank()] = here
    if here.requires_grad:
        here.register_hook(lambda part: part * len(shares))  # type: ignore[no-untyped-call]
    id_parts = _gathered(torch.cat([ids[name] for name in rows]), sizes)
    order = [entry for _, counts in shares for entry in counts]
    return _by_modality(torch.cat(row_parts), order), _by_modality(torch.cat(id_parts), order)


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace each gradient by its mean over all processes; one that is missing counts as zero.

    For modules that are not wrapped in ``DistributedDataParallel``. All processes must call this
    together, with the same parameters.
    """
    if not distributed.is_initialized():
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        distributed.all_reduce(parameter.grad)
        parameter.grad /= distributed.get_world_size()


def _gathered(here: Tensor, sizes: list[int]) -> list[Tensor]:
    """(n, ...) of each process, in order of rank, without gradients."""
    padded = here.new_zeros(max(sizes), *here.shape[1:])  # the exchange wants equal shapes
    padded[: len(here)] = here
    parts = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(parts, padded)
    return [part[:size] for part, size in zip(parts, sizes, strict=True)]


def _by_modality(tensor: Tensor, order: list[tuple[str, int]]) -> dict[str, Tensor]:
    """Take apart what lies as runs of (modality, count), and join the runs of each modality."""
    runs: dict[str, list[Tensor]] = {}
    parts = torch.split(tensor, [count for _, count in order])
    for (name, _), run in zip(order, parts, strict=True):
        runs.setdefault(name, []).append(run)
    return {name: torch.cat(of_name) for name, of_name in runs.items()}
