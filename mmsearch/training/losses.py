"""What the towers are trained by. All rows are unit rows; ``scale`` is the inverse temperature.

Rows carry ids, and rows of equal ids belong together: a photo, its five captions in one language
and its five in another. No loss here ever takes such a row for a negative.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsearch.training.towers import LogitScale

# (first, second, first_ids, second_ids) -> a scalar
PairLoss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def info_nce(
    first: Tensor, second: Tensor, scale: Tensor | float, first_ids: Tensor, second_ids: Tensor
) -> Tensor:
    """Symmetric InfoNCE (van den Oord et al. 2018, as CLIP uses it) that allows several positives.

    first: (n, dim), second: (m, dim); rows whose ids are equal belong together.
    For one positive pair (i, j) the loss of direction first -> second is

        -log( exp(s <i, j>) / (exp(s <i, j>) + sum of exp(s <i, k>) over k of other ids) )

    so that five captions of one photo are never negatives of each other. Each row weighs the same
    however many positives it has; a row without any is left out. Returns the mean of both
    directions.
    """
    logits = scale * first @ second.T  # (n, m)
    positive = first_ids[:, None] == second_ids[None, :]
    return (_one_direction(logits, positive) + _one_direction(logits.T, positive.T)) / 2


def _one_direction(logits: Tensor, positive: Tensor) -> Tensor:
    """logits: (n, m); positive: (n, m) booleans. A scalar."""
    # With no negatives at all logsumexp gives -inf, and each pair's loss is then log(1) = 0, as it
    # should be.
    negatives = logits.masked_fill(positive, float("-inf")).logsumexp(1, keepdim=True)  # (n, 1)
    pairs = F.softplus(negatives - logits)  # (n, m)
    counts = positive.sum(1)
    rows = pairs.masked_fill(~positive, 0.0).sum(1) / counts.clamp(min=1)
    return rows.sum() / (counts > 0).sum().clamp(min=1)


def sigmoid_loss(
    first: Tensor,
    second: Tensor,
    scale: Tensor | float,
    bias: Tensor | float,
    first_ids: Tensor,
    second_ids: Tensor,
) -> Tensor:
    """The sigmoid loss of SigLIP (Zhai et al. 2023, algorithm 1): every pair is a yes or a no.

    first: (n, dim), second: (m, dim). The loss of the pair (i, j) is

        -log sigmoid(z (s <i, j> + b)),  z = 1 where the ids are equal, else -1

    summed over all pairs and divided by the batch size: by n for direction first -> second, by m
    for the other. Returns the mean of both, which for n = m is the paper's.
    """
    logits = scale * first @ second.T + bias  # (n, m)
    positive = first_ids[:, None] == second_ids[None, :]
    total = F.softplus(torch.where(positive, -logits, logits)).sum()
    return total * (1 / len(first) + 1 / len(second)) / 2


class InfoNCE(nn.Module):
    """``info_nce`` with its learnable, clamped temperature."""

    def __init__(self, start: float = 1 / 0.07):
        super().__init__()
        self.scale = LogitScale(start)

    def forward(
        self, first: Tensor, second: Tensor, first_ids: Tensor, second_ids: Tensor
    ) -> Tensor:
        """first: (n, dim), second: (m, dim) -> a scalar."""
        return info_nce(first, second, self.scale(), first_ids, second_ids)


class Sigmoid(nn.Module):
    """``sigmoid_loss`` with its learnable, clamped temperature and its learnable bias.

    The bias starts low, since nearly all pairs of a batch are negatives.
    """

    def __init__(self, start: float = 10.0, bias: float = -10.0):
        super().__init__()
        self.scale = LogitScale(start)
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(
        self, first: Tensor, second: Tensor, first_ids: Tensor, second_ids: Tensor
    ) -> Tensor:
        """first: (n, dim), second: (m, dim) -> a scalar."""
        return sigmoid_loss(first, second, self.scale(), self.bias, first_ids, second_ids)


def pairwise(
    loss: PairLoss,
    rows: Mapping[str, Tensor],
    ids: Mapping[str, Tensor],
    weights: Mapping[tuple[str, str], float] | None = None,
) -> Tensor:
    """The sum of a loss over the pairs of modalities that a batch holds. A scalar.

    rows: (n_m, dim) of each modality m, as {"image": ..., "english": ..., "chinese": ...,
    "audio": ...}; ids: (n_m,) of the same modalities. Two modalities without a common id are no
    pair; those that have one weigh 1, or what ``weights`` says under their names in either order.
    """
    weights = weights or {}
    # A modality without a partner still gets a gradient, of zeros: DistributedDataParallel waits
    # for one from every tower.
    total = 0.0 * torch.cat(list(rows.values())).sum()
    for first, second in combinations(rows, 2):
        if torch.isin(ids[first], ids[second]).any():
            weight = weights.get((first, second), weights.get((second, first), 1.0))
            total = total + weight * loss(rows[first], rows[second], ids[first], ids[second])
    return total


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy against a teacher's probabilities. logits, targets: (n, classes). A scalar."""
    return -(targets * F.log_softmax(logits, dim=-1)).sum(-1).mean()


def similarity(rows: Tensor, teacher: Tensor, scale: float) -> Tensor:
    """Keep a teacher's neighbourhoods: the divergence of its softmax over the batch from ours.

    rows: (n, dim), teacher: (n, width), both unit rows; a row is not its own neighbour. A scalar, 0
    where both agree.
    """
    itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    ours = (scale * rows @ rows.T).masked_fill(itself, -1e4)
    theirs = (scale * teacher @ teacher.T).masked_fill(itself, -1e4)
    return F.kl_div(
        F.log_softmax(ours, dim=-1),
        F.log_softmax(theirs, dim=-1),
        reduction="batchmean",
        log_target=True,
    )


def synthetic_features(features: Tensor, rows: Tensor, strength: Tensor) -> Tensor:
    """Pooled features of pictures that do not exist: real ones pushed toward classes.

    features: (n, 1280) of real photos; rows: (n, 1280) of the teacher's classifier, one a wanted
    class; strength: (n, 1), the length of the push in units of the features' own length. Returns
    (n, 1280), not negative, as pooled ReLU6 outputs are.
    """
    direction = F.normalize(rows, dim=-1) * features.norm(dim=-1, keepdim=True)
    return F.relu(features + strength * direction)
