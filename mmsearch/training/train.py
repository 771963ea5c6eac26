"""Train a model on one's own pairs of pictures, or sounds, and captions. Read it top to bottom.

    pip install "mmsearch[train]"
    mmsearch train ./photos                                 # x.jpg beside x.txt; ./run is made
    mmsearch train captions.csv --epochs 20 --out run-2
    mmsearch train Flickr8k.token.txt --heads-only --batch 512
    mmsearch train shard-0000.tar --init open_clip:ViT-B-32/CHECKPOINT.pt --lora 8 --bf16
    mmsearch train captions.csv --batch 64 --accumulate 16  # an update sees 1,024 pairs
    mmsearch train --resume --out run                       # after an interruption
    torchrun --nproc-per-node 2 -m mmsearch train ./photos  # or: accelerate launch -m mmsearch ...
    mmsearch index ./photos --model ./run

An update, as in CLIP (Radford et al. 2021, arXiv 2103.00020): embed a batch of files and one
caption of each, and move every file toward its own caption and away from all others. All pairs of
an update are each other's negatives, however many processes and parts (`--accumulate`, by gradient
caching: arXiv 2101.06983) share the work: the gradient is that of the whole batch.

Nothing that is drawn at random depends on what was drawn before, so a run that was interrupted and
goes on gives the same weights, bit for bit, as one that was not (on one device). Batch norms keep
the statistics that they came with: those of a small batch are worse, and depend on its parts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmsearch import __version__
from mmsearch.datasets.pairs import Bad, Pair
from mmsearch.datasets.reading import read_pairs
from mmsearch.errors import TrainingError, UsageError
from mmsearch.locking import WriterLock
from mmsearch.records import Modality
from mmsearch.training import curve, gate, sources
from mmsearch.training.adapters import merge
from mmsearch.training.batches import Batches, Wanted, decode, load
from mmsearch.training.config import TrainConfig
from mmsearch.training.learner import Learner
from mmsearch.training.run import RunFolder


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is. `recall`: recall@10 of the held-out pairs, the mean of its directions."""

    update: int
    updates: int
    loss: float
    recall: float | None
    pairs_per_second: float
    seconds_left: float


@dataclass(frozen=True, slots=True)
class Trained:
    """How a run ended. Without `after` it was interrupted; `begun`: there is something to resume.

    `reasons`: why the model is marked as not to be offered; empty for one that is better.
    """

    bad: list[Bad]
    begun: bool = True
    before: dict[str, gate.Recalls] | None = None
    after: dict[str, gate.Recalls] | None = None
    reasons: tuple[str, ...] = ()
    prints: bool = True  # of several processes one does

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        told = asdict(self) | {"offered": self.after is not None and not self.reasons}
        del told["prints"], told["begun"]
        return told


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    note: Callable[[str], None] = lambda _: None,
    progress: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Trained:
    """Train, measure, and leave a run folder that `--model` opens.

    `note` hears what goes on, `progress` every update; once `stop` is true, the update in hand is
    finished and saved. Raises UsageError for settings that make no sense, PairsError for PAIRS
    that cannot be read, TrainingError when nothing in them is usable or the loss is not a number
    any more; what was saved last is kept.
    """
    config.check()
    from accelerate import Accelerator

    device = Accelerator(cpu=not torch.accelerator.is_available())
    if config.batch % device.num_processes:
        raise UsageError(
            f"--batch is a multiple of {device.num_processes}, the number of processes"
        )
    folder = RunFolder(Path(config.out), writes=device.is_main_process)
    if resume and (folder.path / "model.json").exists():
        raise TrainingError(f"{folder.name} is finished; to train it further: --init {folder.name}")
    if not resume:
        folder.begin()
    device.wait_for_everyone()
    if not folder.writes:
        note, progress = _quiet, _quiet
    with WriterLock(folder.path / "LOCK") if folder.writes else nullcontext():
        trained = _train(config, device, folder, resume, note, progress, stop)
    return replace(trained, prints=folder.writes)


def _train(  # noqa: PLR0915 - one run, read from top to bottom
    config: TrainConfig,
    device: Any,
    folder: RunFolder,
    resume: bool,
    note: Callable[[str], None],
    progress: Callable[[Progress], None],
    stop: Callable[[], bool],
) -> Trained:
    learner = Learner(config, device)
    pairs, bad = _read(config, learner.wanted, note, stop)
    if _any(stop(), device):
        return Trained(bad, begun=resume)
    learner.leave_out(learner.towers.keys() - {Modality.TEXT, *(pair.modality for pair in pairs)})
    training, kept = sources.held_out(pairs, config.held_out)
    kept = kept[: config.measured]
    note(f"{len(training):,} files to train on, {len(kept):,} held out, {len(bad):,} skipped")
    facts = {
        "config": asdict(config),
        "data": {
            "sha256": sources.data_hash(pairs),
            "trained_on": len(training),
            "held_out": len(kept),
        },
        "versions": {"mmsearch": __version__, "torch": torch.__version__, "numpy": np.__version__},
    }
    if resume and folder.read_json("config.json")["data"] != facts["data"]:
        raise TrainingError(
            f"the {len(pairs):,} files of {', '.join(config.pairs)} are not those that "
            f"{folder.name} was begun with; begin another run"
        )

    # --- what is measured, before, in between and after ---
    loaded = [load(pair, learner.wanted) for pair in kept]
    size = learner.wanted.image.size if learner.wanted.image else None

    def general() -> gate.Recalls:
        return gate.general_recall(learner.embed, size)

    def recalled() -> gate.Recalls:
        return gate.held_out_recall(learner.embed, kept, loaded)

    # --- where it begins, or goes on ---
    if config.heads_only:
        note("computing the features that lie below the heads")
        learner.keep_features(training)
        config = replace(config, augment=False)
    share = (device.process_index, device.num_processes)
    batches = Batches(training, config, learner.wanted, share, cached=config.heads_only)
    if resume:
        state = folder.load_checkpoint()
        learner.load(state)
        first, before, recall = state["update"], state["before"], state["recall"]
        metrics = [row for row in folder.read_lines("metrics.jsonl") if row["step"] <= first]
    else:
        recall = recalled()
        first, before = 0, {"held_out": recall, "general": general()}
        metrics = [{"step": 0, **before}]
    folder.write_lines("metrics.jsonl", metrics)
    folder.write_lines("bad.jsonl", [asdict(entry) for entry in bad])

    def save(done: int) -> None:
        place = {"update": done, "before": before, "recall": recall}
        folder.save_checkpoint(learner.state() | place)

    def log(**row: Any) -> None:
        metrics.append(row)
        folder.add_line("metrics.jsonl", row)
        if "held_out" in row:
            folder.write("curve.png", curve.draw(metrics))

    save(first)
    folder.write_json("config.json", facts)  # from here on there is something to resume

    # --- the loop ---
    began = saved = time.monotonic()
    for update, samples, views in batches.views(first):
        rate = learning_rate(config, update, batches.updates)
        try:
            loss = learner.update(update, rate, samples, views)
        except TrainingError as error:
            raise TrainingError(
                f"{error} at update {update + 1} of {batches.updates}: the last good checkpoint, "
                f"{folder.name}/checkpoint.pt, is kept; go on from it with smaller steps: mmsearch "
                f"train --resume --out {folder.name} --learning-rate {config.learning_rate / 3:.1g}"
            ) from error
        done, seconds = update + 1, time.monotonic() - began
        speed = (done - first) * batches.size / seconds
        log(step=done, loss=loss, learning_rate=rate, pairs_per_second=round(speed, 1))
        if done % batches.epoch == 0:
            recall = recalled()
            log(step=done, epoch=done // batches.epoch, held_out=recall)
        left = (batches.updates - done) * seconds / (done - first)
        progress(Progress(done, batches.updates, loss, at_ten(recall), speed, left))

        stopped = _any(stop(), device)
        late = time.monotonic() - saved > config.checkpoint_seconds
        if stopped or late or done % batches.epoch == 0:
            save(done)
            saved = time.monotonic()
        if stopped and done < batches.updates:
            return Trained(bad)

    # --- what comes out ---
    after = {"held_out": recalled(), "general": general()}
    reasons = gate.verdict(before, after)
    log(step=batches.updates, **after, offered=not reasons, reasons=reasons)
    if config.lora:
        merge(learner.model)
    measured = {"before": before, "after": after}
    told = {"offered": not reasons, "reasons": reasons, "training": facts | measured}
    folder.export(learner.model.cpu(), told)
    device.wait_for_everyone()
    return Trained(bad, True, before, after, tuple(reasons))


def learning_rate(config: TrainConfig, update: int, updates: int) -> float:
    """From 0 up to the peak in a straight line, then along a cosine toward 0."""
    warm = max(1, round(config.warmup * updates))
    if update < warm:
        return config.learning_rate * (update + 1) / warm
    done = (update - warm) / max(1, updates - warm)
    return config.learning_rate * (1 + math.cos(math.pi * done)) / 2


def _quiet(_: object) -> None:
    """Of several processes, one tells how it goes."""


def at_ten(recall: gate.Recalls) -> float | None:
    """recall@10, the mean of all directions."""
    values = [cuts["recall@10"] for cuts in recall.values()]
    return float(np.mean(values)) if values else None


def _read(
    config: TrainConfig, wanted: Wanted, note: Callable[[str], None], stop: Callable[[], bool]
) -> tuple[list[Pair], list[Bad]]:
    """Every pair that can be used, and what cannot; both cut short by `stop`."""
    note(f"reading the pairs of {', '.join(config.pairs)}")
    images = Path(config.images) if config.images is not None else None
    listed, bad = read_pairs([Path(place) for place in config.pairs], images)
    usable: list[Pair] = []
    told = time.monotonic()
    for found in sources.usable_pairs(listed, partial(decode, wanted=wanted), config.workers):
        if isinstance(found, Bad):
            bad.append(found)
        else:
            usable.append(found)
        if time.monotonic() - told > 5:
            told = time.monotonic()
            note(f"read {len(usable):,} of {len(listed):,} files")
        if stop():
            return usable, bad
    pairs = sources.merged(usable)
    if len(pairs) < 2:
        reasons = "; ".join(f"{entry.name}: {entry.reason}" for entry in bad[:3])
        raise TrainingError(
            f"{', '.join(config.pairs)}: two pairs are the least, {len(pairs)} can be used"
            + (f" ({reasons})" if reasons else "")
        )
    return pairs, bad


def _any(flag: bool, device: Any) -> bool:
    """True in all processes when it is in one: they stop at the same update."""
    if device.num_processes == 1:
        return flag
    count: torch.Tensor = device.reduce(torch.tensor(float(flag), device=device.device))
    return bool(count.item() > 0)
