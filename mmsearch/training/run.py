"""The run folder: what `mmsearch train` leaves behind.

    config.json         every setting, with the hash of the data
    bad.jsonl           what was skipped, each with its reason
    metrics.jsonl       a line a step, a line a measurement; the last has the verdict of the gate
    curve.png           the same as a picture
    checkpoint.pt       weights, optimiser and position: where --resume goes on
    model.safetensors   the trained weights, and beside them what `--model RUN` opens:
    model.json, image.onnx, text.onnx, tokenizer.json, ...

Each file is replaced as a whole, or grows by whole lines: a run may be killed at any moment.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsearch.durable import replace, storage_error
from mmsearch.errors import TrainingError
from mmsearch.files import display

if TYPE_CHECKING:
    from mmsearch.training.dual import DualEncoder


# What a run that was killed before it had a config.json may leave, and may be written over.
_EARLY = {"LOCK", "metrics.jsonl", "bad.jsonl", "checkpoint.pt", "checkpoint.pt.part"}


class RunFolder:
    """One run folder; of several processes, one `writes`.

    Raises LibraryError, in words of ours, when the disk does not play along.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path = path
        self.writes = writes
        self.name = display(os.fsencode(path))

    def begin(self) -> None:
        """Make the folder. Raises TrainingError when there is a run in it already."""
        if not self.writes:
            return
        if (self.path / "config.json").exists():
            raise TrainingError(
                f"{self.name} has a run in it already; go on with it: "
                f"mmsearch train --resume --out {self.name}, or give another --out"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            strange = sorted(set(os.listdir(self.path)) - _EARLY)
        except OSError as error:
            raise storage_error(error, self.path) from error
        if strange:
            raise TrainingError(f"{self.name} is not empty ({strange[0]}); give another --out")

    def write(self, name: str, data: bytes) -> None:
        """Replace a file: whole or not at all, also after a power cut."""
        if not self.writes:
            return
        path = str(self.path / name)
        try:
            with open(f"{path}.part", "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            replace(f"{path}.part", path)
        except OSError as error:
            raise storage_error(error, path) from error

    def write_json(self, name: str, value: Any) -> None:
        """Replace a JSON file."""
        self.write(name, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())

    def write_lines(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        """Replace a file of one JSON object a line."""
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        self.write(name, "".join(lines).encode())

    def add_line(self, name: str, row: dict[str, Any]) -> None:
        """Append one JSON object."""
        if not self.writes:
            return
        try:
            with open(self.path / name, "a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        except OSError as error:
            raise storage_error(error, self.path / name) from error

    def read_json(self, name: str) -> Any:
        """The value of a JSON file. Raises TrainingError."""
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise TrainingError(
                f"{self.name} has no run to go on with: {name} is missing"
            ) from None
        except (OSError, ValueError) as error:
            raise TrainingError(f"{self.name}/{name} cannot be read: {error}") from error

    def read_lines(self, name: str) -> list[dict[str, Any]]:
        """The objects of a file of lines; a last line that a kill cut short is left out."""
        try:
            lines = (self.path / name).read_bytes().split(b"\n")[:-1]
            return [json.loads(line) for line in lines]
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise TrainingError(f"{self.name}/{name} cannot be read: {error}") from error

    def export(self, model: DualEncoder, facts: dict[str, Any]) -> None:
        """The weights, and what `--model` opens: all of it, or (with no model.json) none."""
        from safetensors.torch import save

        if not self.writes:
            return
        with tempfile.TemporaryDirectory(dir=self.path, prefix=".export-") as place:
            made = Path(place)
            model.export(made, self.path.resolve().name, facts)
            names = sorted(os.listdir(made))
            names.sort(key=lambda name: name == "model.json")  # which says that all is there
            state = {key: value.contiguous().clone() for key, value in model.state_dict().items()}
            self.write("model.safetensors", save(state))
            for name in names:
                self.write(name, (made / name).read_bytes())

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Replace checkpoint.pt."""
        import torch

        if self.writes:
            out = io.BytesIO()
            torch.save(state, out)
            self.write("checkpoint.pt", out.getvalue())

    def load_checkpoint(self) -> dict[str, Any]:
        """What was saved last, on the CPU; no code in the file is run. Raises TrainingError."""
        import torch

        path = self.path / "checkpoint.pt"
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # pickle, zip and torch each have their own
            said = str(error).partition("\n")[0]
            raise TrainingError(
                f"{self.name}/checkpoint.pt cannot be read ({said}); begin another run"
            ) from error
        return state
