"""Write REPORT.md and its plots from the committed results.

    python benchmarks/report.py            # the plots need matplotlib: mmsearch[train]
    python benchmarks/report.py --text     # REPORT.md alone

A test holds the report against this, and each plot against the result it names. No figure in it
is typed by hand.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import tables

HERE = Path(__file__).resolve().parent
RESULTS, PLACE = HERE / "results", HERE / "REPORT.md"
PLOTS = RESULTS / "plots"


def report() -> str:
    """The whole report, from the JSON files in `results/`."""
    parts = [
        "# Report",
        "Written by `report.py` from `results/`; what is measured how stands in "
        "[`README.md`](README.md). Times are of one machine and one run each: compare them within "
        "a table only.",
        *_section("What is found", "retrieval", "recall", tables.retrieval, RECALL),
        *_peers(),
        *_section("How long a query takes", "latency", "latency", tables.latency, LATENCY),
        *_section("As a library grows", "scale", "scale", tables.scale, SCALE),
        *_index(),
    ]
    return "\n\n".join(parts) + "\n"


RECALL = (
    "Recall at k: the share of queries with a right answer among the first k; a photo of five "
    "captions is found when any of them is. Ties count against the model."
)
LATENCY = (
    "Libraries of made-up pictures near real ones. *Warm* is `Library.query` in a running process, "
    "each time with another text; *bare* is the same machine at the same time without a library."
)
SCALE = (
    "`mmsearch` as processes on libraries of made-up pictures; encoding, which no size changes, is "
    "left out of writing."
)


def read(name: str) -> Any:
    """A result, or None where it has not been measured."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _section(title: str, name: str, plot: str, table: Any, told: str) -> list[str]:
    found = read(name)
    if found is None:
        return [f"## {title}", f"Not measured: there is no `results/{name}.json`."]
    about = f"{told} ({tables.where(found)}; {found['model']}; `{name}.py`)"
    problems = [f"Not measured: {problem}." for problem in found.get("problems", ())]
    return [f"## {title}", about, "\n".join(table(found)), *problems, _plot(plot, title)]


def _plot(name: str, title: str) -> str:
    return f"![{title}](results/plots/{name}.svg)"


def _peers() -> list[str]:
    found = read("peers")
    title = "Beside other programs"
    if found is None:
        return [f"## {title}", "Not measured: there is no `results/peers.json`."]
    out = [f"## {title}"]
    if speed := tables.peers_speed(found):
        out += [tables.peers_told(found), "\n".join(speed), _plot("peers", title)]
    if "faults" in found:
        about = f"What they withstand ({tables.where(found['faults'])}):"
        out += [about, "\n".join(tables.peers_faults(found["faults"]))]
    if "recall" in found:
        one, of = found["recall"], found["recall"]["settings"]
        about = (
            f"What an index loses: {of['rows']:,} made-up pictures, {of['queries']:,} captions "
            f"({tables.where(one)}); clip-retrieval takes the index that autofaiss chooses:"
        )
        out += [about, "\n".join(tables.peers_recall(one))]
    missing = [name for name in ("indexing", "queries", "faults", "recall") if name not in found]
    return [*out, f"Not measured: {', '.join(missing)} (`peers.py --part`)."] if missing else out


def _index() -> list[str]:
    found = read("index")
    if found is None:
        return []
    title = "Recall against speed"
    return [f"## {title}", "Engines on the same vectors, asked in text (`index.py`).",
            "\n".join(tables.index(found)), _plot("index", title)]  # fmt: skip


def drawn() -> list[Path]:
    """Draw every plot whose result is there."""
    import plots

    PLOTS.mkdir(exist_ok=True)
    found = {name: read(result) for name, (result, _) in plots.PLOTS.items()}
    return [plots.draw(name, result, PLOTS) for name, result in found.items() if result]


if __name__ == "__main__":
    PLACE.write_text(report(), encoding="utf-8")
    if "--text" not in sys.argv[1:]:
        try:
            drawn()
        except ModuleNotFoundError as error:
            sys.exit(f"the plots were not drawn: {error}; pip install 'mmsearch[train]'")
