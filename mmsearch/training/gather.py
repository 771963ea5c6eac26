"""One batch spread over several processes, as one: rows of all of them, with gradients.

Each process embeds its share, ``gather`` puts the shares together, and every process computes the
same loss of the whole batch. Sum or mean, who divides by what? With P processes:

- The gradient that ``gather`` hands back to a process's own rows is the sum over the losses of all
  processes. They are equal, so this is P times the gradient of the whole batch's loss.
- Averaging over processes, as ``DistributedDataParallel`` or ``average_gradients`` do, divides by
  P. The towers' gradients are then those of one process that holds the whole batch.
- The temperature, and whatever else comes after ``gather``, has the whole gradient in every
  process; the average of P equal numbers leaves it as it is.

So nothing is to be scaled by hand, however uneven the shares are. This does not hold for a loss of
a process's own rows alone: its average over processes is a mean of means.
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
    if torch.is_grad_enabled() and not here.requires_grad:
        here.requires_grad_()  # or this process would stay away from the exchange of gradients
    all_rows: Tensor = _Gather.apply(here, sizes)
    all_ids = _gathered(torch.cat([ids[name] for name in rows]), sizes)
    order = [entry for _, counts in shares for entry in counts]
    return _by_modality(all_rows, order), _by_modality(all_ids, order)


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


def _gathered(here: Tensor, sizes: list[int]) -> Tensor:
    """(n, ...) of this process -> (sum of sizes, ...) of all; the exchange wants equal shapes."""
    padded = here.new_zeros(max(sizes), *here.shape[1:])
    padded[: len(here)] = here
    parts = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def _by_modality(tensor: Tensor, order: list[tuple[str, int]]) -> dict[str, Tensor]:
    """Take apart what lies as runs of (modality, count), and join the runs of each modality."""
    runs: dict[str, list[Tensor]] = {}
    for (name, _), run in zip(
        order, torch.split(tensor, [count for _, count in order]), strict=True
    ):
        runs.setdefault(name, []).append(run)
    return {name: torch.cat(parts) for name, parts in runs.items()}


class _Gather(torch.autograd.Function):
    """``_gathered`` and its adjoint: each process gets the sum of all gradients of its own rows."""

    @staticmethod
    def forward(ctx: Any, here: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        return _gathered(here, sizes)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return torch.split(total, ctx.sizes)[distributed.get_rank()], None
