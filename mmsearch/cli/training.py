"""The command that trains a model."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsearch.cli.app import app, signals
from mmsearch.cli.options import Json
from mmsearch.errors import MissingExtra
from mmsearch.records import Modality

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmsearch.training.train import Trained


@app.command()
def train(
    pairs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PAIRS",
            help="A folder of x.jpg and x.txt, or a list: CSV, JSONL, Flickr8k, COCO, a tar.",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="RUN", help="The folder of the run.")
    ] = Path("run"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out where it stopped.")
    ] = False,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="builtin|open_clip:NAME/TAG|RUN", help="Where to start; default: builtin."
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the files are that a list names.")
    ] = None,
    freeze: Annotated[
        list[Modality] | None, typer.Option(help="Keep this tower as it is; may be repeated.")
    ] = None,
    lora: Annotated[
        int | None,
        typer.Option(metavar="RANK", min=1, help="Train low-rank adapters, and merge them."),
    ] = None,
    heads_only: Annotated[
        bool, typer.Option("--heads-only", help="Train the heads, on features computed once.")
    ] = False,
    loss: Annotated[
        str | None, typer.Option(metavar="info-nce|sigmoid", help="Default: info-nce.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="Default: 10.")] = None,
    batch: Annotated[
        int | None, typer.Option(metavar="N", help="Pairs at a time; default: 64.")
    ] = None,
    accumulate: Annotated[
        int | None,
        typer.Option(metavar="N", help="Batches that act as one large one; default: 1."),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(metavar="X", help="Its highest value; default: 0.0001.")
    ] = None,
    bf16: Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16.")] = False,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Default: 1.")] = None,
    held_out: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Of the files, to measure with; default: 0.1."),
    ] = None,
    no_augment: Annotated[
        bool, typer.Option("--no-augment", help="Train on the files as they are.")
    ] = False,
    json: Json = False,
) -> None:
    """Train a model on your own pairs of files and captions; --model RUN then opens it."""
    given = {
        "pairs": tuple(map(os.path.abspath, pairs)) if pairs else None,
        "images": os.path.abspath(images) if images else None,
        "init": os.path.abspath(init) if init and os.path.isdir(init) else init,
        "freeze": tuple(map(str, freeze)) if freeze else None,
        "lora": lora, "heads_only": heads_only or None, "loss": loss,
        "epochs": epochs, "batch": batch, "accumulate": accumulate,
        "learning_rate": learning_rate, "bf16": bf16 or None, "seed": seed,
        "held_out": held_out, "augment": False if no_augment else None,
    }  # fmt: skip
    said = {name: value for name, value in given.items() if value is not None}
    with signals() as received:
        trained = _train(str(out), said, resume, lambda: bool(received))
    _print_trained(trained, str(out), json, received)


def _train(out: str, said: dict[str, Any], resume: bool, stop: Callable[[], bool]) -> Trained:
    from mmsearch.printing import TrainingMeter, note

    try:
        from mmsearch.training.config import TrainConfig, resumed
        from mmsearch.training.train import train as run_training

        config = resumed(out, said) if resume else TrainConfig(**said, out=out)
        with TrainingMeter() as meter:
            return run_training(config, resume=resume, note=note, progress=meter, stop=stop)
    except ModuleNotFoundError as error:
        raise MissingExtra(f"mmsearch train ({error.name})", "train") from error


def _print_trained(trained: Trained, out: str, json: bool, received: list[int]) -> None:
    from mmsearch.printing import note, print_json, print_trained

    if not trained.prints:  # one of several processes speaks
        return
    for entry in trained.bad[:10]:
        note(f"skipped: {entry.name}: {entry.reason}")
    if len(trained.bad) > 10:
        note(f"and {len(trained.bad) - 10:,} more: {out}/bad.jsonl lists them all")
    if received and trained.after is None:
        note(
            f"interrupted; go on with: mmsearch train --resume --out {shlex.quote(out)}"
            if trained.begun
            else "interrupted before anything was trained; run the same command again"
        )
        raise typer.Exit(128 + received[0])
    if json:
        print_json(trained.as_dict())
    else:
        print_trained(trained)
    sys.stdout.flush()
    from mmsearch.settings import config_file

    name = shlex.quote(os.path.abspath(out))
    if trained.reasons:
        note(f"not offered as a default, for {'; '.join(trained.reasons)}")
        note(f"--model {name} opens it all the same")
    else:
        note(f"better than where it started: mmsearch index --model {name}")
        note(f"to use it always: MMSEARCH_MODEL={name}, or model = ... in {config_file()}")
    if trained.bad:
        raise typer.Exit(3)
