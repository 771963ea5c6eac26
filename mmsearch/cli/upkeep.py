"""Commands about whether a library is sound: check, repair, backup."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmsearch.cli.app import app, opened
from mmsearch.cli.options import Index, Json, Model
from mmsearch.errors import UsageError

if TYPE_CHECKING:
    from mmsearch.repairing import Repaired


@app.command()
def check(
    index: Index = None,
    model: Model = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Look at the database's pages and counts alone.")
    ] = False,
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Read your files as well, and encode a sample of them again."),
    ] = False,
    sample: Annotated[
        int, typer.Option("--sample", metavar="N", min=0, help="Of how many files, with --deep.")
    ] = 64,
    seed: Annotated[int, typer.Option(metavar="N", help="Which of them.")] = 0,
    json: Json = False,
) -> None:
    """Read the whole library and say whether it is sound. Exit code 1 when it is not."""
    from mmsearch.printing import print_json

    if quick and deep:
        raise UsageError("--quick and --deep are two depths: give one")
    depth = "quick" if quick else "deep" if deep else "full"
    with opened(index, model) as library:
        found = library.check(depth, sample=sample, seed=seed)
    if json:
        print_json({"sound": not found, "depth": depth, "problems": found})
    else:
        print("\n".join(found) or "sound")
    if found:
        raise typer.Exit(1)


@app.command()
def repair(
    index: Index = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")] = False,
    json: Json = False,
) -> None:
    """Mend what check finds wrong. library.db as it was is kept; your files are not touched."""
    from mmsearch.printing import note, print_json, print_plan

    interactive = sys.stdin.isatty()
    answered: list[bool] = []

    def approve(plan: Repaired) -> bool:
        if not json:
            print_plan(plan)
            sys.stdout.flush()
        if not (yes or dry_run or interactive):
            raise UsageError("nothing was changed: say --yes to have this done, or --dry-run")
        answered.append(not dry_run and (yes or typer.confirm("Do this?", err=True)))
        return answered[-1]

    with opened(index) as library:
        done = library.repair(approve)
    if json:
        print_json(done.as_dict())
    elif not done.problems:
        print("sound: nothing to repair")
    elif done.saved:
        print(f"repaired; library.db as it was is in {done.saved}")
        if done.again:
            note(f"run mmsearch index: {len(done.again):,} files are to be read again")
    else:
        note("nothing was changed")


@app.command()
def backup(
    target: Annotated[
        Path | None, typer.Argument(metavar="DEST", help="A new folder for the copy.")
    ] = None,
    restore: Annotated[
        Path | None,
        typer.Option(
            "--restore", metavar="SRC", help="Have the library be what this backup was instead."
        ),
    ] = None,
    index: Index = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an earlier backup in DEST.")
    ] = False,
    json: Json = False,
) -> None:
    """Copy the library to another folder, also while it is written; or put such a copy back."""
    from mmsearch.printing import print_json

    if (target is None) == (restore is None):
        raise UsageError("name a folder for the backup, or one to --restore from")
    with opened(index) as library:
        if target is not None:
            count, saved = library.backup(target, force=force), None
        else:
            assert restore is not None
            count, saved = library.restore(restore)
    if json:
        place = os.path.abspath(target) if target else str(library.folder)
        print_json({"files": count, "library": place, "saved": str(saved) if saved else None})
    elif target is not None:
        print(f"{count:,} files in {target}: mmsearch query --index {target} ... finds them")
    else:
        print(f"{count:,} files in {library.folder}; run mmsearch index for what has changed since")
        if saved:
            print(f"library.db as it was is in {saved}")


@app.command()
def doctor(index: Index = None, model: Model = None, json: Json = False) -> None:
    """Look at versions, model, disk and library. Exit code 1 when something must be mended."""
    from mmsearch.doctor import State, examine
    from mmsearch.printing import print_json
    from mmsearch.settings import load_settings

    lines = list(examine(load_settings(index=index, model=model)))
    if json:
        print_json([line.as_dict() for line in lines])
    else:
        for line in lines:
            print(f"{line.state:<8} {line.name}: {line.said}")
            if line.remedy:
                print(f"{'':<8} → {line.remedy}")
    if any(line.state is State.WRONG for line in lines):
        raise typer.Exit(1)
