"""The Hugging Face hub: asked only for a model by name, never while something local is opened."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError
from safetensors import SafetensorError
from transformers.utils import logging

from mmsearch.errors import ModelError
from mmsearch.settings import load_settings

WEIGHTS = "model.safetensors"  # of a model of transformers
# What else its folder may hold that is read.
BESIDE = (
    "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json",
    "merges.txt",
)  # fmt: skip
# Seconds that the hub has for its first answer. Before it is asked, torch and the model's library
# are imported, which takes about six: an error should be there within ten.
PATIENCE = 4.0

WORKS_WITHOUT = (
    "without it work: the built-in model (--model builtin), models that were opened here before "
    "(mmsearch models list), and what is on this disk (ARCHITECTURE//path/to/model.safetensors, "
    "clap:/folder, pe-av:/folder)"
)


class NotInRepository(ModelError):
    """None of the files that were asked for is in the repository."""


def offline() -> bool:
    """Whether nothing may be fetched: --offline, MMSEARCH_OFFLINE or HF_HUB_OFFLINE says so."""
    return bool(constants.HF_HUB_OFFLINE) or load_settings().offline


@contextmanager
def fetching(allowed: bool) -> Iterator[None]:
    """Nothing is fetched in here unless it is allowed; what was fetched before is found."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not allowed or load_settings().offline
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextmanager
def loading(said: str) -> Iterator[None]:
    """Something of transformers' is read in here, from files alone and without a word: it draws
    progress bars, and prints what it finds amiss in its own docstrings.

    Raises ModelError for what cannot be read.
    """
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with fetching(False), redirect_stdout(io.StringIO()):
            yield
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{said} cannot be loaded: {line(error)}") from error
    finally:
        if bars:
            logging.enable_progress_bar()


def folder(name: str, said: str) -> Path:
    """Where the files of a model of transformers are: a folder that is here, or one of the cache,
    each file of it fetched if need be. Raises ModelError as fetch does.
    """
    if os.path.isdir(name):
        return Path(name)
    found = fetch(name, ["config.json"], said).parent
    fetch(name, [WEIGHTS], said)
    for other in BESIDE:
        fetch_if_there(name, other, said)
    return found


def safe(path: Path) -> Path:
    """The path of weights that may be opened: a pickle can run anything when it is.

    Raises ModelError for what is not safetensors, or not there.
    """
    if path.suffix != ".safetensors":
        raise ModelError(
            f"{path} is not a safetensors file; other checkpoints (.bin, .pt, .pth) are pickles, "
            "which can run anything when they are opened: convert it with "
            "safetensors.torch.save_file, where you trust it"
        )
    if not path.is_file():
        raise ModelError(f"there are no weights at {path}")
    return path


def fetch(repository: str, names: Sequence[str], said: str) -> Path:
    """The first of these files that a repository has: from the cache, else from the hub.

    What is fetched is held against the SHA-256 that the hub gives for it. Raises ModelError: for
    no file of these names, for one that is not what the hub has, and within ten seconds for a hub
    that cannot be reached.
    """
    for name in names:
        with fetching(False):
            try:
                return Path(hf_hub_download(repository, name))
            except (OSError, ValueError):  # not here; of the library each is one of the two
                pass
    if offline():
        raise ModelError(
            f"{said} is not on this machine, and nothing may be fetched; {WORKS_WITHOUT}"
        )
    for name in names:
        try:
            known = _answered(repository, name)
        except EntryNotFoundError:
            continue
        except RepositoryNotFoundError as error:
            raise ModelError(f"the hub has no model {repository}, or it is not public") from error
        except Exception as error:  # of sockets, of TLS, of a proxy, of the hub
            raise ModelError(
                f"{_host()} cannot be reached for {said} ({line(error)}); {WORKS_WITHOUT}"
            ) from error
        try:
            path = Path(hf_hub_download(repository, name))
        except Exception as error:  # as above, or of the disk
            raise ModelError(f"{name} of {said} could not be fetched: {line(error)}") from error
        _check(path, known.etag)
        return path
    raise NotInRepository(
        f"{repository} has none of {', '.join(names)}: only safetensors are opened, since other "
        "checkpoints can run anything"
    )


def fetch_if_there(repository: str, name: str, said: str) -> None:
    """A file that a model may have or not. Raises ModelError as fetch does."""
    with suppress(NotInRepository):
        fetch(repository, [name], said)


def _answered(repository: str, name: str) -> Any:
    """What the hub says of a file. A hub that says nothing in time is given up: a name that
    is looked up, and a proxy that keeps a connection open, know no timeout of their own.
    """
    answer: list[Any] = []

    def ask() -> None:
        try:
            url = hf_hub_url(repository, name)
            answer.append(get_hf_file_metadata(url, timeout=PATIENCE))
        except Exception as error:
            answer.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE)
    if not answer:
        raise TimeoutError(f"no answer in {PATIENCE:g} seconds")
    if isinstance(answer[0], Exception):
        raise answer[0]
    return answer[0]


def _check(path: Path, etag: str | None) -> None:
    """Raise ModelError where a large file (its etag is its SHA-256) is not what the hub has."""
    if etag and len(etag) == 64 and sha256(path) != etag:
        os.unlink(path.resolve())
        raise ModelError(
            f"{path} is not what the hub has: its SHA-256 is not {etag}; it was removed, run the "
            "same command again to fetch it anew"
        )


def sha256(path: Path) -> str:
    """Of a whole file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _host() -> str:
    return str(constants.ENDPOINT)


def line(error: Exception) -> str:
    """What an error of another library says, in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
