"""Which branches of the catalog, the ingest and the cache code the suite goes through.

    PYTHONPATH=tests python -m campaigns.branches

A finding is a line or a branch that no test takes and that is not excused where it stands
(`# pragma: no cover - REASON`) or in `[tool.coverage.report]` of pyproject.toml. Decoding is
done in place (stand_ins.py); decoder processes that tests start themselves count too, as far as
they end by themselves. Beside the report it keeps which test goes through which line, and how
long each takes: campaigns/mutants.py begins there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import coverage
import pytest
from campaigns.report import RESULTS, Report

ROOT = Path(__file__).resolve().parents[2]
TRACE = ROOT / "build" / "branches.json"  # ignored by git

SUBJECTS = (
    "catalog", "ingest.py", "fates.py", "parcels.py", "decoding", "encoding.py",
    "scan.py", "space.py", "vectors/matrix.py", "durable.py", "locking.py",
)  # fmt: skip
TESTS = (
    "catalog", "standing", "details", "keywords", "labels", "filters", "library", "repair",
    "backup", "upkeep", "described", "pieces", "superseded", "spaces", "walking", "sidecars",
    "vectors", "query", "search", "duplicates", "hubness", "place", "encoding", "candidates",
    "decoding", "joint", "opening", "durable", "workers", "rebuilding", "forking", "index_file",
    "codebook",
)  # fmt: skip
_CHILD = "a process of its own"  # in the place of a test's name
NEED_PROCESSES = frozenset({"test_a_run_that_is_stopped_waits_for_no_long_sound"})


def subjects() -> list[Path]:
    """The files that are looked at."""
    places = [ROOT / "mmsearch" / name for name in SUBJECTS]
    return [p for place in places for p in (sorted(place.rglob("*.py")) or [place])]


class InPlacePools:
    """A pytest plugin: decoder pools that need no processes, instead of conftest's."""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Without what only processes of their own can do."""
        items[:] = [item for item in items if item.name not in NEED_PROCESSES]

    def pytest_collection_finish(self) -> None:
        """Once conftest is there."""
        from campaigns.stand_ins import InPlace

        class Pools:
            def __call__(self, workers: int, wants: Any, limits: Any) -> InPlace:
                return InPlace(workers, wants, limits)

            def close(self) -> None:
                pass

        sys.modules["conftest"].WarmPools = Pools  # type: ignore[attr-defined]


class Contexts(InPlacePools):
    """The same, noting which test is running, and what it costs."""

    def __init__(self, measured: coverage.Coverage) -> None:
        self.seconds: dict[str, float] = {}
        self._measured = measured

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """A context a test, its fixtures included."""
        self._measured.switch_context(item.nodeid)
        began = time.process_time()
        result = yield
        self.seconds[item.nodeid] = time.process_time() - began
        return result


def arguments(names: Sequence[str]) -> list[str]:
    """What pytest is called with for these tests: `catalog`, or `catalog::test_one_of_it`."""
    found = [name.partition("::") for name in names]
    tests = [f"{ROOT}/tests/test_{file}.py{colons}{one}" for file, colons, one in found]
    return ["-q", "-p", "no:cacheprovider", *tests]


def measure(report: Report, shares: int, tests: Sequence[str]) -> dict[str, Any]:
    """Run the tests, a share of them a process, and count; which goes through which line, and
    how long each takes.
    """
    looked_at = [str(path) for path in subjects()]
    config = str(ROOT / "pyproject.toml")
    with TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        pids = []
        for share in range(shares):
            pids.append(os.fork())
            if pids[-1] == 0:
                _measure_children(Path(folder), looked_at)
                code = _run(coverage.Coverage(
                    data_file=f"{data}.{share}", branch=True, include=looked_at, config_file=config
                ), tests[share::shares], Path(f"{folder}/{share}.json"))  # fmt: skip
                os._exit(code)
        for share, pid in enumerate(pids):
            if code := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
                report.found("the suite", f"pytest ended with {code} in share {share}")
        measured = coverage.Coverage(
            data_file=str(data), branch=True, include=looked_at, config_file=config
        )
        measured.combine([folder])
        seconds: dict[str, float] = {}
        for share in range(shares):
            seconds |= json.loads(Path(f"{folder}/{share}.json").read_text())
        lines = {path: _count(measured, report, path) for path in looked_at}
    total = report.counts["statements"] + report.counts["branches"]
    missed = report.counts["statements missed"] + report.counts["branches missed"]
    report.fact(percent=round(100 * (1 - missed / max(total, 1)), 2))
    told = {str(Path(path).relative_to(ROOT)): found for path, found in lines.items()}
    return {"lines": told, "seconds": seconds}


def keep(found: dict[str, Any], *, more: bool) -> None:
    """Keep which test goes through which line; `more`: beside what is kept."""
    kept = json.loads(TRACE.read_text()) if more else {"lines": {}, "seconds": {}}
    for file, lines in found["lines"].items():
        there = kept["lines"].setdefault(file, {})
        for line, tests in lines.items():
            there[str(line)] = sorted({*there.get(str(line), []), *tests})
    kept["seconds"] |= found["seconds"]
    TRACE.parent.mkdir(exist_ok=True)
    TRACE.write_text(json.dumps(kept))


def _measure_children(folder: Path, looked_at: Sequence[str]) -> None:
    """Have the processes that this one starts measured: each Python imports sitecustomize."""
    config = folder / "children.ini"
    files = "\n    ".join(looked_at)
    config.write_text(
        f"[run]\nbranch = True\nparallel = True\ncontext = {_CHILD}\npatch = fork, _exit\n"
        f"data_file = {folder / 'data'}\ninclude =\n    {files}\n"
    )
    custom = folder / "children"
    custom.mkdir(exist_ok=True)
    (custom / "sitecustomize.py").write_text("import coverage\n\ncoverage.process_startup()\n")
    paths = [str(custom), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ |= {"COVERAGE_PROCESS_START": str(config), "PYTHONPATH": os.pathsep.join(paths)}


def _run(measured: coverage.Coverage, names: Sequence[str], seconds: Path) -> int:
    contexts = Contexts(measured)
    measured.start()
    code = pytest.main([f"--rootdir={ROOT}", *arguments(names)], plugins=[contexts])
    measured.stop()
    measured.save()
    seconds.write_text(json.dumps(contexts.seconds))
    return int(code)


def _count(measured: coverage.Coverage, report: Report, path: str) -> dict[int, list[str]]:
    """Count one file; which tests go through which of its lines."""
    name = str(Path(path).relative_to(ROOT))
    analysis = measured._analyze(path)
    numbers = analysis.numbers
    report.counts["statements"] += numbers.n_statements
    report.counts["statements missed"] += numbers.n_missing
    report.counts["branches"] += numbers.n_branches
    report.counts["branches missed"] += numbers.n_missing_branches
    report.counts["excused lines"] += numbers.n_excluded
    for line in sorted(analysis.missing):
        report.found(f"{name}:{line}", "no test comes here")
    for line, arcs in sorted(analysis.missing_branch_arcs().items()):
        if line not in analysis.missing:
            report.found(f"{name}:{line}", f"never goes on at {sorted(arcs)}")
    contexts = measured.get_data().contexts_by_lineno(path)
    return {line: sorted({*tests} - {"", _CHILD}) for line, tests in contexts.items()}


def main() -> int:
    """Run it from a command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--report", type=Path, default=RESULTS / "branches.json")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--add", nargs="+", help="tests to note as well: there is no report")
    given = parser.parse_args()
    report = Report("branches", 0, given.report)
    if given.add:
        keep(measure(report, 1, given.add), more=True)
        return 0
    keep(measure(report, given.processes, TESTS), more=False)
    for finding in report.findings:
        print(finding["case"], finding["what"])
    report.step(report.counts["branches"])
    report.write()
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
