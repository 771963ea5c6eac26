"""What the towers are trained by. All rows are unit rows; ``scale`` is the inverse temperature."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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
    pairs = torch.logaddexp(logits, negatives) - logits  # (n, m)
    counts = positive.sum(1)
    rows = pairs.masked_fill(~positive, 0.0).sum(1) / counts.clamp(min=1)
    return rows.sum() / (counts > 0).sum().clamp(min=1)


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
