"""Which models there are: built in, exported here, and worth fetching."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmsearch.encoders import BUILTIN, cache, full_name, open_encoder
from mmsearch.encoders.builtin import MODELS, file_sha256
from mmsearch.errors import ModelError


@dataclass(frozen=True, slots=True)
class Known:
    """A model: `state` is "built in", "exported" or "not here"; `bytes` are on this disk.

    `parameters` are millions. `recall` has published figures in percent, as `source` gives them,
    and None or nothing stands for what nobody said.
    """

    name: str
    state: str
    modalities: tuple[str, ...]
    dim: int
    bytes: int = 0
    parameters: float | None = None
    licence: str | None = None
    languages: str | None = None
    recall: dict[str, float] = field(default_factory=dict)
    source: str | None = None
    folder: str | None = None
    weights: str | None = None
    fingerprint: str | None = None
    precision: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def known() -> list[Known]:
    """The built-in model, then those exported here, then those recommended that are not."""
    here = [_exported(entry) for entry in cache.entries() if entry.path.is_dir()]
    names = {one.name for one in here}
    others = [
        Known(**(row | {"state": "not here", "modalities": tuple(row["modalities"])}))
        for row in _recommended()
        if row["name"] not in names
    ]
    return [_builtin(), *here, *others]


def show(name: str) -> Known:
    """One of them. Raises ModelError for a name that is neither here nor recommended."""
    wanted = BUILTIN if name == "builtin" else full_name(name) or name
    for one in known():
        if one.name == wanted:
            return one
    raise ModelError(
        f"{name} is neither here nor among the recommended; mmsearch models pull {name} exports it"
    )


def verify(names: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Of each model that is here, or of these: what is not as it was written, a sentence each."""
    wanted = [show(name).name for name in names] if names else [
        one.name for one in known() if one.state != "not here"
    ]  # fmt: skip
    entries = {entry.name: entry for entry in cache.entries()}
    for name in wanted:
        if name not in entries:
            altered = open_encoder(name).altered()
            yield name, [f"{file} is not what was released" for file in altered]
            continue
        yield name, _altered(entries[name])


def _altered(entry: cache.Entry) -> list[str]:
    """What of an export is damaged, and whether its weights, where they are, are still the same."""
    again = f"remove {entry.path}, and it is exported again when it is next named"
    try:
        files = json.loads((entry.path / "model.json").read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError) as error:
        return [f"model.json cannot be read ({error}); {again}"]
    found = [
        f"{file} is not what was exported; {again}"
        for file, expected in files.items()
        if file_sha256(entry.path / file) != expected
    ]
    if Path(entry.weights).exists() and file_sha256(Path(entry.weights)) != entry.sha256:
        found.append(f"{entry.weights} is not what the export was made from")
    return found


def _builtin() -> Known:
    folder = MODELS / BUILTIN
    card = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    spoken = {"en": "English", "zh": "Chinese"}
    return Known(
        BUILTIN, "built in", tuple(sorted(card["modalities"])), card["dim"], _bytes(folder),
        licence="research use: LICENSE-WEIGHTS", folder=str(folder),
        languages=", ".join(spoken[code] for code in card["languages"]),
        source="the README has what was measured", fingerprint=open_encoder(BUILTIN).fingerprint,
    )  # fmt: skip


def _exported(entry: cache.Entry) -> Known:
    card = json.loads((entry.path / "model.json").read_text(encoding="utf-8"))
    said: dict[str, Any] = next((row for row in _recommended() if row["name"] == entry.name), {})
    return Known(
        entry.name, "exported", tuple(card["modalities"]), card["dim"], _bytes(entry.path),
        parameters=said.get("parameters"), licence=said.get("licence"),
        languages=said.get("languages"), recall=said.get("recall", {}), source=said.get("source"),
        folder=str(entry.path), weights=entry.weights, fingerprint=card["fingerprint"],
        precision=card["parity"],
    )  # fmt: skip


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def _recommended() -> list[dict[str, Any]]:
    path = Path(__file__).with_name("recommended.json")
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found
