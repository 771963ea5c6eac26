"""What an indexing run did, what could not be read, what was measured."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mmsearch.files import display
from mmsearch.printing.plain import note
from mmsearch.records import Failure, Report

if TYPE_CHECKING:
    from mmsearch.repairing import Repaired
    from mmsearch.training.train import Trained


_MANY = {"image": "pictures", "audio": "windows of sound", "text": "texts"}


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
        (report.unchanged, "unchanged"),
        (report.sidecars, "sidecar" if report.sidecars == 1 else "sidecars"),
        (report.skipped, "skipped (other types)"), (len(report.failures), "failed"),
        (report.captioned, "with new captions"), (report.filled, "encoded for another model"),
    ]  # fmt: skip
    said = [f"{count:,} {verb if word == 'added' else ''}{word}" for count, word in counts if count]
    print(", ".join(said) or "nothing to index here")
    for failure in report.failures[:10]:
        note(f"failed: {display(os.fsencode(failure.path))}: {failure.reason}: {failure.message}")
    if len(report.failures) > 10:
        note(f"and {len(report.failures) - 10:,} more: mmsearch errors lists them all")
    for line in report.notes:
        note(line)
    if report.limit:
        rates = [f"{rate:,.1f} {_MANY[kind]}" for kind, rate in report.per_second.items()]
        note(f"{', '.join(rates)} a second; the {report.limit} was the limit")
    if report.interrupted:
        note("interrupted: what was indexed is safe, run the same command again to go on")


def print_plan(plan: Repaired) -> None:
    """What is wrong with a library, and what a repair does about it."""
    for problem in plan.problems[:20]:
        print(problem)
    if len(plan.problems) > 20:
        print(f"and {len(plan.problems) - 20:,} more: mmsearch check lists them all")
    print("\nto be done:")
    for step in plan.steps:
        print(f"- {step}")


def print_trained(trained: Trained) -> None:
    """Recall before and after, a line a direction."""
    before, after = trained.before or {}, trained.after or {}
    for name, found in after.items():
        for direction, cuts in found.items():
            was = before[name][direction]
            told = "   ".join(f"{cut} {was[cut]:.3f} → {cuts[cut]:.3f}" for cut in cuts)
            print(f"{name.replace('_', ' '):<8}  {direction.replace('_', ' '):<15}  {told}")


def print_search(searched: Iterable[dict[str, Any]]) -> None:
    """How each kind of vectors is searched, and what was measured of it, a line each."""
    for one in searched:
        about = f"{one['engine']} {one['faiss']}".rstrip()
        print(f"search    {one['kind']}: {about}, {one['bytes_per_vector']:.0f} bytes a vector")
        for kind, found in one["measured"].items():
            print(
                f"          {kind} queries: recall@10 {found['recall@10']:.3f}, "
                f"p50 {found['p50_ms']:.1f} ms, p95 {found['p95_ms']:.1f} ms, "
                f"{found['qps']:,.0f} a second together"
            )
        if one["note"]:
            print(f"          {one['note']}")
