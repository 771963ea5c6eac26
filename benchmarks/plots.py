"""The report's plots, from what the scripts wrote: SVG, the same bytes for the same figures.

Each file names the figures that it shows by their hash, so that a test can tell one that is behind.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tables import SAME, SCALE, peers_figures, served

Found = dict[str, Any]

COLOURS = {
    "mmsearch": "#1b5e8c", SAME: "#6aaed6", "rclip": "#d9822b", "clip-retrieval": "#7a4f9a",
    "sentence-transformers": "#5b8c5a",
}  # fmt: skip
LINES = ["#1b5e8c", "#d9822b", "#5b8c5a", "#7a4f9a", "#b23a48", "#6aaed6", "#8a6d3b", "#444444"]
mpl.rcParams.update({
    "svg.hashsalt": "mmsearch", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True, "grid.color": "#e6e6e6",
    "legend.frameon": False, "axes.titlesize": 10,
})  # fmt: skip


def hash_of(found: Found) -> str:
    """SHA-256 of a result, as a plot of it carries it."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def draw(name: str, found: Found, folder: Path) -> Path:
    """One of PLOTS, drawn from its result."""
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    PLOTS[name][1](figure, found)
    path = folder / f"{name}.svg"
    figure.savefig(path, metadata={"Date": None, "Description": f"figures {hash_of(found)}"})
    # a line of matplotlib's own may end in a space, which some tools take for a mistake
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")
    return path


def recall(figure: Figure, found: Found) -> None:
    """R@10 by direction: by bare vectors, and as a library answers."""
    axes: Axes = figure.subplots()
    names, bare, library = [], [], []
    for one in found["sets"].values():
        for direction, measures in one["measures"].items():
            names.append(f"{one['told']}\n{direction.replace('_to_', '→')}")
            bare.append(100 * measures["embeddings"]["recall@10"])
            answered = served(measures)
            library.append(100 * answered["recall@10"] if answered else 0.0)
    places = range(len(names))
    for shift, values, told, colour in (
        (-0.2, bare, "bare vectors, exact search", COLOURS[SAME]),
        (0.2, library, "as a library answers", COLOURS["mmsearch"]),
    ):
        bars = axes.barh(
            [place + shift for place in places], values, 0.38, color=colour, label=told
        )
        axes.bar_label(bars, [f"{value:.0f}" if value else "" for value in values], padding=2)
    axes.set(yticks=list(places), xlim=(0, 105), xlabel="R@10, %")
    axes.set_yticklabels(names, fontsize=7)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    figure.set_size_inches(7.2, 1.2 + 0.42 * len(names))
    figure.legend(loc="outside upper center", ncols=2)


def latency(figure: Figure, found: Found) -> None:
    """Warm queries against the number of pictures."""
    axes: Axes = figure.subplots()
    sizes = [one["items"] for one in found["sizes"]]
    ways = [
        "text",
        "text, vectors alone",
        "text, 1 % kept",
        "picture",
        "encoding alone",
        "FAISS Flat",
    ]
    for way, colour in zip(ways, LINES, strict=False):
        if way in found["sizes"][0]["warm_ms"]:
            values = [one["warm_ms"][way]["median"] for one in found["sizes"]]
            bare = way in ("encoding alone", "FAISS Flat")
            told = f"bare: {way}" if bare else way
            style = ":" if bare else "-"
            axes.plot(sizes, values, style, marker="o", markersize=4, color=colour, label=told)
    axes.set(xscale="log", yscale="log", xlabel="pictures", ylabel="ms a query, warm, median")
    figure.legend(loc="outside right upper")


def scale(figure: Figure, found: Found) -> None:
    """What a library costs against the number of pictures: time left, memory and disk right."""
    left, right = figure.subplots(1, 2)
    sizes = [one["items"] for one in found["sizes"]]
    for name, colour in zip(SCALE, [*LINES, *LINES], strict=False):
        axes = left if name.endswith(", s") else right
        told = name.removesuffix(", s").removesuffix(", MB")
        values = [SCALE[name](one) for one in found["sizes"]]
        axes.plot(sizes, values, marker="o", markersize=4, color=colour, label=told)
    left.set(xscale="log", yscale="log", xlabel="pictures", ylabel="s")
    right.set(xscale="log", yscale="log", xlabel="pictures", ylabel="MB")
    for axes in (left, right):
        axes.legend(loc="upper left", fontsize=6.5)
        axes.set_ylim(top=axes.get_ylim()[1] * 30)


def peers(figure: Figure, found: Found) -> None:
    """What each program takes for the same photos: less is better."""
    panels = {
        "indexing a photo\nCPU ms": "cpu_a_photo_ms",
        "a query as a process\nCPU s": "cold_query_cpu_s",
        "a query in a running\nprocess, ms": "warm_query_ms",
        "indexing, memory\nMB": "indexing_memory_mb",
    }
    programs = peers_figures(found)
    names = list(programs)
    panels = {
        title: key for title, key in panels.items() if any(key in one for one in programs.values())
    }
    for axes, (title, key) in zip(
        figure.subplots(1, len(panels), sharey=True), panels.items(), strict=True
    ):
        values = [_middle(programs[name].get(key)) for name in names]
        bars = axes.barh(names, values, color=[COLOURS[name] for name in names])
        told = [f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in values]
        axes.bar_label(bars, told, padding=2, fontsize=7)
        axes.set_title(title, fontsize=8)
        axes.set_xlim(0, 1.35 * max(values))
        axes.set_xticks([])
        axes.grid(visible=False)
        axes.invert_yaxis() if axes.get_ylim()[0] < axes.get_ylim()[1] else None
    figure.set_size_inches(7.2, 2.4)


def _middle(figure: Any) -> float:
    return float(figure["median"] if isinstance(figure, dict) else figure or 0.0)


def index(figure: Figure, found: Any) -> None:
    """Recall against queries a second, asked in text without a filter, by data set and engine."""
    rows = [
        row for row in found
        if row["queries"] == "text" and row.get("qps_batch")
        and not str(row["setting"]).startswith("keeps")
    ]  # fmt: skip
    sets = sorted({(row["n"], row["data"]) for row in rows})
    shown = [
        rows_of
        for rows_of in sets
        if len({r["engine"] for r in rows if r["data"] == rows_of[1]}) > 1
    ]
    engines = sorted({row["engine"] for row in rows}, key=lambda name: (name != "mmsearch", name))
    colour = dict(zip(engines, [*LINES, *LINES], strict=False))
    panels = figure.subplots(1, max(len(shown), 1), squeeze=False)[0]
    for axes, (n, data) in zip(panels, shown, strict=False):
        for engine in engines:
            mine = [r for r in rows if r["engine"] == engine and (r["n"], r["data"]) == (n, data)]
            mine.sort(key=lambda row: row["recall@10"])
            x, y = [row["recall@10"] for row in mine], [row["qps_batch"] for row in mine]
            axes.plot(x, y, "o-", markersize=4, color=colour[engine], label=engine)
        axes.set(yscale="log", xlabel="recall@10, text", title=f"{data}\n{n:,}")
    panels[0].set_ylabel("queries a second, in batches")
    handles = [mpl.lines.Line2D([], [], marker="o", color=colour[e], label=e) for e in engines]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=7)


# name: the result it shows, and how
PLOTS: dict[str, tuple[str, Callable[[Figure, Any], None]]] = {
    "recall": ("retrieval", recall),
    "latency": ("latency", latency),
    "scale": ("scale", scale),
    "peers": ("peers", peers),
    "index": ("index", index),
}
