"""How far a run has come, on stderr."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from mmsearch.printing.plain import clock, note

if TYPE_CHECKING:
    from mmsearch.ingest import Progress
    from mmsearch.training.train import Progress as TrainingProgress


class Meter:
    """Progress on stderr: a bar in a terminal, else a line after every commit."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._terminal = sys.stderr.isatty()
        self._began = time.monotonic()
        self._before = 0  # done when it began: a model's first step comes with its first files
        self._said = 0
        self._model = ""

    def __call__(self, step: Progress) -> None:
        """Show one step of a run."""
        if step.model != self._model:
            self.close()
            self._bar, self._said, self._model = None, 0, step.model
            self._began, self._before = time.monotonic(), step.done
        if self._terminal:
            self._draw(step)
        elif step.committed > self._said:
            self._said = step.committed
            seconds, since = time.monotonic() - self._began, step.done - self._before
            line = f"{_did(step)} {step.committed} of {step.total}, {step.failed} failed"
            if seconds and since:
                rate = since / seconds
                line += f", {rate:.0f} files/s, {clock((step.total - step.done) / rate)} left"
            note(line)

    def _draw(self, step: Progress) -> None:
        if not step.total:
            print(f"\rlooking: {step.done:,} files", end="", file=sys.stderr, flush=True)
            return
        if self._bar is None:
            from tqdm import tqdm  # only who looks at it pays for it

            print("\r\x1b[K", end="", file=sys.stderr)
            # smoothing 0.05: the remaining time follows the last minute, not the last file
            self._bar = tqdm(
                total=step.total, unit=" files", desc=_doing(step), smoothing=0.05, leave=False
            )
        self._bar.update(step.done - self._bar.n)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
        elif self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr)


def _did(step: Progress) -> str:
    return f"encoded with {step.model}" if step.model else "indexed"


def _doing(step: Progress) -> str:
    return f"encoding with {step.model}" if step.model else "indexing"


class TrainingMeter:
    """Where a training run is, on stderr: one line that changes, or a line every five seconds."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._said = 0.0

    def __call__(self, step: TrainingProgress) -> None:
        """Show one update."""
        recall = "" if step.recall is None else f", held-out recall@10 {step.recall:.3f}"
        line = (
            f"update {step.update:,} of {step.updates:,}, loss {step.loss:.4f}{recall}, "
            f"{step.pairs_per_second:,.1f} pairs/s, {clock(step.seconds_left)} left"
        )
        if self._terminal:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - self._said > 5 or step.update == step.updates:
            self._said = time.monotonic()
            note(line)

    def __enter__(self) -> TrainingMeter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr)
