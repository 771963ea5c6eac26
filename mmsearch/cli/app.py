"""The command line itself, and what every command needs."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mmsearch.library import Library

app = typer.Typer(
    name="mmsearch",
    help="Find pictures, sounds and texts by meaning. Everything stays on this machine.\n\n"
    'First: mmsearch index ./photos   Then: mmsearch query "a dog on grass"',
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help costs half the start-up of the decorated one
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

bench = typer.Typer(
    help="Measure a model, a library, this machine.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(bench, name="bench")


def opened(
    index: Path | None, model: str | Sequence[str] | None = None, **settings: Any
) -> Library:
    from mmsearch.encoders import reservations
    from mmsearch.library import open_library
    from mmsearch.printing import note

    for name in [model] if isinstance(model, str) else model or []:
        if reasons := reservations(name):
            note(f"{name} is not offered as a default, for {'; '.join(reasons)}")
    return open_library(index, model=model, **settings)


@contextmanager
def signals() -> Iterator[list[int]]:
    """Collect SIGINT, SIGTERM and SIGHUP instead of dying of them: the batch is finished."""
    received: list[int] = []
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    old = {number: signal.getsignal(number) for number in numbers}
    try:
        for number in numbers:
            signal.signal(number, lambda number, _: received.append(number))
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Find pictures, sounds and texts by meaning."""
    if show:
        from mmsearch import __version__

        print(f"mmsearch {__version__}")
        raise typer.Exit
