"""What of a model is trained: all of it, some towers, the heads, or low-rank adapters.

LoRA (Hu et al. 2021, arXiv 2106.09685): a weight W stays as it is and W + BA is used, with B and
A of a low rank; only they are trained, and are added to W before the model is exported.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, cast

import torch
from torch import nn

from mmsearch.errors import UsageError

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def freeze(towers: Mapping[str, nn.Module], names: Collection[str]) -> None:
    """Keep these towers as they are. Raises UsageError for one that the model does not have."""
    for name in names:
        if name not in towers:
            raise UsageError(f"--freeze {name}: the model has {', '.join(towers)}")
        towers[name].requires_grad_(False)
    if not set(towers) - set(names):
        raise UsageError("every tower is frozen: nothing is left to train")


def heads_only(towers: Mapping[str, nn.Module], frozen: Collection[str]) -> None:
    """Train the heads of the towers that are not frozen, and nothing below them."""
    for name, tower in towers.items():
        tower.requires_grad_(False)
        tower.get_submodule("head").requires_grad_(name not in frozen)


def add(towers: Mapping[str, nn.Module], rank: int, frozen: Collection[str]) -> None:
    """Put an adapter beside each linear map and each 1 x 1 convolution; all else is fixed."""
    from peft import LoraConfig, inject_adapter_in_model

    for name, tower in towers.items():
        if name not in frozen and (targets := _targets(tower)):
            config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets)
            inject_adapter_in_model(config, tower)
        else:
            tower.requires_grad_(False)


def _targets(tower: nn.Module) -> list[str]:
    """Names of what takes an adapter.

    Not what is inside nn.MultiheadAttention: its weights are used without their module's call.
    """
    modules = dict(tower.named_modules())
    inside = tuple(f"{n}." for n, m in modules.items() if isinstance(m, nn.MultiheadAttention))
    return [n for n, m in modules.items() if _takes_one(m) and not n.startswith(inside)]


def _takes_one(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.kernel_size == (1, 1) and module.groups == 1
    return isinstance(module, nn.Linear)


def merge(model: nn.Module) -> None:
    """Add every adapter to its weight and take it away: the modules are as they were made."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    with torch.no_grad():
        for name, module in list(model.named_modules()):
            if isinstance(module, BaseTunerLayer):
                cast(Any, module).merge()
                parent, _, child = name.rpartition(".")
                setattr(model.get_submodule(parent), child, module.get_base_layer())


def quiet(towers: Mapping[str, nn.Module], frozen: Collection[str]) -> None:
    """After `train()`: no dropout in frozen towers, and no batch norm learns its statistics."""
    for name, tower in towers.items():
        if name in frozen:
            tower.eval()
        for module in tower.modules():
            if isinstance(module, _NORMS):
                module.eval()
