"""Commands that measure: bench recall, labels, speed and self."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mmsearch.cli.app import bench, opened
from mmsearch.cli.options import Index, Json, Model

Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Write the result as JSON, too.")
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Of every draw.")]


@bench.command()
def recall(
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            metavar="DIR",
            help="Files with captions or classes: folder, list, tar.",
        ),
    ] = ...,  # type: ignore[assignment]
    split: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which of them; default: test, of classes all."),
    ] = None,
    captions: Annotated[
        Path | None,
        typer.Option("--captions", metavar="FILE", help="Other captions of the same files."),
    ] = None,
    folds: Annotated[
        int, typer.Option(metavar="N", help="Also the mean over so many parts, as COCO's five.")
    ] = 0,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=2, help="Only so many files, drawn by the seed.")
    ] = None,
    seed: Seed = 0,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Go without the files that are not there.")
    ] = False,
    model: Model = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Print how often captions find their file, files their captions, and classes each other.

    By exact search over the raw embeddings, and as a library answers; ties count against us.
    mmsearch/datasets/captions.py and classes.py say how DIR may look.
    """
    from mmsearch.evaluation import measure_recall
    from mmsearch.printing import note, print_recall
    from mmsearch.settings import load_settings

    name = load_settings(model=model).model
    found = measure_recall(
        data, split, captions=captions, model=name, folds=folds, limit=limit, seed=seed,
        skip_missing=skip_missing, note=note,
    )  # fmt: skip
    _print(found, print_recall, out, json)


@bench.command()
def labels(
    data: Annotated[
        Path,
        typer.Option(
            "--data", metavar="DIR", help="Files with classes: a folder for each, ESC-50; or a zip."
        ),
    ] = ...,  # type: ignore[assignment]
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which of them; default: all.")
    ] = None,
    template: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help='Such as "a photo of a {}"; several are averaged.'),
    ] = None,
    model: Model = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Print how often the name of a file's class is the label that fits it best.

    Top-1 accuracy and macro F1, from 0 to 1. mmsearch/datasets/classes.py says how DIR may look.
    """
    from mmsearch.evaluation import measure_labels
    from mmsearch.printing import note, print_labelling
    from mmsearch.settings import load_settings

    name = load_settings(model=model).model
    found = measure_labels(data, split, templates=template or (), model=name, note=note)
    _print(found, print_labelling, out, json)


@bench.command()
def speed(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="FOLDER", help="Files to index; none: pictures that are made up."),
    ] = None,
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, help="Files at most, drawn by the seed.")
    ] = 256,
    repeat: Annotated[int, typer.Option(metavar="N", min=1, help="Turns of each stage.")] = 3,
    seed: Seed = 0,
    model: Model = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Print what indexing and queries take here, stage by stage, beside the limit of each.

    CPU and wall time, memory; the files are indexed into a temporary library.
    """
    from mmsearch.evaluation.speed import measure_speed
    from mmsearch.printing import note, print_speed
    from mmsearch.settings import load_settings

    name = load_settings(model=model).model
    found = measure_speed(folder, model=name, limit=limit, repeat=repeat, seed=seed, note=note)
    _print(found, print_speed, out, json)


@bench.command(name="self")
def self_test(
    index: Index = None,
    sample: Annotated[
        int, typer.Option(metavar="N", min=1, help="Files, captions and names of each kind.")
    ] = 100,
    seed: Seed = 0,
    model: Model = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Test your own library by itself: does it find what it should, and is it always the same?

    Captions, names and altered copies of files look for their file; answers are held against
    each other and against brute force. The library is only read. Exit code 1 when something
    is not as it should be.
    """
    from mmsearch.evaluation.self_test import self_test as test
    from mmsearch.printing import note, print_self

    with opened(index, model) as library:
        found = test(library, count=sample, seed=seed, note=note)
    _print(found, print_self, out, json)
    if found["problems"]:
        raise typer.Exit(1)


def _print(found: dict[str, Any], table: Any, out: Path | None, json: bool) -> None:
    from mmsearch.printing import print_json

    if out is not None:
        from json import dumps

        out.write_text(dumps(found, indent=1) + "\n", encoding="utf-8")
    if json:
        print_json(found)
    else:
        table(found)
