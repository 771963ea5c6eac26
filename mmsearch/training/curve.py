"""How a run went, as one picture: the loss, and the recall of the held-out pairs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any


def draw(metrics: Sequence[dict[str, Any]]) -> bytes:
    """A PNG of the lines of metrics.jsonl. No window, no state of matplotlib's own."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    losses, recalls = figure.subplots(1, 2)
    steps = [(row["step"], row["loss"]) for row in metrics if "loss" in row]
    losses.plot(*zip(*steps, strict=True) if steps else ([], []), color="tab:blue", linewidth=1)
    losses.set(xlabel="step", ylabel="loss")
    measured = [row for row in metrics if row.get("held_out")]
    names = dict.fromkeys(name for row in measured for name in row["held_out"])
    for name in names:
        points = [(r["step"], r["held_out"][name]["recall@10"]) for r in measured]
        label = name.replace("_to_", " → ")
        recalls.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
    recalls.set(xlabel="step", ylabel="held-out recall@10", ylim=(0, 1.02))
    if names:
        recalls.legend()
    for axes in (losses, recalls):
        axes.grid(alpha=0.3)
    out = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(out, format="png")
    return out.getvalue()
