"""What every stage's loop shares: the schedule, the moving average, checkpoints, a line of log."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch


class Average:
    """A moving average of a module's parameters, which generalises better than the last step's."""

    def __init__(self, module: torch.nn.Module, decay: float):
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: torch.nn.Module, step: int) -> None:
        """Move toward the module as it is now; quickly at first, so that the start is forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            self.values[name].lerp_(value, 1 - decay)


def one_cycle(
    groups: list[dict[str, Any]], steps: int
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.OneCycleLR]:
    """AdamW whose learning rates rise for the first tenth of steps and then fall to nothing."""
    optimizer = torch.optim.AdamW(groups)
    rates = [group["lr"] for group in groups]
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rates, total_steps=steps + 1, pct_start=0.1
    )
    return optimizer, cycle


def save(path: Path, **state: Any) -> None:
    """Write a checkpoint whole or not at all."""
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").rename(path)


class Log:
    """The mean of each loss since the last line, and how long it took."""

    def __init__(self) -> None:
        self.began, self.sums, self.count = time.time(), dict[str, float](), 0

    def add(self, losses: dict[str, torch.Tensor]) -> None:
        """One step's losses."""
        self.count += 1
        for name, loss in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + loss.item()

    def line(self, **first: Any) -> None:
        """Print one line of JSON and begin anew."""
        means = {name: round(total / self.count, 3) for name, total in self.sums.items()}
        print(json.dumps(first | {"seconds": round(time.time() - self.began)} | means), flush=True)
        self.__init__()  # type: ignore[misc]
