"""Small changes to the catalog, the ingest and the cache code: does a test notice each?

    PYTHONPATH=tests python -m campaigns.branches     # which test goes through which line
    PYTHONPATH=tests python -m campaigns.mutants --size 500

A seeded sample of all mutants (mutation.py says what one is), as many of a file as it has a share
of them. Each is tried by the tests that go through its line, the shortest first, until one fails,
in a process of its own. That is forked from one which has collected all tests; there the function
with the change is given its new code. What runs when a file is imported is changed before that,
in a process that has imported nothing of ours.

What became of each mutant is kept in build/mutants.json: a run goes on from there, and tries
again those that it is told to with --again. Of a mutant that no test notices survivors.toml says
why that is right; a finding is one of which nothing is said there.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from campaigns.branches import TESTS, TRACE, InPlacePools, arguments, subjects
from campaigns.mutation import ROOT, Mutant, Substitute, changed_function, mutants, put_into
from campaigns.report import RESULTS, Report, stoppable

STATE = ROOT / "build" / "mutants.json"  # ignored by git
REASONS = Path(__file__).with_name("survivors.toml")

_CPU = 20.0  # seconds that the tests of a mutant may take in all: the shortest come first
_ENDLESS = 60  # seconds of CPU after which a mutant hangs, and is noticed
_STUCK = 900  # seconds after which one that waits for something is ended
_NOTICED = ("killed", "endless")

Fates = dict[str, str]


class Trace:
    """Which tests go through which line, from campaigns/branches.py."""

    def __init__(self) -> None:
        told = json.loads(TRACE.read_text())
        self._lines: dict[str, dict[str, list[str]]] = told["lines"]
        self._seconds: dict[str, float] = told["seconds"]

    def tests(self, mutant: Mutant) -> list[str]:
        """The shortest of a line's tests, in that order; of what runs at import some of all."""
        lines = self._lines[mutant.file]
        found = set(lines.get(str(mutant.line), []))
        if not found:
            found = {test for tests in lines.values() for test in tests}
        chosen, spent = [], 0.0
        for test in sorted(found, key=lambda test: (self._seconds.get(test, 0), test)):
            spent += self._seconds.get(test, 0)
            if chosen and spent > _CPU:
                break
            chosen.append(test)
        return chosen


class Attempts:
    """Mutants in processes of their own, some at a time."""

    def __init__(self, processes: int, tell: Callable[[Mutant, str], None]) -> None:
        self._processes, self._tell = processes, tell
        self._running: dict[int, tuple[Mutant, float, str]] = {}

    def begin(self, mutant: Mutant) -> bool:
        """Fork; True in the child, when there is room for one more."""
        while len(self._running) >= self._processes:
            self._wait()
        folder = tempfile.mkdtemp(prefix="mmsearch-mutant-")
        child = os.fork()
        if child:
            self._running[child] = mutant, time.monotonic(), folder
            return False
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        resource.setrlimit(resource.RLIMIT_CPU, (_ENDLESS, _ENDLESS + 5))
        os.environ["PYTEST_DEBUG_TEMPROOT"] = os.environ["TMPDIR"] = tempfile.tempdir = folder
        return True

    def end(self) -> None:
        """Wait for all of them."""
        while self._running:
            self._wait()

    def stop(self) -> None:
        """End those that still run; nothing is said of them."""
        for child in self._running:
            os.killpg(child, signal.SIGKILL)

    def _wait(self) -> None:
        """Until one of them has ended."""
        while True:
            for child, (mutant, began, folder) in self._running.items():
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    del self._running[child]
                    shutil.rmtree(folder, ignore_errors=True)
                    self._tell(mutant, _fate(os.waitstatus_to_exitcode(status)))
                    return
                if time.monotonic() - began > _STUCK:
                    os.killpg(child, signal.SIGKILL)
            time.sleep(0.02)


def _fate(code: int) -> str:
    """killed, survived, endless (more CPU than is allowed), or stuck: nothing can be said."""
    if code < 0:
        return "endless" if code == -signal.SIGXCPU else "stuck"
    return "survived" if code == 0 else "killed"


class InCollectedTests(InPlacePools):
    """A pytest plugin: instead of the tests, each mutant with those that go through its line."""

    def __init__(self, mutants: Sequence[Mutant], attempts: Attempts, trace: Trace) -> None:
        self._mutants, self._attempts, self._trace = mutants, attempts, trace

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """In a child: go on with the tests of its mutant. Here: until all have had their turn."""
        there = {item.nodeid: item for item in session.items}
        for mutant in self._mutants:
            if self._attempts.begin(mutant):
                before, after = changed_function(mutant) or (None, None)
                if before is None or after is None or not put_into(before, after):
                    os._exit(1)
                chosen = self._trace.tests(mutant)
                session.items[:] = [there[test] for test in chosen if test in there]
                return None
        self._attempts.end()
        return True


def in_collected_tests(mutants: Sequence[Mutant], attempts: Attempts, trace: Trace) -> None:
    """Try those whose change is in a function."""
    plugin, here = InCollectedTests(mutants, attempts, trace), os.getpid()
    code = pytest.main(
        ["-x", "-s", "-p", "no:xdist", f"--rootdir={ROOT}", *arguments(TESTS)], plugins=[plugin]
    )
    if os.getpid() != here:
        os._exit(int(code))


def at_import(mutants: Sequence[Mutant], attempts: Attempts, trace: Trace) -> None:
    """Try those whose change runs when its file is imported."""
    _warm()
    for mutant in mutants:
        if attempts.begin(mutant):
            try:
                sys.meta_path.insert(0, Substitute(mutant))
                chosen = [str(ROOT / test) for test in trace.tests(mutant)]
                options = ["-x", "-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}"]
                os._exit(int(pytest.main([*options, *chosen], plugins=[InPlacePools()])))
            except BaseException:  # a mutant that cannot even be imported
                os._exit(1)
    attempts.end()


def _warm() -> None:
    """Import what every test needs, and nothing of ours that a mutant may stand for."""
    import hypothesis
    import numpy
    import PIL.Image
    import portalocker
    import soundfile
    import sqlalchemy.dialects.sqlite

    assert all((hypothesis, numpy, PIL, portalocker, soundfile, sqlalchemy))
    for name in list(sys.modules):  # campaigns.report has imported the package itself
        if name == "mmsearch" or name.startswith(("mmsearch.", "campaigns.stand_ins")):
            del sys.modules[name]


def sample(size: int, seed: int) -> tuple[list[Mutant], int]:
    """A seeded sample of all mutants, and how many there are."""
    everything = [mutant for path in subjects() for mutant in mutants(path)]
    return random.Random(seed).sample(everything, min(size, len(everything))), len(everything)


def key(mutant: Mutant) -> str:
    """What a mutant is known by from run to run, while its line stays as it is."""
    return f"{mutant.file} #{mutant.number} {mutant.what}: {mutant.text}"


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
        report.count(fate)
        if fate == "survived":
            reason = why.get((mutant.file, mutant.text, mutant.what), "")
            survivors.append({"mutant": str(mutant), "line": mutant.text, "reason": reason})
            if not reason:
                report.found(str(mutant), mutant.text)
    noticed = sum(report.counts[fate] for fate in _NOTICED)
    known = max(len(judged) - report.counts["stuck"], 1)
    report.fact(percent=round(100 * noticed / known, 2), survivors=survivors)
    report.step(len(judged))


def main() -> int:
    """Run it from a command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, default=RESULTS / "mutants.json")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="0: report what is known"
    )
    parser.add_argument("--again", choices=["survived", "stuck"], help="try these once more")
    given = parser.parse_args()
    chosen, all_of_them = sample(given.size, given.seed)
    before: dict[str, Any] = json.loads(STATE.read_text()) if STATE.exists() else {}
    fates: Fates = before.get("fates", {})
    report = Report("mutants", given.seed, given.report, mutants=all_of_them, sample=len(chosen))
    report.cpu_before = before.get("cpu_seconds", 0.0)

    def tell(mutant: Mutant, fate: str) -> None:
        fates[key(mutant)] = fate
        print(f"{fate}: {mutant}  {mutant.text}", flush=True)
        told = {"fates": fates, "cpu_seconds": report.cpu_seconds}
        STATE.with_suffix(".new").write_text(json.dumps(told, indent=1))
        STATE.with_suffix(".new").replace(STATE)
        summed(report, chosen, fates)

    left = [m for m in chosen if fates.get(key(m)) in (None, given.again)]
    stoppable()
    try:
        if given.processes:
            _try(left, Attempts(given.processes, tell))
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
    summed(report, chosen, fates)
    report.write()
    return 1 if report.findings else 0


def _try(left: Sequence[Mutant], attempts: Attempts) -> None:
    trace = Trace()
    inside = {mutant: changed_function(mutant) is not None for mutant in left}
    try:
        at_import([mutant for mutant in left if not inside[mutant]], attempts, trace)
        in_collected_tests([mutant for mutant in left if inside[mutant]], attempts, trace)
    finally:
        attempts.stop()


if __name__ == "__main__":
    sys.exit(main())
