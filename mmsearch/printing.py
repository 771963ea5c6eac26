"""What a person or a script reads: answers on stdout, progress and notes on stderr."""

from __future__ import annotations

import base64
import csv
import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from mmsearch.files import display, well_formed
from mmsearch.records import Failure, Hit, Report

if TYPE_CHECKING:
    from mmsearch.ingest import Progress
    from mmsearch.training.train import Progress as TrainingProgress
    from mmsearch.training.train import Trained

_EXCERPT = 72  # characters of a passage


class Format(StrEnum):
    """How answers are printed."""

    TABLE = "table"
    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"
    PATHS = "paths"


def print_hits(hits: Sequence[Hit], form: Format, *, nul: bool = False) -> None:
    """Print answers. `nul` prints bare paths, as they are, with NUL behind each (xargs -0)."""
    out = sys.stdout
    if nul:
        out.buffer.write(b"".join(os.fsencode(hit.path) + b"\0" for hit in hits))
    elif form is Format.PATHS:
        out.buffer.write(b"".join(os.fsencode(hit.path) + b"\n" for hit in hits))
    elif form is Format.JSON:
        print_json([_as_dict(hit) for hit in hits])
    elif form is Format.NDJSON:
        for hit in hits:
            print(json.dumps(_as_dict(hit), ensure_ascii=False))
    elif form is Format.CSV:
        names = ["rank", "score", "relevance", "path", "modality", "id", "start", "end"]
        writer = csv.DictWriter(out, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(_as_dict(hit) for hit in hits)
    else:
        for hit in hits:
            score = " " * 6 if hit.score is None else f"{hit.score:6.3f}"
            print(f"{hit.rank:>3}  {score}  {display(os.fsencode(hit.path))}{_place(hit)}")


def _place(hit: Hit) -> str:
    """Where in its file an answer is: the seconds of a sound, the beginning of a passage."""
    if hit.start is not None and hit.end is not None:
        return f"  {_clock(hit.start)}–{_clock(hit.end)}"
    if hit.text is not None:
        return f"  {display(hit.text if len(hit.text) <= _EXCERPT else hit.text[:_EXCERPT] + '…')}"
    return ""


def _as_dict(hit: Hit) -> dict[str, Any]:
    raw = os.fsencode(hit.path)
    row: dict[str, Any] = {
        "rank": hit.rank,
        "score": None if hit.score is None else round(hit.score, 6),
        "relevance": hit.relevance,
        "path": raw.decode("utf-8", "replace"),
        "modality": str(hit.modality),
        "id": hit.id,
        "start": hit.start,
        "end": hit.end,
    }
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        row["path_bytes"] = base64.b64encode(raw).decode("ascii")
    return row


def print_json(value: Any) -> None:
    """Print a value as JSON. A path that is not UTF-8 keeps its place as U+FFFD."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    print(well_formed(text))


def print_failures(failures: Iterable[Failure]) -> None:
    """A line a file: reason code, path, and what is wrong."""
    for failure in failures:
        print(f"{failure.reason}\t{display(os.fsencode(failure.path))}\t{failure.message}")


def print_report(report: Report) -> None:
    """The end of an indexing run, in sentences a person reads."""
    verb = "would be " if report.dry_run else ""
    counts = [
        (report.added, "added"), (report.changed, "changed"), (report.moved, "moved"),
        (report.copied, "copied"), (report.gone, "gone"), (report.offline, "offline"),
        (report.unchanged, "unchanged"), (report.skipped, "skipped (other types)"),
        (len(report.failures), "failed"),
    ]  # fmt: skip
    said = [f"{count:,} {verb if word == 'added' else ''}{word}" for count, word in counts if count]
    print(", ".join(said) or "nothing to index here")
    for failure in report.failures[:10]:
        note(f"failed: {display(os.fsencode(failure.path))}: {failure.reason}: {failure.message}")
    if len(report.failures) > 10:
        note(f"and {len(report.failures) - 10:,} more: mmsearch errors lists them all")
    for line in report.notes:
        note(line)
    if report.interrupted:
        note("interrupted: what was indexed is safe, run the same command again to go on")


def note(line: str) -> None:
    """A line on stderr; lost without harm when nobody reads it any more."""
    with suppress(OSError):
        print(well_formed(line), file=sys.stderr, flush=True)


def print_recall(found: dict[str, Any]) -> None:
    """Print what `mmsearch bench recall` found."""
    counts = f"{found['photos']:,} photos, {found['captions']:,} captions, {found['split']}"
    print(f"{found['model']} ({found['fingerprint'][:8]}) on {counts}")
    print(f"{'':24}    R@1    R@5   R@10")
    for place, recalls in (("embeddings", found), ("a library", found["search"])):
        for direction in ("text_to_image", "image_to_text"):
            shown = " ".join(f"{value:6.3f}" for value in recalls[direction].values())
            print(f"{direction.replace('_', ' ')}, {place:10} {shown}")


class Meter:
    """Progress on stderr: a bar in a terminal, else a line after every commit."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._terminal = sys.stderr.isatty()
        self._began = time.monotonic()
        self._said = 0

    def __call__(self, step: Progress) -> None:
        """Show one step of a run."""
        if self._terminal:
            self._draw(step)
        elif step.committed > self._said:
            self._said = step.committed
            seconds = time.monotonic() - self._began
            rate = step.done / seconds if seconds else 0.0
            left = (step.total - step.done) / rate if rate else 0.0
            note(
                f"indexed {step.committed} of {step.total}, {step.failed} failed, "
                f"{rate:.0f} files/s, {_clock(left)} left"
            )

    def _draw(self, step: Progress) -> None:
        if not step.total:
            print(f"\rlooking: {step.done:,} files", end="", file=sys.stderr, flush=True)
            return
        if self._bar is None:
            from tqdm import tqdm  # only who looks at it pays for it

            print("\r\x1b[K", end="", file=sys.stderr)
            # smoothing 0.05: the remaining time follows the last minute, not the last file
            self._bar = tqdm(
                total=step.total, unit=" files", desc="indexing", smoothing=0.05, leave=False
            )
        self._bar.update(step.done - self._bar.n)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
        elif self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr)


def print_trained(trained: Trained) -> None:
    """Recall before and after, a line a direction."""
    before, after = trained.before or {}, trained.after or {}
    for name, found in after.items():
        for direction, cuts in found.items():
            was = before[name][direction]
            told = "   ".join(f"{cut} {was[cut]:.3f} → {cuts[cut]:.3f}" for cut in cuts)
            print(f"{name.replace('_', ' '):<8}  {direction.replace('_', ' '):<15}  {told}")


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
            f"{step.pairs_per_second:,.1f} pairs/s, {_clock(step.seconds_left)} left"
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


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
