"""Put what the committed runs found into the README's promise, between its two marks.

    PYTHONPATH=tests python -m campaigns.promise

A test holds the README against this: no figure in it is typed by hand.
"""

from __future__ import annotations

import json
from typing import Any

from campaigns.branches import ROOT
from campaigns.report import RESULTS

BEGIN = "<!-- campaigns: tests/campaigns/promise.py writes them -->"
END = "<!-- end of campaigns -->"


def table() -> str:
    """A row for each committed run."""
    rows = ["| campaign | tried | findings | when |", "| --- | --- | --- | --- |"]
    for path in sorted(RESULTS.glob("*.json")):
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        counts = told.get("counts", {})
        found = counts.get("findings", len(told["findings"]))
        share = f" ({told['percent']:g} % pass)" if "percent" in told else ""
        name = told.get("campaign", path.stem)
        when = f"{told.get('date', '')} {told.get('commit', '')}".strip() or told["mmsearch"]
        rows.append(f"| {name} (`{path.stem}.py`) | {told['size']:,} | {found:,}{share} | {when} |")
    return "\n".join(rows)


def spliced(readme: str) -> str:
    """The README with today's figures."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(spliced(path.read_text(encoding="utf-8")), encoding="utf-8")
