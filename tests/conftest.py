"""What tests share: an encoder to work out in one's head, small pictures, a library, the CLI.

The fake encoder's vector of a picture is its mean colour, of a text the sum of the colours
it names (any other word is a grey as light as it has letters), and of a sound how much of it
is below 500 Hz, below 2,000 Hz and above: all made unit rows. "red" is (1, 0, 0), and so are
a red picture and a low tone.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mmsearch
from mmsearch.decoding import DecoderPool, Job, Limits, Outcome, Piece, Wants
from mmsearch.library import Library
from mmsearch.records import AudioInput, ImageInput, Modality

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "cyan": (0, 255, 255),
    "magenta": (255, 0, 255),
    "white": (255, 255, 255),
    "orange": (255, 128, 0),
    "black": (0, 0, 0),  # no direction: its row is zero, which no library takes
}


def unit(*values: float) -> np.ndarray:
    """These numbers as a float32 row of length 1; zero stays zero."""
    row = np.asarray(values, np.float32)
    length = np.linalg.norm(row)
    return row / length if length else row


def colour_row(name: str) -> np.ndarray:
    """The fake encoder's row of a colour, before the catalog halves its precision."""
    return unit(*COLOURS[name])


class FakeEncoder:
    """An Encoder of three dimensions: red, green and blue. Counts what it encodes."""

    dim = 3
    folder: Path | None = None
    modalities = frozenset(Modality)
    image_input = ImageInput(size=4)
    audio_input: AudioInput | None = AudioInput(rate=8000, window=2.0)
    backgrounds: Mapping[Modality, Mapping[Modality, tuple[float, float]]] = {}

    def __init__(self, name: str = "fake", fingerprint: str = "fa" * 32) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.pictures = 0  # encoded so far
        self.windows = 0  # of sound
        self.spoilt: dict[tuple[int, int, int], Sequence[float]] = {}  # rows to give instead
        self.files_altered: list[str] = []

    def encode(self, modality: Modality, batch: Sequence[Any]) -> np.ndarray:
        """Mean colours, and what stands for them, as unit rows."""
        if modality is Modality.IMAGE:
            self.pictures += len(batch)
            rows = [self._picture(pixels) for pixels in batch]
        elif modality is Modality.AUDIO:
            self.windows += len(batch)
            rows = [self._sound(samples) for samples in batch]
        else:
            rows = [self._text(text) for text in batch]
        return np.stack(rows).astype(np.float32) if rows else np.empty((0, 3), np.float32)

    def _picture(self, pixels: np.ndarray) -> np.ndarray:
        mean = pixels.reshape(-1, 3).mean(axis=0)
        spoilt = self.spoilt.get(tuple(int(value) for value in mean))
        return unit(*mean) if spoilt is None else np.asarray(spoilt, np.float32)

    def _text(self, text: str) -> np.ndarray:
        return unit(*np.sum([COLOURS.get(w, (len(w),) * 3) for w in text.split()], axis=0))

    def _sound(self, samples: np.ndarray) -> np.ndarray:
        power = np.abs(np.fft.rfft(samples)) ** 2
        hertz = np.fft.rfftfreq(len(samples), 1 / 8000)
        low, middle = hertz < 500, (hertz >= 500) & (hertz < 2000)
        return unit(power[low].sum(), power[middle].sum(), power[hertz >= 2000].sum())

    def altered(self) -> list[str]:
        """What a test says was altered."""
        return self.files_altered


def paint(path: Path, colour: str | tuple[int, int, int], size: tuple[int, int] = (8, 8)) -> Path:
    """A picture of one colour; another size makes another file of the same colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fill = COLOURS[colour] if isinstance(colour, str) else colour
    Image.new("RGB", size, fill).save(path)
    return path


class Photos:
    """A folder of pictures of one colour each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def __fspath__(self) -> str:
        return str(self.folder)

    def paint(
        self, name: str, colour: str | tuple[int, int, int], size: tuple[int, int] = (8, 8)
    ) -> Path:
        """Make (or make anew) one picture."""
        return paint(self.folder / name, colour, size)


class WarmPools:
    """Decoder processes that outlive a run: the real ones, started once instead of each time."""

    def __init__(self) -> None:
        self._pools: dict[tuple[Wants, Limits], DecoderPool] = {}

    def __call__(self, workers: int, wants: Wants, limits: Limits) -> Lease:
        """Stands for the class DecoderPool."""
        pool = self._pools.get((wants, limits))
        if pool is None:
            pool = self._pools[wants, limits] = DecoderPool(1, wants, limits)
        return Lease(pool)

    def close(self) -> None:
        """End the processes."""
        for pool in self._pools.values():
            pool.close()


class Lease:
    """A warm pool for one run."""

    def __init__(self, pool: DecoderPool) -> None:
        self._pool = pool
        self.window = pool.window

    @property
    def waiting(self) -> int:
        """See DecoderPool."""
        return self._pool.waiting

    def submit(self, job: Job) -> None:
        """See DecoderPool."""
        self._pool.submit(job)

    def next(self) -> Piece | Outcome:
        """See DecoderPool."""
        return self._pool.next()

    def give_up(self) -> None:
        """See DecoderPool."""
        self._pool.give_up()

    def close(self) -> None:
        """Take back what nobody fetched; the processes stay."""
        while self._pool.waiting:
            self._pool.next()


@pytest.fixture(scope="session")
def warm_pools() -> Iterator[WarmPools]:
    """Shared by all tests of a session."""
    pools = WarmPools()
    yield pools
    pools.close()


def inject(monkeypatch: pytest.MonkeyPatch, encoder: Any) -> None:
    """Have every module open this encoder, whatever the name."""
    for module in ("encoders", "library", "spaces", "embedding"):
        target = f"mmsearch.{module}.open_encoder"
        monkeypatch.setattr(target, lambda name, precision="auto": encoder, raising=False)


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch, warm_pools: WarmPools) -> FakeEncoder:
    """The fake encoder, in the place of every real one in this process."""
    fake = FakeEncoder()
    inject(monkeypatch, fake)
    monkeypatch.setattr("mmsearch.ingest.DecoderPool", warm_pools)
    return fake


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    """An empty folder for pictures."""
    return Photos(tmp_path / "photos")


@pytest.fixture
def library(tmp_path: Path, encoder: FakeEncoder) -> Iterator[Library]:
    """A library with the fake encoder; nothing is indexed yet."""
    with mmsearch.open_library(tmp_path / "index", workers=1) as opened:
        yield opened


@pytest.fixture
def three(library: Library, photos: Photos) -> Library:
    """A library of a red, a green and a blue picture."""
    for colour in ("red", "green", "blue"):
        photos.paint(f"{colour}.png", colour)
    library.index(photos)
    return library


def clean_environment(home: Path, **more: str) -> dict[str, str]:
    """The environment of a user who has set nothing, whose home is `home`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MMSEARCH_")}
    package = str(Path(mmsearch.__file__).parent.parent)
    homes = {
        "HOME": str(home),
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "PYTHONPATH": package,
    }
    return kept | homes | more


Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="session")
def run_cli(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run `mmsearch ARGUMENTS` as a process of its own: bytes out, bytes err, exit code.

    `env` adds to a clean environment, `stdin` is bytes, `cwd` a folder, and `python` options
    go to the interpreter.
    """
    home = tmp_path_factory.mktemp("home")

    def run(
        *arguments: str | bytes | os.PathLike[str],
        stdin: bytes = b"",
        env: dict[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        python: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, *python, "-m", "mmsearch", *arguments],
            input=stdin,
            capture_output=True,
            env=clean_environment(home, **(env or {})),
            cwd=cwd or home,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(tmp_path_factory, monkeypatch):
    """No test reads the settings or the library of whoever runs it."""
    for name in [name for name in os.environ if name.startswith("MMSEARCH_")]:
        if name != "MMSEARCH_FAULTS":  # tests/faults: how much to try
            monkeypatch.delenv(name)
    home = tmp_path_factory.getbasetemp() / "no-home"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    monkeypatch.setenv("XDG_DATA_HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))


def items_by_words(catalog, texts, k=100, **options):
    """(item, fit) of the k items that fit the words of these texts best."""
    ids, fits = catalog.fits_by_words(texts, thorough=True)
    there = {item.id: item for item in catalog.items_of(ids.tolist(), **options)}
    ranked = sorted((-fit, id) for id, fit in zip(ids.tolist(), fits.tolist(), strict=True))
    return [(there[id], -fit) for fit, id in ranked if id in there][:k]


def matched(catalog, vector_ids, *options):
    """(vector id, item) of what these vectors stand for."""
    found = catalog.matches(vector_ids, *options)
    items = {item.id: item for item in catalog.items_of(found.items)}
    return [
        (vector, items[item])
        for vector, item in zip(found.vectors.tolist(), found.items.tolist(), strict=True)
    ]


@pytest.fixture
def script(monkeypatch):
    """A script of benchmarks/ as a module, by its name."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent.parent / "benchmarks"))
    return importlib.import_module


@pytest.fixture
def one_thread() -> Iterator[None]:
    """FAISS's threads wait for each other by spinning, which takes minutes beside other work."""
    import faiss

    usual = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(usual)


@pytest.fixture
def on_fsync(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], object]], None]:
    """A function: from then on, have this one told the path of what is synced, in its place."""

    def listen(told: Callable[[str], object]) -> None:
        monkeypatch.setattr(os, "fsync", lambda file: told(os.readlink(f"/proc/self/fd/{file}")))

    return listen
