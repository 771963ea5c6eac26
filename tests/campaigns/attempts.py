"""Trying mutants: each in a process of its own, with the tests that go through its line.

The process is forked from one that has collected all tests; there the function with the change
is given its new code. What runs when a file is imported is changed before that, in a process
that has imported nothing of ours. Other processes that a test starts import the changed file. A
test is stopped when it takes ten times the CPU that it took before, and a process when it uses
none for long.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest
from campaigns.branches import TESTS, InPlacePools, arguments
from campaigns.mutation import (
    ROOT,
    Mutant,
    Substitute,
    changed_function,
    functions_of,
    in_children,
    module_name,
    put_into,
)
from campaigns.report import in_memory
from campaigns.trace import Trace

_HANGS = 120  # seconds without using the CPU after which a process waits for something for ever
_MEMORY = 8 << 30  # bytes of address space
_OPTIONS = ("-s", "-p", "no:xdist", "-p", "no:cacheprovider", f"--rootdir={ROOT}")
_UNTRIED = 90  # the exit code of a process where the change could not be made


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a mutant, by which test, and what that said."""

    fate: str  # killed, endless, hangs, survived, untried
    test: str = ""
    said: str = ""

    @property
    def noticed(self) -> bool:
        """Whether a test failed, or did not come to an end."""
        return self.fate in ("killed", "endless", "hangs")


@dataclass
class _Running:
    mutant: Mutant | None
    tests: Sequence[str]
    folder: Path
    cpu: int = 0
    moved: float = field(default_factory=time.monotonic)  # when it last used the CPU


class Attempts:
    """Processes, some at a time; `tell` hears of each mutant."""

    def __init__(self, processes: int, tell: Callable[[Mutant, Fate], None]) -> None:
        self._processes, self._tell = processes, tell
        self._running: dict[int, _Running] = {}
        self._noticing: dict[str, Sequence[str]] = {}  # by test, with those that ran before it
        self.failed: list[Fate] = []  # tests that fail without any change

    def noticing(self) -> list[Sequence[str]]:
        """Of each test that noticed a mutant, what ran when it first did, and then itself."""
        return list(self._noticing.values())

    def begin(self, mutant: Mutant | None, tests: Sequence[str]) -> Path | None:
        """Fork when there is room for one more; in the child, the folder to say in what it saw.
        No mutant: to run tests as they are.
        """
        while len(self._running) >= self._processes:
            self._wait()
        folder = in_memory()
        child = os.fork()
        if child:
            self._running[child] = _Running(mutant, tests, folder)
            return None
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        os.environ["PYTEST_DEBUG_TEMPROOT"] = os.environ["TMPDIR"] = str(folder)
        tempfile.tempdir = str(folder)
        if mutant is not None:
            paths = [in_children(mutant, folder), *filter(None, [os.environ.get("PYTHONPATH")])]
            os.environ["PYTHONPATH"] = os.pathsep.join(paths)
        return folder

    def end(self) -> None:
        """Wait for all of them."""
        while self._running:
            self._wait()

    def stop(self) -> None:
        """End those that still run; nothing is said of them."""
        for child, one in self._running.items():
            _end_group(child)
            shutil.rmtree(one.folder, ignore_errors=True)

    def _wait(self) -> None:
        """Until one of them has ended."""
        while True:
            for child, one in self._running.items():
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    self._judge(child, os.waitstatus_to_exitcode(status))
                    return
                if (cpu := _ticks(child)) != one.cpu:
                    one.cpu, one.moved = cpu, time.monotonic()
                elif time.monotonic() - one.moved > _HANGS:
                    os.killpg(child, signal.SIGKILL)
            time.sleep(0.02)

    def _judge(self, child: int, code: int) -> None:
        one = self._running.pop(child)
        _end_group(child)
        seen = seen_in(one.folder)
        shutil.rmtree(one.folder, ignore_errors=True)
        found = fate(code, seen)
        if one.mutant is not None:
            self._tell(one.mutant, found)
            if found.noticed and found.test in one.tests:
                ran = one.tests[: one.tests.index(found.test) + 1]
                self._noticing.setdefault(found.test, ran)
        elif code:
            self.failed.append(found)


def fate(code: int, seen: Sequence[Fate]) -> Fate:
    """Of a mutant whose process ended so. `seen` are tests that failed, and the last that began."""
    last = seen[-1] if seen else Fate("untried")
    if code == 0:
        return Fate("survived")
    if code == 1 and last.fate == "killed":
        return last
    if code == -signal.SIGPROF:
        return Fate("endless", last.test)
    if code == -signal.SIGKILL:
        return Fate("hangs", last.test)
    if code < 0:
        return Fate("killed", last.test, f"signal {-code}")
    return Fate("untried", last.test, f"exit code {code}")


def seen_in(folder: Path) -> list[Fate]:
    """What a child wrote."""
    path = folder / "seen"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found = [Fate(*json.loads(line)) for line in lines]
    failed = [one for one in found if one.fate == "killed"]
    return failed or found[-1:]


def _ticks(child: int) -> int:
    """The CPU that a process has used, and children of it that it waited for."""
    with suppress(OSError):
        words = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, words[11:15]))
    return 0


def _end_group(child: int) -> None:
    with suppress(ProcessLookupError):  # what its tests started, and left
        os.killpg(child, signal.SIGKILL)


class Tests(InPlacePools):
    """A pytest plugin for a child: runs these of the tests that are collected, until one fails."""

    def __init__(self, tests: Sequence[str], folder: Path, seconds: dict[str, float]) -> None:
        self._tests, self._seen, self._seconds = tests, folder / "seen", seconds
        self._failed = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> NoReturn:
        """End the process with 0 where all passed, 1 where one failed."""
        there = {item.nodeid: item for item in session.items}
        items = [there[test] for test in self._tests if test in there]
        if not items:
            os._exit(_UNTRIED)
        for item, following in zip(items, [*items[1:], None], strict=True):
            self._say(Fate("began", item.nodeid))
            signal.setitimer(signal.ITIMER_PROF, 3 + 10 * self._seconds.get(item.nodeid, 0))
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self._failed:
                os._exit(1)
        os._exit(0)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failure, in the test or in its fixtures."""
        if report.failed:
            self._failed = True
            crash = getattr(report.longrepr, "reprcrash", None)
            said = crash.message if crash else str(report.longrepr)
            self._say(Fate("killed", report.nodeid, " ".join(said.split())[:300]))

    def _say(self, one: Fate) -> None:
        with self._seen.open("a", encoding="utf-8") as file:
            file.write(json.dumps([one.fate, one.test, one.said]) + "\n")


class InCollectedTests(InPlacePools):
    """A pytest plugin: instead of the tests, each mutant with those that go through its line;
    then each test that noticed one, after the same tests as there, without a change.
    """

    def __init__(self, mutants: Sequence[Mutant], attempts: Attempts, trace: Trace) -> None:
        self._mutants, self._attempts, self._trace = mutants, attempts, trace

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In a child: the tests of its mutant. Here: until all have had their turn."""
        functions = functions_of({mutant.file for mutant in self._mutants})
        for mutant in self._mutants:
            before, after = changed_function(mutant) or (None, None)
            assert before is not None and after is not None
            chosen = self._trace.tests(mutant, before.co_firstlineno)
            if folder := self._attempts.begin(mutant, chosen):
                if not put_into(functions.get(before, []), after):
                    os._exit(_UNTRIED)
                self._run(session, chosen, folder)
        self._attempts.end()
        for chosen in self._attempts.noticing():
            if folder := self._attempts.begin(None, chosen):
                self._run(session, chosen, folder)
        self._attempts.end()
        return True

    def _run(self, session: pytest.Session, chosen: Sequence[str], folder: Path) -> NoReturn:
        tests = Tests(chosen, folder, self._trace.seconds)
        session.config.pluginmanager.register(tests)
        tests.pytest_runtestloop(session)


def in_collected_tests(mutants: Sequence[Mutant], attempts: Attempts, trace: Trace) -> None:
    """Try those whose change is in a function."""
    plugin = InCollectedTests(mutants, attempts, trace)
    pytest.main([*_OPTIONS, *arguments(TESTS)], plugins=[plugin])


def at_import(mutants: Sequence[Mutant], attempts: Attempts, trace: Trace) -> None:
    """Try those whose change runs when its file is imported."""
    _warm()
    for mutant in mutants:
        chosen = trace.tests(mutant, None)
        if folder := attempts.begin(mutant, chosen):
            _import(mutant, folder)
            files = sorted({str(ROOT / test.partition("::")[0]) for test in chosen})
            pytest.main([*_OPTIONS, *files], plugins=[Tests(chosen, folder, trace.seconds)])
            os._exit(_UNTRIED)  # none of its tests was reached
    attempts.end()


def _import(mutant: Mutant, folder: Path) -> None:
    """Import the file with the change, in a child; one that cannot be imported is noticed."""
    substitute, name = Substitute(mutant), module_name(mutant.file)
    sys.meta_path.insert(0, substitute)
    try:
        module = importlib.import_module(name)
    except BaseException as error:
        said = json.dumps(["killed", "import", f"{type(error).__name__}: {error}"])
        (folder / "seen").write_text(said + "\n", encoding="utf-8")
        os._exit(1)
    if module.__spec__ is None or module.__spec__.loader is not substitute:
        os._exit(_UNTRIED)


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


def try_all(mutants: Sequence[Mutant], attempts: Attempts, trace: Trace) -> None:
    """Try each; then see that the tests which noticed one pass without any.

    A function that no test goes through is perhaps called when its file is imported.
    """
    inside = {mutant: (changed := changed_function(mutant)) is not None
              and trace.reaches(mutant, changed[0].co_firstlineno)
              for mutant in mutants}  # fmt: skip
    here = os.getpid()
    try:
        at_import([mutant for mutant in mutants if not inside[mutant]], attempts, trace)
        left = [mutant for mutant in mutants if inside[mutant]]
        in_collected_tests(left, attempts, trace)
    finally:
        if os.getpid() != here:
            os._exit(_UNTRIED)
        attempts.stop()
