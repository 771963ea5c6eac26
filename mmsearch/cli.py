"""The command line. Each command parses, calls one public function, prints."""

from __future__ import annotations

import gc
import os
import shlex
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from mmsearch.errors import MissingExtra, MmsearchError, UsageError, chosen
from mmsearch.records import Modality

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mmsearch.language import Query
    from mmsearch.library import Library
    from mmsearch.training.train import Trained

app = typer.Typer(
    name="mmsearch",
    help="Find pictures, sounds and texts by meaning. Everything stays on this machine.\n\n"
    'First: mmsearch index ./photos   Then: mmsearch query "a dog on grass"',
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help costs half the start-up of the decorated one
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

bench = typer.Typer(help="Measure a model.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(bench, name="bench")

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


def run() -> NoReturn:
    """Run a command and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        # UTF-8 whatever the locale; a name that is not goes out as the bytes it is
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
    signal.signal(signal.SIGINT, lambda number, _: sys.exit(128 + number))
    try:
        app()
    except UsageError as error:
        _fail(error, 2)
    except MmsearchError as error:
        _fail(error, 1)
    except BrokenPipeError:  # whoever read our answers has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(128 + 13)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # typer has met it first
            sys.exit(128 + 13)
        raise
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        _fail(MmsearchError(f"{name}{error.strerror or error}"), 1)
    sys.exit(0)


def _fail(error: Exception, code: int) -> NoReturn:
    from mmsearch.printing import note

    note(f"mmsearch: {error}")
    sys.exit(code)


def _open(index: Path | None, model: str | None = None, **settings: Any) -> Library:
    from mmsearch.encoders import reservations
    from mmsearch.library import open_library
    from mmsearch.printing import note

    if model and (reasons := reservations(model)):
        note(f"{model} is not offered as a default, for {'; '.join(reasons)}")
    return open_library(index, model=model, **settings)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Find pictures, sounds and texts by meaning."""
    if show:
        from mmsearch import __version__

        print(f"mmsearch {__version__}")
        raise typer.Exit


@app.command()
def index(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH", help="Folders or files; none: all known roots."),
    ] = None,
    index: Index = None,
    model: Model = None,
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
    with _open(index, model, max_megapixels=max_megapixels) as library, _signals() as received:
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
            )
        finally:
            meter.close()
    if json:
        print_json(report.as_dict())
    else:
        print_report(report)
    sys.stdout.flush()
    if report.interrupted and received:
        raise typer.Exit(128 + received[0])
    if report.failures:
        raise typer.Exit(3)


@contextmanager
def _signals() -> Iterator[list[int]]:
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
    model: Model = None,
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
    model: Model = None,
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
    model: str | None,
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
    with _open(index, model) as library:
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
    model: Model = None,
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

    with _open(index, model) as library:
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


@app.command()
def status(index: Index = None, json: Json = False) -> None:
    """Say what the library holds, and where."""
    from mmsearch.files import display
    from mmsearch.printing import print_json
    from mmsearch.settings import config_file

    with _open(index) as library:
        state = library.status()
    if json:
        print_json(state)
        return
    cache = state["cache"]
    print(f"index     {display(state['index'])}  ({state['bytes'] / 1e6:,.1f} MB)")
    print(f"model     {state['model']}, {state['dim']} dimensions")
    print(f"files     {state['files']:,} indexed, {state['gone']:,} gone")
    if state["waiting"]:
        print(f"          {state['waiting']:,} wait to be encoded anew: run mmsearch index")
    if state["labelled"]:
        print(f"          {state['labelled']:,} have labels (mmsearch label)")
    print(f"          {state['failed']:,} failed, {state['skipped']:,} skipped (mmsearch errors)")
    print(f"cache     {cache['rows']:,} rows, {cache['fresh']:,} newer, {cache['dead']:,} dead")
    if cache["problem"]:
        print(f"          not used: {cache['problem']}")
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

    with _open(index) as library:
        failures = library.errors(skipped=skipped)
    if json:
        print_json([failure.as_dict() for failure in failures])
    else:
        print_failures(failures)


@app.command()
def check(index: Index = None, json: Json = False) -> None:
    """Read the whole library and say whether it is sound. Exit code 1 when it is not."""
    from mmsearch.printing import print_json

    with _open(index) as library:
        found = library.check()
    if json:
        print_json({"sound": not found, "problems": found})
    else:
        print("\n".join(found) or "sound")
    if found:
        raise typer.Exit(1)


@app.command()
def forget(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH", help="Roots, folders or files to drop."),
    ] = None,
    gone: Annotated[
        bool, typer.Option("--gone", help="Drop what index found to be missing.")
    ] = False,
    index: Index = None,
    json: Json = False,
) -> None:
    """Drop files from the library; the files themselves are not touched."""
    from mmsearch.printing import print_json

    with _open(index) as library:
        count = library.forget(paths or [], gone=gone)
    if json:
        print_json({"forgotten": count})
    else:
        print(f"{count:,} files forgotten; none was deleted")


@bench.command()
def recall(
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", help="Photos with captions: Flickr8k, COCO.")
    ] = ...,  # type: ignore[assignment]
    split: Annotated[str, typer.Option("--split", metavar="NAME", help="Which of them.")] = "test",
    captions: Annotated[
        Path | None,
        typer.Option("--captions", metavar="FILE", help="Other captions of the same photos."),
    ] = None,
    model: Model = None,
    json: Json = False,
) -> None:
    """Print how often captions find their photo, and photos one of their captions.

    Recall at 1, 5 and 10, from 0 to 1: by exact search over the raw embeddings, and as a
    library answers. mmsearch/captions.py says how DIR may look.
    """
    from mmsearch.evaluation import measure_recall
    from mmsearch.printing import note, print_json, print_recall
    from mmsearch.settings import load_settings

    name = load_settings(model=model).model
    found = measure_recall(data, split, captions=captions, model=name, note=note)
    if json:
        print_json(found)
    else:
        print_recall(found)


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
    json: Json = False,
) -> None:
    """Print how often the name of a file's class is the label that fits it best.

    Top-1 accuracy and macro F1, from 0 to 1. mmsearch/classes.py says how DIR may look.
    """
    from mmsearch.evaluation import measure_labels
    from mmsearch.printing import note, print_json, print_labelling
    from mmsearch.settings import load_settings

    name = load_settings(model=model).model
    found = measure_labels(data, split, templates=template or (), model=name, note=note)
    if json:
        print_json(found)
    else:
        print_labelling(found)


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
    with _signals() as received:
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
    with _open(index) as library:
        try:
            report = library.index(folder, progress=meter)
        finally:
            meter.close()
        print_report(report)
        for words in QUERIES:
            print(f'\n$ mmsearch query "{words}" -k 3 --index {index}')
            print_hits(library.query(words, k=3), Format.TABLE)
