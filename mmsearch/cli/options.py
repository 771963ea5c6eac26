"""Options that several commands share, as typer reads them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mmsearch.records import Modality

Index = Annotated[
    Path | None,
    typer.Option(
        "--index",
        metavar="DIR",
        help="The library's folder; default: $MMSEARCH_INDEX, else one in your data folder.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="NAME", help="The model, or a training run; default: builtin."),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="A model, or a training run; may be repeated. Default: those of the library.",
    ),
]


def _offline(said: bool) -> bool:
    """As good as the variable: whatever opens a model in this process, or below it, sees it."""
    if said:
        os.environ["MMSEARCH_OFFLINE"] = "1"
    return said


Offline = Annotated[
    bool,
    typer.Option(
        "--offline", callback=_offline, expose_value=False, help="Fetch nothing from anywhere."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


Many = Annotated[int, typer.Option("-k", metavar="N", min=1, help="How many answers.")]
All = Annotated[bool, typer.Option("--all", help="No cut where relevance ends.")]
Type = Annotated[Modality | None, typer.Option("--type", help="Only items of this kind.")]
Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="EXPR",
        help='Only what fits, such as "width > height and taken >= 2024".',
    ),
]
Form = Annotated[
    str,
    typer.Option("--format", metavar="table|json|ndjson|csv|paths|html", help="How to print."),
]
Sorted = Annotated[
    str,
    typer.Option(
        "--sort", metavar="score|date|path", help="The order of what was found; date: newest."
    ),
]
LeastRelevance = Annotated[
    float | None,
    typer.Option("--min-relevance", metavar="X", min=0, max=1, help="Leave out what is less."),
]
Grouped = Annotated[
    bool,
    typer.Option("--group-duplicates", help="One answer for copies and what looks the same."),
]
Explain = Annotated[
    bool, typer.Option("--explain", help="Say which words, and which part, carried an answer.")
]
Thumbnails = Annotated[
    bool | None,
    typer.Option(
        "--thumbnails/--no-thumbnails",
        help="Small pictures, in terminals that can (kitty, iTerm2) and in HTML.",
    ),
]
ExcludeSelf = Annotated[
    bool, typer.Option("--exclude-self", help="Not the files that the query is made of.")
]
Fuse = Annotated[
    str,
    typer.Option("--fusion", metavar="sum|mean|product|max", help="How + makes one of several."),
]
Nul = Annotated[
    bool, typer.Option("-0", help="Print bare paths, each with a NUL behind: for xargs -0.")
]
