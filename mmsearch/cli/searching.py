"""Commands that look for something: query, like, label, embed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsearch.cli.app import app, opened
from mmsearch.cli.options import (
    All,
    ExcludeSelf,
    Explain,
    Form,
    Fuse,
    Grouped,
    Index,
    Json,
    LeastRelevance,
    Many,
    Model,
    Models,
    Nul,
    Offline,
    Sorted,
    Thumbnails,
    Type,
    Where,
)
from mmsearch.errors import UsageError, chosen
from mmsearch.records import Modality

if TYPE_CHECKING:
    from mmsearch.language import Query


@app.command()
def query(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="QUERY",
            help="Words; + adds, - leaves out, 2: weighs; AND, OR, NOT join; ./x.jpg is a file.",
        ),
    ] = None,
    index: Index = None,
    model: Models = None,
    offline: Offline = False,
    k: Many = 10,
    all: All = False,
    type: Type = None,
    where: Where = None,
    image: Annotated[
        list[Path] | None,
        typer.Option("--image", metavar="FILE", help="Add a picture to the query."),
    ] = None,
    audio: Annotated[
        list[Path] | None,
        typer.Option("--audio", metavar="FILE", help="Add a sound to the query."),
    ] = None,
    text_file: Annotated[
        list[Path] | None,
        typer.Option("--text-file", metavar="FILE", help="Add what a text file says."),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option("--queries", metavar="FILE", help="Many queries, one a line; - is stdin."),
    ] = None,
    fusion: Fuse = "sum",
    subtract: Annotated[
        bool, typer.Option("--subtract", help="- moves away from something, not leaves it out.")
    ] = False,
    hybrid: Annotated[
        str,
        typer.Option("--hybrid", metavar="auto|off|only", help="Words of names and texts as well."),
    ] = "auto",
    exclude_self: ExcludeSelf = False,
    form: Form = "table",
    sort: Sorted = "score",
    min_relevance: LeastRelevance = None,
    group_duplicates: Grouped = False,
    explain: Explain = False,
    thumbnails: Thumbnails = None,
    json: Json = False,
    nul: Nul = False,
) -> None:
    """Print the items nearest to a query, best first."""
    from mmsearch import language

    parts = [language.parse(words)] if words else []
    parts += [language.image(path) for path in image or []]
    parts += [language.audio(path) for path in audio or []]
    parts += [language.text(path) for path in text_file or []]
    if queries is None:
        asked = {" ".join(words or []): language.combine(parts)}
    elif parts:
        raise UsageError("give one query, or --queries FILE with one a line")
    else:
        asked = {line: language.said(line) for line in _lines(queries)}
    _answer(
        asked, index, model, form=form, json=json, nul=nul, thumbnails=thumbnails,
        exclude_self=exclude_self, many=queries is not None, k=k, modality=type, where=where,
        all=all, fusion=fusion, subtract=subtract, hybrid=hybrid, sort=sort,
        min_relevance=min_relevance, group_duplicates=group_duplicates, explain=explain,
    )  # fmt: skip


@app.command()
def like(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE", help="Pictures, sounds and texts to be like.")
    ],
    unlike: Annotated[
        list[str] | None,
        typer.Option("--unlike", metavar="FILE", help="What not to be like; may be repeated."),
    ] = None,
    index: Index = None,
    model: Models = None,
    offline: Offline = False,
    k: Many = 10,
    all: All = False,
    type: Type = None,
    where: Where = None,
    fusion: Fuse = "sum",
    exclude_self: ExcludeSelf = False,
    form: Form = "table",
    sort: Sorted = "score",
    min_relevance: LeastRelevance = None,
    group_duplicates: Grouped = False,
    explain: Explain = False,
    thumbnails: Thumbnails = None,
    json: Json = False,
    nul: Nul = False,
) -> None:
    """Print the items most like some files, and not like others."""
    from mmsearch import language

    parts = [language.file(path) for path in files]
    parts += [-language.file(path) for path in unlike or []]
    _answer(
        {" ".join(files): language.combine(parts)}, index, model, form=form, json=json, nul=nul,
        thumbnails=thumbnails, exclude_self=exclude_self, k=k, modality=type, where=where, all=all,
        fusion=fusion, sort=sort, min_relevance=min_relevance, group_duplicates=group_duplicates,
        explain=explain,
    )  # fmt: skip


def _lines(path: Path) -> list[str]:
    """The queries of a file, one a line; empty lines are none."""
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    found = [line.strip() for line in data.decode("utf-8", "replace").splitlines() if line.strip()]
    if not found:
        raise UsageError(f"{path} has no queries: one a line")
    return found


def _answer(
    asked: dict[str, Query],
    index: Path | None,
    model: list[str] | None,
    *,
    form: str,
    json: bool,
    nul: bool,
    thumbnails: bool | None,
    exclude_self: bool,
    many: bool = False,
    **how: Any,
) -> None:
    """Answer queries, each under its name, and print what was found."""
    from mmsearch.language import terms_of
    from mmsearch.printing import Format, note, print_hits, print_many

    shape = Format.JSON if json else chosen(Format, "--format", form)
    if exclude_self:
        values = [term.value for query in asked.values() for term in terms_of(query)]
        how["exclude"] = [value for value in values if isinstance(value, Path)]
    with opened(index, model) as library:
        found = library.query_many(asked.values(), **how)
        if waiting := library.waiting():
            older, count = waiting
            note(
                f"this library was made by {older}; run mmsearch index: until then {count:,} files "
                "are found only by the words of their names and texts"
            )
    for line in dict.fromkeys(line for hits in found for line in hits.notes):
        note(line)
    if many:
        print_many(dict(zip(asked, found, strict=True)), shape, nul=nul, thumbnails=thumbnails)
    else:
        print_hits(found[0], shape, nul=nul, thumbnails=thumbnails, title=next(iter(asked)))
    sys.stdout.flush()


@app.command()
def label(
    vocab: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|WORDS",
            help="The labels: cat,dog,car, or a file with one a line; none: those that are stored.",
        ),
    ] = None,
    index: Index = None,
    model: Models = None,
    offline: Offline = False,
    type: Annotated[
        Modality | None, typer.Option("--type", help="Only files of this kind.")
    ] = None,
    where: Annotated[
        str | None, typer.Option("--where", metavar="EXPR", help="Only what fits, as in query.")
    ] = None,
    template: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help='Such as "a photo of a {}"; several are averaged.'),
    ] = None,
    top: Annotated[
        int, typer.Option(metavar="N", min=1, help="How many labels a file gets at most.")
    ] = 1,
    min_relevance: Annotated[
        float, typer.Option(metavar="X", min=0, max=1, help="None that is less relevant.")
    ] = 0.0,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Write them there, not into the library."),
    ] = None,
    sidecars: Annotated[
        bool,
        typer.Option(
            "--sidecars", help="Write x.jpg.labels.csv beside x.jpg, not into the library."
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace sidecars that are there.")
    ] = False,
    clear: Annotated[
        bool, typer.Option("--clear", help="Take the stored labels from these files.")
    ] = False,
    form: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="table|json|ndjson|csv", help="Print every label, not the counts."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Label what is indexed with the words of a vocabulary; a query then finds it by them."""
    from mmsearch.labels import write_csv, write_sidecars
    from mmsearch.printing import note, print_json, print_labels

    with opened(index, model) as library:
        if clear:
            count = library.clear_labels(modality=type, where=where)
            print_json({"cleared": count}) if json else print(f"{count:,} files cleared of labels")
            return
        if vocab is None:
            labels = library.labels(modality=type, where=where)
        else:
            labels = library.label(
                vocab, templates=template or (), top=top, modality=type, where=where,
                min_relevance=min_relevance, store=out is None and not sidecars,
            )  # fmt: skip
    if out is not None:
        write_csv(out, labels)
    if sidecars:
        note(f"{write_sidecars(labels, force=force):,} sidecars written")
    print_labels(labels, "json" if json else form)
    sys.stdout.flush()


@app.command()
def embed(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT", help="Texts or files; - reads one a line."),
    ] = None,
    type: Annotated[Modality, typer.Option("--type", help="What the inputs are.")] = ...,  # type: ignore[assignment]
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE.npy", help="Where the rows are written.")
    ] = ...,  # type: ignore[assignment]
    model: Model = None,
    offline: Offline = False,
) -> None:
    """Write the vectors of texts or files to a .npy file.

    They are float32 unit rows, (n, dim), in the order of the inputs.
    """
    import numpy as np

    from mmsearch.embedding import embed as embed_all
    from mmsearch.settings import load_settings

    given = inputs or []
    if given == ["-"]:
        given = [os.fsdecode(line.rstrip(b"\n")) for line in sys.stdin.buffer]
    if not given:
        raise UsageError("nothing to embed: give texts or files, or - to read one a line")
    rows = embed_all(given, type, load_settings(model=model).model)
    with open(out, "wb") as file:  # np.save would add a suffix of its own to another name
        np.save(file, rows)
