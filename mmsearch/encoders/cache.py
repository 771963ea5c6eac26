"""Where exported models are kept: a folder each, found by name without torch and without a hub.

    <cache>/models/<first half of the fingerprint>/   what Exported opens
    <cache>/models/names/<hash of a name>.json        which folder a name stands for

A name whose weights are a file here is bound to that file as it was: another one under the same
path is looked at anew. Everything in here may be deleted; it is then exported again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from mmsearch.errors import MissingExtra, ModelError
from mmsearch.settings import load_settings


@dataclass(frozen=True, slots=True)
class Entry:
    """What a name stands for: a folder of the cache, and the weights that it was made from."""

    name: str
    folder: str  # its name in the cache
    weights: str
    size: int
    mtime_ns: int
    sha256: str

    @property
    def path(self) -> Path:
        """Where the export is."""
        return place() / self.folder

    def holds(self) -> bool:
        """Whether the export is there, and its weights, where they are still here, unchanged."""
        if not (self.path / "model.json").is_file():
            return False
        try:
            status = os.stat(self.weights)
        except OSError:
            return True  # the export needs them no more
        return (status.st_size, status.st_mtime_ns) == (self.size, self.mtime_ns)


def place() -> Path:
    """The folder of all exports."""
    return load_settings().cache / "models"


def entries() -> Iterator[Entry]:
    """Every name that was opened here, by name."""
    found = (_read(path) for path in (place() / "names").glob("*.json"))
    yield from sorted((entry for entry in found if entry), key=lambda entry: entry.name)


def find(name: str) -> Entry | None:
    """What a name stands for, where that is known and still holds."""
    entry = _read(_record(name))
    return entry if entry and entry.holds() else None


def make(name: str) -> Entry:
    """Export the model of that name, or find that the same weights were before.

    Raises ModelError, and MissingExtra where torch or the model's library is absent.
    """
    try:
        from mmsearch.encoders.foreign import exporting
    except ModuleNotFoundError as error:
        raise MissingExtra(f"opening {name} for the first time ({error.name})", "clip") from error
    source = exporting.load(name)
    fingerprint = source.fingerprint
    folder = place() / fingerprint[:32]
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (folder / "model.json").is_file():
        making = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
        try:
            exporting.export(source, name, making)
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(making, folder)
        except OSError as error:
            # another process may have been faster; anything else is the disk's
            if not (folder / "model.json").is_file():
                raise ModelError(f"{name} cannot be kept in {folder}: {error}") from error
        finally:
            shutil.rmtree(making, ignore_errors=True)
    status = os.stat(source.weights)
    card = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    entry = Entry(
        name, folder.name, str(source.weights), status.st_size, status.st_mtime_ns,
        card["weights"]["sha256"],
    )  # fmt: skip
    record = _record(name)
    record.parent.mkdir(mode=0o700, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=record.parent, delete=False) as file:
        json.dump(asdict(entry), file, indent=2)
    os.replace(file.name, record)
    return entry


def _record(name: str) -> Path:
    return place() / "names" / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"


def _read(path: Path) -> Entry | None:
    try:
        return Entry(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
