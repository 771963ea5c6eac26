"""Small changes to the catalog, the ingest and the cache code: does a test notice each?

    PYTHONPATH=tests python -m campaigns.branches     # which test goes through which line
    PYTHONPATH=tests python -m campaigns.mutants --size 600

A seeded sample of all mutants (mutation.py says what one is), as many of a file as it has a share
of them. Each is tried in a process of its own (attempts.py) by the tests that go through its line,
the shortest first, until one fails. The tests that noticed a mutant are run once without any: one
that fails then is a finding too.

What became of each mutant is kept in build/mutants.json: a run goes on from there, and tries
again those that it is told to with --again, or all with --anew. Of a mutant that no test notices
survivors.toml says why that is right; a finding is one of which nothing is said there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tomllib
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from campaigns.attempts import Attempts, Fate, try_all
from campaigns.branches import subjects
from campaigns.mutation import ROOT, Mutant, mutants
from campaigns.report import RESULTS, Report, stoppable
from campaigns.trace import Trace

STATE = ROOT / "build" / "mutants.json"  # ignored by git
REASONS = Path(__file__).with_name("survivors.toml")

Fates = dict[str, Fate]


def sample(size: int, seed: int, only: str = "") -> tuple[list[Mutant], int]:
    """A seeded sample of all mutants, and how many there are. It begins with any smaller one, and
    stays as it is where the code does.
    """
    found = [mutant for path in subjects() for mutant in mutants(path)]
    found = [mutant for mutant in found if mutant.file.startswith(only)]
    found.sort(key=lambda mutant: sha256(f"{seed} {key(mutant)}".encode()).digest())
    return found[:size], len(found)


def key(mutant: Mutant) -> str:
    """What a mutant is known by from run to run, while its line stays as it is."""
    return f"{mutant.file} {mutant.what} ({mutant.nth}): {mutant.text}"


def reasons() -> dict[tuple[str, str, str], str]:
    """Why no test needs to notice a mutant: by file, line and what is changed."""
    told = tomllib.loads(REASONS.read_text(encoding="utf-8"))["survivor"]
    return {(one["file"], one["line"], what): one["reason"] for one in told for what in one["what"]}


def summed(report: Report, chosen: Sequence[Mutant], fates: Fates) -> None:
    """Put what is known of the sample into the report."""
    why, survivors = reasons(), []
    report.counts, report.findings = Counter(), []
    judged = [mutant for mutant in chosen if key(mutant) in fates]
    for mutant in judged:
        fate = fates[key(mutant)]
        report.count(fate.fate)
        if fate.fate == "untried":
            report.found(str(mutant), fate.said)
        elif not fate.noticed:
            reason = why.get((mutant.file, mutant.text, mutant.what), "")
            survivors.append({"mutant": str(mutant), "line": mutant.text, "reason": reason})
            if not reason:
                report.found(str(mutant), mutant.text)
    noticed = [fates[key(mutant)] for mutant in judged if fates[key(mutant)].noticed]
    report.counts["tests that noticed one"] = len({fate.test for fate in noticed})
    percent = round(100 * len(noticed) / max(len(judged), 1), 2)
    report.fact(percent=percent, survivors=survivors)
    report.step(len(judged))


def main() -> int:
    """Run it from a command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, default=RESULTS / "mutants.json")
    parser.add_argument(
        "--seconds", type=float, default=6.0, help="of CPU for the tests of a mutant"
    )
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="0: report what is known"
    )
    parser.add_argument("--only", default="", help="mutants of files whose names begin so")
    parser.add_argument(
        "--again", default="", help="try those with this fate once more, but for reasoned ones"
    )
    parser.add_argument("--anew", action="store_true", help="try all, what noticed them first")
    given = parser.parse_args()
    chosen, all_of_them = sample(given.size, given.seed, given.only)
    before: dict[str, Any] = json.loads(STATE.read_text()) if STATE.exists() else {}
    fates = {name: Fate(*told) for name, told in before.get("fates", {}).items()}
    trace = Trace(given.seconds)
    for name, fate in fates.items():
        if fate.noticed:
            trace.noticed(name.partition(" ")[0], fate.test)
    if given.anew:
        before, fates = {}, {}
    name = f"mutants of {given.only}" if given.only else "mutants"
    report = Report(name, given.seed, given.report, mutants=all_of_them, sample=len(chosen))
    report.cpu_before = before.get("cpu_seconds", 0.0)

    def keep(fates: Fates) -> None:
        kept = {name: (one.fate, one.test, one.said) for name, one in fates.items()}
        told = {"fates": kept, "cpu_seconds": report.cpu_seconds}
        STATE.with_suffix(".new").write_text(json.dumps(told, indent=1))
        STATE.with_suffix(".new").replace(STATE)

    def tell(mutant: Mutant, fate: Fate) -> None:
        fates[key(mutant)] = fate
        print(f"{fate.fate}: {mutant}  {mutant.text}\n    {fate.test} {fate.said}", flush=True)
        keep(fates)
        summed(report, chosen, fates)
        if fate.noticed:
            trace.noticed(mutant.file, fate.test)

    attempts = Attempts(given.processes, tell)
    told = reasons()
    left = [
        mutant for mutant in chosen
        if (fate := fates.get(key(mutant))) is None
        or (fate.fate == given.again and (mutant.file, mutant.text, mutant.what) not in told)
    ]  # fmt: skip
    stoppable()
    try:
        if given.processes:
            try_all(left, attempts, trace)
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
    for failed in attempts.failed:
        print(f"fails without a change: {failed.test} {failed.said}")
        for name, fate in fates.items():
            if fate.noticed and fate.test == failed.test:
                fates[name] = Fate("untried", fate.test, "it fails without a change")
    keep(fates)
    summed(report, chosen, fates)
    report.write()
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
