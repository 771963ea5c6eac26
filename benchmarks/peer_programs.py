"""What each program is asked to do, as commands: index, find, and be asked many times.

Environments are made once, in a cache folder, by pip. `MMSEARCH_PEERS_SITE` names a folder of
installed packages that they may use as well (torch is gigabytes), as a .pth file would.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import sys
import venv
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from measuring import CLI, REPOSITORY, CommandFailed, run

PROGRAMS = REPOSITORY / "benchmarks" / "programs"
REQUIREMENTS = {
    "rclip": ["rclip==3.3.0"],
    "clip-retrieval": ["clip-retrieval==2.45.0", "setuptools<81"],
    "sentence-transformers": ["sentence-transformers>=5.4", "faiss-cpu>=1.11", "pillow>=11"],
}
VERSIONS = {
    "rclip": ["rclip", "onnxruntime"],
    "clip-retrieval": ["clip-retrieval", "autofaiss", "open-clip-torch", "torch", "faiss-cpu"],
    "sentence-transformers": ["sentence-transformers", "transformers", "torch", "faiss-cpu"],
}
BATCH = "8"  # pictures at a time: rclip's own setting, given to the others too


def environment(name: str, cache: Path) -> Path:
    """The Python of a program's own environment, made when it is not there yet."""
    home = cache / name
    place = home / "environment"
    python = place / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not (home / "installed").exists():
        venv.create(place, with_pip=True, clear=True)
        if site := os.environ.get("MMSEARCH_PEERS_SITE"):
            (packages,) = place.glob("lib/python*/site-packages")
            (packages / "peers.pth").write_text(site + "\n", encoding="utf-8")
        run([str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS[name]])
        (home / "installed").touch()
    return python


def versions(name: str, python: Path) -> dict[str, str]:
    """What is installed there."""
    ask = "import importlib.metadata as m, json, sys; "
    ask += "print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    found: dict[str, str] = json.loads(run([str(python), "-c", ask, *VERSIONS[name]]).output)
    return found


def weights(cache: Path) -> Path:
    """The random model in every form, made when it is not there yet."""
    folder = cache / "weights"
    if not (folder / "made").exists():
        run([sys.executable, str(REPOSITORY / "benchmarks" / "peer_weights.py"), str(folder)])
    return folder


def open_clip_name(weights: Path) -> str:
    """The random model as open_clip and what stands on it spell it."""
    return f"open_clip:ViT-B-32-256/{weights / 'open_clip' / 'open_clip_model.safetensors'}"


@dataclass(frozen=True)
class Command:
    """A command, where it runs, and what it finds in its environment."""

    words: Sequence[str]
    cwd: Path = REPOSITORY
    environment: Mapping[str, str] = field(default_factory=dict)


class Program(ABC):
    """One program with a state of its own, in a folder that may not exist yet.

    `cannot`: why indexing again cannot pass over what has not changed; None where it can.
    """

    name: str
    cannot: str | None = None
    said = re.compile(r"(?!)")  # in what it prints while indexing: how many are done
    said_of = 1  # photos that each of these is

    def __init__(self, place: Path) -> None:
        self.place = place

    def at(self, place: Path) -> Self:
        """The same program with another state."""
        other = copy.copy(self)
        other.place = place
        return other

    def begin(self) -> None:
        """What must be there before the first run."""
        self.place.mkdir(parents=True)

    @abstractmethod
    def index(self, photos: Path) -> list[Command]:
        """Bring the index up to date with a folder, by commands that run one after the other."""

    @abstractmethod
    def query(self, photos: Path, words: str, k: int) -> Command:
        """A process that prints the k best paths."""

    @abstractmethod
    def warm(self, photos: Path, queries: Path) -> Command:
        """A process that answers all queries of a JSON file and says what each took."""


class Mmsearch(Program):
    """This project, as a user types it."""

    said = re.compile(r"indexed (\d+) of")

    def __init__(self, place: Path, model: str, name: str, cache: Path) -> None:
        super().__init__(place)
        self.name, self.model = name, model
        self._where = {"MMSEARCH_CACHE": str(cache / "mmsearch")}  # of models that it exports

    def index(self, photos: Path) -> list[Command]:
        return [self._command(*CLI, "index", str(photos), *self._how)]

    def query(self, photos: Path, words: str, k: int) -> Command:
        how = ["-k", str(k), "--all", "--format", "paths"]
        return self._command(*CLI, "query", words, *how, *self._how)

    def warm(self, photos: Path, queries: Path) -> Command:
        script = str(PROGRAMS / "warm_mmsearch.py")
        return self._command(sys.executable, script, str(self.place), self.model, str(queries))

    def _command(self, *words: str) -> Command:
        return Command(words, environment=self._where)

    def begin(self) -> None:
        self.place.parent.mkdir(parents=True, exist_ok=True)  # the rest is its own to make

    @property
    def _how(self) -> list[str]:
        return ["--index", str(self.place), "--model", self.model]


class Peer(Program):
    """A program in an environment of its own, offline, with the random model."""

    offline: Mapping[str, str] = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": "", "WANDB_MODE": "disabled"}

    def __init__(self, place: Path, cache: Path) -> None:
        super().__init__(place)
        self.python = environment(self.name, cache)
        self.weights = weights(cache)

    def _script(self, script: str, *arguments: str, cwd: Path = REPOSITORY, **more: str) -> Command:
        words = [str(self.python), str(PROGRAMS / script), *arguments]
        return Command(words, cwd, {**self.offline, **more})


class Rclip(Peer):
    """rclip: its index and weights lie in a data folder, and it looks at the current one."""

    name = "rclip"
    said = re.compile(r"\|\s*(\d+)/\d+ \[")

    def begin(self) -> None:
        shutil.copytree(self.weights / "rclip", self.place, copy_function=os.symlink)

    def index(self, photos: Path) -> list[Command]:
        return [self._script("index_rclip.py", cwd=photos, RCLIP_DATADIR=str(self.place))]

    def query(self, photos: Path, words: str, k: int) -> Command:
        program = self.python.with_name("rclip")
        how = ["--no-indexing", "--filepath-only", "--top", str(k)]
        data = {**self.offline, "RCLIP_DATADIR": str(self.place)}
        return Command([str(program), *how, words], photos, data)

    def warm(self, photos: Path, queries: Path) -> Command:
        data = str(self.place)
        return self._script("warm_rclip.py", str(queries), cwd=photos, RCLIP_DATADIR=data)


class ClipRetrieval(Peer):
    """clip-retrieval: rows of all photos, then an index by autofaiss."""

    name = "clip-retrieval"
    cannot = "every run encodes every photo"
    said = re.compile(r"sample_count (\d+)")

    def index(self, photos: Path) -> list[Command]:
        program, rows = str(self.python.with_name("clip-retrieval")), self.place / "embeddings"
        index = self.place / "index"
        return [
            Command(["rm", "-rf", str(rows), str(index)]),  # it refuses a folder that is there
            Command([program, "inference", "--input_dataset", str(photos), "--output_folder",
                     str(rows), "--enable_text", "False", "--clip_model", self._model,
                     "--batch_size", BATCH, "--num_prepro_workers", "2"],
                    environment=self.offline),
            Command([program, "index", "--embeddings_folder", str(rows), "--index_folder",
                     str(index)], environment=self.offline),
        ]  # fmt: skip

    def query(self, photos: Path, words: str, k: int) -> Command:
        return self._service("query", str(k), words)

    def warm(self, photos: Path, queries: Path) -> Command:
        return self._service("warm", str(queries))

    def _service(self, *rest: str) -> Command:
        return self._script(
            "query_clip_retrieval.py", str(self.place / "index"), self._model, *rest
        )

    @property
    def _model(self) -> str:
        return open_clip_name(self.weights)


class SentenceTransformers(Peer):
    """sentence-transformers with FAISS, in the few lines that its documentation has for it."""

    name = "sentence-transformers"
    cannot = "a library: it knows rows, not files"
    said = re.compile(r"Batches:.*?\|\s*(\d+)/\d+ \[")
    said_of = int(BATCH)

    def index(self, photos: Path) -> list[Command]:
        return [self._run("index", str(photos))]

    def query(self, photos: Path, words: str, k: int) -> Command:
        return self._run("query", str(k), words)

    def warm(self, photos: Path, queries: Path) -> Command:
        return self._run("warm", str(queries))

    def _run(self, *rest: str) -> Command:
        model = self.weights / "sentence-transformers"
        return self._script("run_sentence_transformers.py", str(self.place), str(model), *rest)


PEERS = (Rclip, ClipRetrieval, SentenceTransformers)


def found(program: Program, photos: Path, k: int) -> set[Path]:
    """The files that a program finds, k at most, or none where it has no index."""
    asked = program.query(photos, "a dog", k)
    try:
        said = run(asked.words, cwd=asked.cwd, **asked.environment).output
    except CommandFailed:
        return set()
    return {Path(asked.cwd, line) for line in said.splitlines() if line.strip()}
