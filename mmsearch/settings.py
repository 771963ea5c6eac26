"""Settings: defaults < file < environment < argument, as one frozen dataclass.

The file is `config.toml` in the user's configuration folder (`mmsearch status` names
it); the environment variable of a field is MMSEARCH_ and its name in capitals.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from mmsearch.errors import UsageError

APP = "mmsearch"


@dataclass(frozen=True, slots=True)
class Settings:
    """What may be set. Every field can come from the file, the environment or a call."""

    index: Path = Path()  # filled in by load_settings: <user data dir>/mmsearch/default
    model: str = "builtin"
    workers: int = 0  # decoder processes; 0: one a core, six at most
    batch: int = 256  # items a transaction; an interrupted run loses at most one
    timeout: float = 30.0  # seconds a single file may take to decode
    max_megapixels: float = 64.0  # decoded pixels of one picture
    max_file_mb: float = 256.0  # bytes of one picture, in millions
    max_hours: float = 24.0  # of one sound
    max_text_mb: float = 16.0  # bytes of one text, in millions
    target_recall: float = 0.0  # of recall@10 in a large library; 0: what the library remembers
    max_memory_mb: float = 0.0  # for searching one kind of vectors; 0: what the library remembers
    faiss: str = ""  # an index as FAISS describes it, "auto" for the usual; "": remembered
    keep_queries: bool = False  # as vectors in the library, which indexes are tuned with
    cache: Path = Path()  # of exported models; filled in: <user cache dir>/mmsearch
    offline: bool = False  # nothing is fetched, whatever is named


def config_file() -> Path:
    """Where the settings file is looked for."""
    return Path(platformdirs.user_config_dir(APP, appauthor=False)) / "config.toml"


def load_settings(**arguments: Any) -> Settings:
    """Settings from all four places; an argument that is None counts as not given.

    Raises UsageError for an unknown name or a value of the wrong kind, naming the
    place it came from.
    """
    values: dict[str, Any] = {"index": _default_index(), "cache": _default_cache()}
    known = {field.name: field for field in dataclasses.fields(Settings)}
    path = config_file()
    given = [(str(path), _read_file(path)), ("the environment", _read_environment(known))]
    given.append(("the call", {k: v for k, v in arguments.items() if v is not None}))
    for place, found in given:
        for name, value in found.items():
            if name not in known:
                raise UsageError(f"{place}: no setting is called {name!r}")
            values[name] = _convert(place, name, value)
    return Settings(**values)


def save_setting(name: str, value: str) -> Path:
    """Put a text setting into the settings file, whose other lines stay; where that is.

    Raises UsageError for a file that cannot be read or written.
    """
    path = config_file()
    _read_file(path)  # one that is damaged is not made worse
    line = f"{name} = {json.dumps(value, ensure_ascii=False)}\n"
    try:
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        lines = before.splitlines(keepends=True)
        kept = [old for old in lines if old.split("=", maxsplit=1)[0].strip() != name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(line + "".join(kept), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    return path


def _default_index() -> Path:
    return Path(platformdirs.user_data_dir(APP, appauthor=False)) / "default"


def _default_cache() -> Path:
    return Path(platformdirs.user_cache_dir(APP, appauthor=False))


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} is not a readable settings file: {error}") from error


def _read_environment(known: dict[str, Any]) -> dict[str, str]:
    variables = ((name, os.environ.get(f"MMSEARCH_{name.upper()}")) for name in known)
    return {name: value for name, value in variables if value}


def _convert(place: str, name: str, value: Any) -> Any:
    kinds: dict[str, Callable[[Any], Any]] = {
        "index": Path,
        "cache": Path,
        "model": str,
        "faiss": str,
    }
    kinds |= {"workers": int, "batch": int, "offline": _switch, "keep_queries": _switch}
    try:
        converted = kinds.get(name, float)(value)
    except (TypeError, ValueError):
        raise UsageError(f"{place}: {name} = {value!r} is not a number") from None
    if isinstance(converted, bool):
        return converted
    if isinstance(converted, int | float) and not converted >= (0 if name == "workers" else 1e-9):
        raise UsageError(f"{place}: {name} = {value!r} is too small")
    return converted.expanduser() if isinstance(converted, Path) else converted


def _switch(value: Any) -> bool:
    return str(value).lower() not in ("0", "false", "no", "off")
