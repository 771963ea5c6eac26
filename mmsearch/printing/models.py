"""Models on stdout: a line each, or all that is known of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmsearch.encoders.known import Known


def print_models(models: Sequence[Known], default: str) -> None:
    """A table; the default for new libraries is marked."""
    rows = [("", "name", "state", "reads", "dim", "MB", "licence", "languages", "published")]
    rows += [
        (
            "*" if one.name == default else "", one.name, one.state, _reads(one), str(one.dim),
            f"{one.bytes / 1e6:,.0f}" if one.bytes else "-", one.licence or "-",
            one.languages or "-", _recall(one),
        )
        for one in models
    ]  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def print_model(one: Known) -> None:
    """Everything there is to say, a line each."""
    said = {
        "name": one.name, "state": one.state, "reads": _reads(one), "dimension": one.dim,
        "parameters": f"{one.parameters} million" if one.parameters else None,
        "on disk": f"{one.bytes / 1e6:,.1f} MB" if one.bytes else None, "licence": one.licence,
        "languages": one.languages, "published": _recall(one), "source": one.source,
        "folder": one.folder, "weights": one.weights, "fingerprint": one.fingerprint,
    }  # fmt: skip
    for name, value in said.items():
        if value is not None:
            print(f"{name:<12}{value}")
    for tower, cosine in one.precision.items():
        print(f"{'parity':<12}{tower}: cosine {cosine} with torch, at least")


def _reads(one: Known) -> str:
    return ", ".join(one.modalities)


def _recall(one: Known) -> str:
    return ", ".join(f"{what} {value:g}" for what, value in one.recall.items()) or "-"
