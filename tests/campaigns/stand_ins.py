"""What the campaigns put in the place of what is slow and has no part in what they look for.

The encoder's vector of a picture is the mean colours of its quarters, of a text or a sound what
a hash of it makes; decoding is the real one without a process of its own. All that is written
to a library, and how, is as always. Where even the vectors have to be the model's, it encodes
what it meets first, and what it makes of that is kept for all processes (`remembering`).
"""

from __future__ import annotations

import atexit
import fcntl
import functools
import hashlib
import importlib
import io
import os
import queue
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory, gettempdir, mkdtemp
from typing import Any

import numpy as np

from mmsearch import encoders
from mmsearch.decoding import Job, Limits, Outcome, Piece, Wants, claims
from mmsearch.decoding.frames import receive
from mmsearch.decoding.reading import Reading
from mmsearch.encoders.builtin import Builtin
from mmsearch.records import AudioInput, ImageInput, Modality

DIM = 12
_QUARTERS = "mmsearch-quarters-"


class Quarters:
    """An Encoder of twelve dimensions: red, green and blue of the four quarters of a picture."""

    name = "quarters"
    fingerprint = "c4" * 32
    dim = DIM
    modalities = frozenset(Modality)
    image_input = ImageInput(size=8)
    audio_input: AudioInput | None = AudioInput(rate=8000, window=2.0)
    backgrounds: Mapping[Modality, Mapping[Modality, tuple[float, float]]] = {}

    @functools.cached_property
    def folder(self) -> Path:
        """Where it has sentences to compare with, so that hubness is worked out and stored."""
        sweep(Path(gettempdir()))
        folder = Path(mkdtemp(prefix=_QUARTERS))
        self._held = os.open(folder, os.O_RDONLY)  # by those that are forked as well
        fcntl.flock(self._held, fcntl.LOCK_SH)
        atexit.register(_remove, folder, os.getpid())
        np.save(folder / "queries.npy", np.stack([hashed(b"sentence %d" % n) for n in range(20)]))
        return folder

    def encode(self, modality: Modality, batch: Sequence[Any]) -> np.ndarray:
        """(n, 12) unit rows."""
        if modality is Modality.IMAGE:
            rows = [self._picture(pixels) for pixels in batch]
        else:
            data = (one.encode() if isinstance(one, str) else one.tobytes() for one in batch)
            rows = [hashed(one) for one in data]
        return np.stack(rows) if rows else np.empty((0, DIM), np.float32)

    def _picture(self, pixels: np.ndarray) -> np.ndarray:
        quarters = [pixels[y : y + 4, x : x + 4] for y in (0, 4) for x in (0, 4)]
        means = np.concatenate([quarter.reshape(-1, 3).mean(axis=0) for quarter in quarters])
        row = (means + 1).astype(np.float32)
        return row / np.linalg.norm(row)

    def altered(self) -> list[str]:
        """It has no files that could be."""
        return []


def sweep(place: Path) -> None:
    """Remove the folders of processes that were killed: they are a minute old, and nobody holds
    them.
    """
    for folder in place.glob(f"{_QUARTERS}*"):
        with suppress(OSError):  # somebody holds it, or was faster
            held = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - os.fstat(held).st_mtime > 60:  # not one that is just being made
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(held)


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # a child that was forked uses it too
        shutil.rmtree(folder, ignore_errors=True)


def hashed(data: bytes) -> np.ndarray:
    """A (12,) unit row with nothing below zero, like those of pictures, and the same each time."""
    seed = int.from_bytes(hashlib.sha256(data).digest()[:8], "big")
    row = np.random.default_rng(seed).random(DIM, np.float32)
    return row / np.linalg.norm(row)


class InPlace:
    """Stands for the class DecoderPool: each job is done when it is submitted, here."""

    def __init__(self, workers: int, wants: Wants, limits: Limits) -> None:
        self.window = 32 * workers
        self._wants, self._limits = wants, limits
        self._answers: queue.SimpleQueue[Piece | Outcome] = queue.SimpleQueue()
        self.waiting = 0

    def submit(self, job: Job) -> None:
        """See DecoderPool."""
        frames = io.BytesIO()
        reading = Reading(job.path, self._wants.cut(job.window), self._limits, frames)
        answer = reading.answer(job.decode)
        frames.seek(0)
        number = 0
        with suppress(EOFError):
            while True:
                head, data = receive(frames)
                if "digest" in head:
                    self._answers.put(claims.piece(job, head, data, number, self._wants))
                    number += 1
        self._answers.put(claims.outcome(job, answer, number))
        self.waiting += 1

    def next(self) -> Piece | Outcome:
        """See DecoderPool."""
        answer = self._answers.get_nowait()
        self.waiting -= isinstance(answer, Outcome)
        return answer

    def give_up(self) -> None:
        """Nothing is ever queued."""

    def close(self) -> None:
        """There is nothing to end."""


@functools.cache
def encoder() -> Quarters:
    """The one of this process."""
    return Quarters()


def install(
    put: Callable[[object, str, Any], None] = setattr,
    opened: Callable[..., Any] = lambda *_, **__: encoder(),
    *,
    in_place: bool = True,
) -> None:
    """Have this process use them, in every module that opens an encoder or, `in_place`, decodes."""
    from mmsearch import loaders  # noqa: F401 - so that no run pays for it
    from mmsearch.loaders import texts  # noqa: F401

    _ = encoder().folder
    for name in ("encoders", "library", "spaces", "embedding", "ingest", "filling"):
        module = importlib.import_module(f"mmsearch.{name}")
        if hasattr(module, "open_encoder"):
            put(module, "open_encoder", opened)
        if in_place and hasattr(module, "DecoderPool"):
            put(module, "DecoderPool", InPlace)
    _share_statements(put)


def remembering() -> None:
    """As `warmed`, but with the real models: of each input the rows are kept in $REMEMBERED."""
    usual = encoders.open_encoder
    kept = Path(os.environ["REMEMBERED"])
    kept.mkdir(exist_ok=True)

    @functools.cache
    def open_encoder(*given: Any, **options: Any) -> Any:
        model = usual(*given, **options)
        encode = model.encode

        def remembered(modality: Modality, batch: Sequence[Any]) -> np.ndarray:
            key = hashlib.sha256(f"{model.fingerprint} {modality}".encode())
            for one in batch:
                data = one.encode() if isinstance(one, str) else np.ascontiguousarray(one)
                key.update(hashlib.sha256(data).digest())
            path = kept / f"{key.hexdigest()}.npy"
            if path.exists():
                return np.load(path)
            rows = encode(modality, batch)
            with NamedTemporaryFile(dir=kept, delete=False) as new:
                np.save(new, rows)
            os.replace(new.name, path)
            return rows

        model.encode = remembered
        return model

    warmed()
    install(opened=open_encoder)


def _share_statements(put: Callable[[object, str, Any], None]) -> None:
    """Have all connections share the statements that SQLAlchemy has compiled."""
    from mmsearch.catalog import connection

    usual = connection.create_engine
    first: list[Any] = []

    def create_engine(*given: Any, **options: Any) -> Any:
        engine = usual(*given, **options)
        if first:
            engine.dialect = engine.pool._dialect = first[0].dialect
            engine._compiled_cache = first[0]._compiled_cache
        else:
            first.append(engine)
        return engine

    put(connection, "create_engine", create_engine)


def sparing(put: Callable[[object, str, Any], None] = setattr) -> None:
    """Have this process compile no statement, and hash no model's files, a second time."""
    _share_statements(put)
    put(Builtin, "altered", functools.cache(Builtin.altered))


def warmed() -> None:
    """As `install`, and run some commands once: what they import is paid for before any fork."""
    install()
    from PIL import Image
    from typer import main
    from typer.testing import CliRunner

    from mmsearch.cli import app

    with TemporaryDirectory(prefix="mmsearch-") as folder:
        photos, index = f"{folder}/photos", ("--index", f"{folder}/index")
        os.mkdir(photos)
        Image.new("RGB", (9, 9), "red").save(f"{photos}/red.png")
        Path(photos, "red.txt").write_text("red\n", encoding="utf-8")
        Path(photos, "text.txt").write_text("a text\n", encoding="utf-8")
        for command in (
            ("index", photos, "--json"), ("check",), ("label", "--vocab", "a,b"),
            ("forget", photos, "--json"), ("index",),
        ):  # fmt: skip
            CliRunner().invoke(app, [*command, *index])
    command_line = main.get_command(app)
    main.get_command = lambda _: command_line


if __name__ == "__main__":  # python -m campaigns.stand_ins ARGUMENTS: the command line with them
    from mmsearch.__main__ import main

    install()
    sys.exit(main())
