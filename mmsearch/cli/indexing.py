"""Commands about a library and its files: index, status, errors, forget, demo."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Annotated

import typer

from mmsearch.cli.app import app, opened, signals
from mmsearch.cli.options import Index, Json, Models, Offline


@app.command()
def index(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH", help="Folders or files; none: all known roots."),
    ] = None,
    index: Index = None,
    model: Models = None,
    offline: Offline = False,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Leave out names or paths like this; may be repeated."),
    ] = None,
    include_hidden: Annotated[
        bool, typer.Option("--include-hidden", help="Take hidden files and folders too.")
    ] = False,
    max_megapixels: Annotated[
        float | None,
        typer.Option(metavar="N", help="Refuse pictures of more decoded pixels; default: 64."),
    ] = None,
    target_recall: Annotated[
        float | None,
        typer.Option(metavar="X", min=0, max=1, help="Of recall@10, where a library is large."),
    ] = None,
    max_memory: Annotated[
        float | None,
        typer.Option(metavar="MB", min=1, help="For searching each kind of vectors."),
    ] = None,
    faiss: Annotated[
        str | None,
        typer.Option(metavar="STRING", help="An index as FAISS describes it; auto: the usual."),
    ] = None,
    rehash: Annotated[
        bool, typer.Option("--rehash", help="Read every file again, whatever its size and date.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would happen; nothing is decoded for it."),
    ] = False,
    json: Json = False,
) -> None:
    """Index pictures, sounds and texts; run again, only what changed is read."""
    from mmsearch.printing import Meter, note, print_json, print_report

    gc.enable()
    meter = Meter()
    asked = {"target_recall": target_recall or None, "max_memory_mb": max_memory, "faiss": faiss}
    with (
        opened(index, model, max_megapixels=max_megapixels, **asked) as library,
        signals() as received,
    ):
        try:
            report = library.index(
                paths or [],
                exclude=exclude or [],
                include_hidden=include_hidden,
                rehash=rehash,
                dry_run=dry_run,
                progress=meter,
                stop=lambda: bool(received),
                note=note,
                build=False,
            )
        finally:
            meter.close()
    if json:
        print_json(report.as_dict())
    else:
        print_report(report)
    sys.stdout.flush()
    if library.unbuilt:  # from here on a signal ends this at once: nothing can be lost by it
        note(
            "building the index: all is committed and found meanwhile; "
            "Ctrl-C leaves this to the next mmsearch index"
        )
        for line in library.build():
            note(line)
    if report.interrupted and received:
        raise typer.Exit(128 + received[0])
    if report.failures:
        raise typer.Exit(3)


@app.command()
def status(
    index: Index = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure recall and speed of the search now.")
    ] = False,
    json: Json = False,
) -> None:
    """Say what the library holds, where, and how it is searched."""
    from mmsearch.files import display
    from mmsearch.printing import print_json, print_search
    from mmsearch.settings import config_file

    with opened(index) as library:
        state = library.status(measure=measure)
    if json:
        print_json(state)
        return
    cache = state["cache"]
    print(f"index     {display(state['index'])}  ({state['bytes'] / 1e6:,.1f} MB)")
    for space in state["spaces"]:
        about = f"{space['dim']} dimensions, {space['vectors']:,} vectors"
        if space["missing"]:
            about += f", {space['missing']:,} to come: run mmsearch index"
        print(f"model     {space['model']}, {about}")
        print_search(space["search"])
    print(f"files     {state['files']:,} indexed, {state['gone']:,} gone")
    if state["waiting"]:
        print(f"          {state['waiting']:,} wait to be encoded anew: run mmsearch index")
    if state["labelled"]:
        print(f"          {state['labelled']:,} have labels (mmsearch label)")
    print(f"          {state['failed']:,} failed, {state['skipped']:,} skipped (mmsearch errors)")
    print(f"cache     {cache['rows']:,} vectors, {cache['fresh']:,} newer, {cache['dead']:,} dead")
    if cache["problem"]:
        print(f"          not used: {cache['problem']}")
    kept = state["queries"]["kept"]
    if kept or state["queries"]["keep"]:
        print(f"queries   {kept:,} kept, as vectors (mmsearch forget --queries deletes them)")
    else:
        print("queries   not kept (keep_queries is off)")
    print(f"settings  {config_file()}")
    for root in state["roots"]:
        print(f"root      {display(root)}")


@app.command()
def errors(
    index: Index = None,
    skipped: Annotated[
        bool, typer.Option("--skipped", help="List the files of unsupported types instead.")
    ] = False,
    json: Json = False,
) -> None:
    """List the files that could not be read, each with its reason."""
    from mmsearch.printing import print_failures, print_json

    with opened(index) as library:
        failures = library.errors(skipped=skipped)
    if json:
        print_json([failure.as_dict() for failure in failures])
    else:
        print_failures(failures)


@app.command()
def forget(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH", help="Roots, folders or files to drop."),
    ] = None,
    gone: Annotated[
        bool, typer.Option("--gone", help="Drop what index found to be missing.")
    ] = False,
    queries: Annotated[
        bool, typer.Option("--queries", help="Drop what was kept of past queries.")
    ] = False,
    index: Index = None,
    json: Json = False,
) -> None:
    """Drop files, or past queries, from the library; the files themselves are not touched."""
    from mmsearch.printing import print_json

    with opened(index) as library:
        asked = library.forget_queries() if queries else 0
        count = library.forget(paths or [], gone=gone) if paths or gone or not queries else 0
    if json:
        print_json({"forgotten": count} | ({"queries": asked} if queries else {}))
        return
    if queries:
        print(f"{asked:,} past queries forgotten")
    if paths or gone:
        print(f"{count:,} files forgotten; none was deleted")


@app.command()
def demo(
    index: Annotated[
        Path, typer.Option("--index", metavar="DIR", help="Where the demo's library is kept.")
    ] = Path("indexes/demo"),
) -> None:
    """Index scikit-image's photographs and find them by words."""
    from mmsearch.demo import QUERIES, photographs
    from mmsearch.printing import Format, Meter, print_hits, print_report

    folder = photographs()
    print(f"$ mmsearch index {folder} --index {index}")
    meter = Meter()
    with opened(index) as library:
        try:
            report = library.index(folder, progress=meter)
        finally:
            meter.close()
        print_report(report)
        for words in QUERIES:
            print(f'\n$ mmsearch query "{words}" -k 3 --all --index {index}')
            print_hits(library.query(words, k=3, all=True), Format.TABLE)
