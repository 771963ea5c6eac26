"""Commands about models of other libraries: what is here, and what could be."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from mmsearch.cli.app import app
from mmsearch.cli.options import Json, Offline

models = typer.Typer(
    help="See, fetch, check and choose models.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(models, name="models")
Name = Annotated[str, typer.Argument(metavar="NAME", help="As --model takes it.")]


@models.command("list")
def list_models(json: Json = False) -> None:
    """Print the built-in model, those exported here, and those recommended; * is the default."""
    from mmsearch.encoders.known import known, show
    from mmsearch.errors import ModelError
    from mmsearch.printing import print_json
    from mmsearch.printing.models import print_models
    from mmsearch.settings import load_settings

    found = known()
    if json:
        print_json([one.as_dict() for one in found])
        return
    chosen = load_settings().model
    try:
        print_models(found, show(chosen).name)
    except ModelError:  # a training run, say
        print_models(found, chosen)


@models.command()
def show(name: Name, json: Json = False) -> None:
    """Print all that is known of a model."""
    from mmsearch.encoders.known import show as found
    from mmsearch.printing import print_json
    from mmsearch.printing.models import print_model

    one = found(name)
    print_json(one.as_dict()) if json else print_model(one)


@models.command()
def pull(name: Name, offline: Offline = False) -> None:
    """Fetch a model if need be, and export it: from then on it opens without torch or network."""
    from mmsearch.encoders import open_encoder

    encoder = open_encoder(name)
    print(f"{encoder.name} is ready, in {encoder.folder}")


@models.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Default: all that are here.")
    ] = None,
) -> None:
    """Hold the files of models against the hashes of when they were written."""
    from mmsearch.encoders.known import verify as verified
    from mmsearch.printing import note

    bad = 0
    for name, problems in verified(names or []):
        print(f"{'damaged' if problems else 'ok'}\t{name}")
        for problem in problems:
            note(f"{name}: {problem}")
        bad += bool(problems)
    if bad:
        raise typer.Exit(1)


@models.command()
def use(name: Name, offline: Offline = False) -> None:
    """Make a model the default for new libraries, in the settings file; it is exported first."""
    from mmsearch.encoders import BUILTIN, full_name, open_encoder
    from mmsearch.settings import save_setting

    encoder = open_encoder(name)
    built_in = name in ("builtin", BUILTIN)
    path = save_setting(
        "model", "builtin" if built_in else full_name(name) or os.path.realpath(name)
    )
    print(f"new libraries are made with {encoder.name}, says {path}")
