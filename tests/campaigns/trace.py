"""Which tests are to try a mutant."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from campaigns.branches import TRACE
from campaigns.mutation import Mutant


class Trace:
    """Which tests go through which line and how long each takes, from campaigns/branches.py."""

    def __init__(self, budget: float) -> None:
        """`budget`: seconds that the tests of a mutant may take in all."""
        told = json.loads(TRACE.read_text())
        self._lines: dict[str, dict[int, list[str]]] = {
            file: {int(line): tests for line, tests in lines.items() if tests}
            for file, lines in told["lines"].items()
        }
        self.seconds: dict[str, float] = told["seconds"]
        self._budget = budget
        self._noticed: Counter[tuple[str, str]] = Counter()

    def noticed(self, file: str, test: str) -> None:
        """Have this test tried early for other mutants of this file."""
        self._noticed[file, test] += "::" in test  # importing it is none

    def reaches(self, mutant: Mutant, first: int) -> bool:
        """Whether a test goes through its function, which begins at `first`, as far as there."""
        return any(first < line <= mutant.line for line in self._lines.get(mutant.file, {}))

    def tests(self, mutant: Mutant, first: int | None) -> list[str]:
        """Those that go through its line, as many as the budget of CPU allows: the shortest
        first, and sooner what noticed others, but one test with its parameters not before all
        others. `first` is the line that its function begins at, None for what runs at import.
        """
        lines = self._lines.get(mutant.file, {})
        folder = {one for one in self._lines if Path(one).parent == Path(mutant.file).parent}
        own = found = self._through({mutant.file}) or self._through(folder)
        if first is None:  # other files of the folder may use what is made at import
            found = (
                own
                | self._through(folder)
                | {test for (file, test), n in self._noticed.items() if n and file == mutant.file}
            )
        # a line that only goes on with a statement is not traced: that before it is
        elif at := max((n for n in lines if first < n <= mutant.line), default=None):
            own = found = set(lines[at])
        met, costs = Counter[str](), {}
        for test in sorted(found, key=lambda test: (self.seconds.get(test, 0), test)):
            name = test.partition("[")[0]
            met[name] += 1
            more = (1 if test in own else 4) / (1 + 9 * self._noticed[mutant.file, test])
            costs[test] = self.seconds.get(test, 0) * met[name] * more
        chosen, spent = [], 0.0
        for test in sorted(costs, key=lambda test: costs[test]):
            spent += self.seconds.get(test, 0)
            if chosen and spent > self._budget:
                break
            chosen.append(test)
        return chosen

    def _through(self, files: set[str]) -> set[str]:
        lines = (self._lines.get(file, {}) for file in files)
        return {test for there in lines for tests in there.values() for test in tests}
