"""Every setting of `mmsearch train`, with its default."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mmsearch.errors import UsageError
from mmsearch.records import Modality
from mmsearch.training.run import RunFolder

LOSSES = ("info-nce", "sigmoid")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Shares and probabilities are from 0 to 1."""

    pairs: tuple[str, ...] = ()
    images: str | None = None  # the folder that names in lists are relative to
    out: str = "run"
    init: str = "builtin"  # builtin, open_clip:NAME/TAG, or the folder of another run
    # what is trained
    freeze: tuple[str, ...] = ()  # towers that stay as they are, bit for bit
    lora: int = 0  # rank of the adapters that are trained in the place of the weights; 0: none
    heads_only: bool = False  # on features that are computed once, of the files as they are
    loss: str = "info-nce"  # or sigmoid
    # how
    epochs: int = 10
    batch: int = 64  # pairs that go through the towers at once, on all devices together
    accumulate: int = 1  # how many such batches an update sees, as one large one
    learning_rate: float = 1e-4
    warmup: float = 0.1  # of all updates: the rate rises from 0, and then falls along a cosine
    weight_decay: float = 0.1
    clip: float = 1.0  # the largest length of the gradient
    bf16: bool = False
    seed: int = 1
    # how the files look
    augment: bool = True
    crop: float = 0.6  # the least area that a crop of a picture keeps
    colour: float = 0.2  # brightness, contrast and saturation, either way
    word_dropout: float = 0.1
    gain: float = 6.0  # dB, either way
    mix: float = 0.3  # how often another sound is mixed in, faintly
    masks: float = 0.1  # SpecAugment: of a sound's length, and of its frequencies
    # what is measured and saved
    held_out: float = 0.1  # of the files
    measured: int = 1000  # of the files held out, at most; the others are not trained on either
    checkpoint_seconds: float = 300.0
    workers: int = max(1, min(8, os.cpu_count() or 1))  # threads that read files ahead

    def check(self) -> None:
        """Raises UsageError for what makes no sense."""
        counts = (self.epochs, self.batch, self.accumulate, self.workers)
        wrong = {
            "give PAIRS: a folder or a list of files and captions": not self.pairs,
            f"--loss is {' or '.join(LOSSES)}": self.loss not in LOSSES,
            f"--freeze is one of {', '.join(Modality)}": not {*self.freeze} <= {*Modality},
            "--epochs, --batch, --accumulate and --workers are 1 or more": min(counts) < 1,
            "--lora is 1 or more": self.lora < 0,
            "--lora and --heads-only exclude each other": self.lora > 0 and self.heads_only,
            "--learning-rate is above 0": not 0 < self.learning_rate < float("inf"),
            "--held-out is at least 0 and below 1": not 0 <= self.held_out < 1,
            "--seed is 0 or more": self.seed < 0,
        }
        for message, is_wrong in wrong.items():
            if is_wrong:
                raise UsageError(message)


# What a run may be told anew when it goes on; all else is as it was begun.
CHANGEABLE = frozenset({"learning_rate", "bf16", "workers", "checkpoint_seconds"})


def resumed(out: str, given: Mapping[str, Any]) -> TrainConfig:
    """The settings of the run in a folder. Raises UsageError where `given` says otherwise."""
    stored = RunFolder(Path(out)).read_json("config.json")["config"]
    known = {field.name for field in fields(TrainConfig)} - {"out"}
    values = {name: _as_tuple(value) for name, value in stored.items() if name in known}
    for name, value in given.items():
        if value != values[name] and name not in CHANGEABLE:
            raise UsageError(
                f"{out} was begun with {name.replace('_', ' ')} {values[name]}, not {value}; "
                "leave that out, or begin another run"
            )
    return TrainConfig(**(values | dict(given)), out=out)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
