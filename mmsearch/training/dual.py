"""A dual encoder in torch: towers of several modalities that end in one space.

model = start("builtin")                     # or a folder, open_clip:NAME/TAG, timm:NAME, ...
rows = model.encode(Modality.TEXT, model.collate(Modality.TEXT, ["a dog on grass"]))
model.export(Path("run"), "my-model", {})    # what mmsearch --model opens
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mmsearch.encoders import BUILTIN
from mmsearch.encoders.builtin import MODELS, Builtin
from mmsearch.encoders.patches import cut_patches
from mmsearch.errors import MissingExtra, ModelError
from mmsearch.records import AudioInput, ImageInput, Modality
from mmsearch.training.export import graph_of, read_tower, write
from mmsearch.training.towers import LogitScale, Tower

WEIGHTS = "model.safetensors"  # of a training run: its weights as they were, beside the graphs


class DualEncoder(nn.Module):
    """Towers by modality, the tokenizer of the text tower, and a learnable temperature."""

    def __init__(
        self,
        towers: Mapping[Modality, Tower],
        tokenizer: Tokenizer,
        *,
        max_tokens: int,
        pad_id: int,
        image_input: ImageInput | None = None,
        audio_input: AudioInput | None = None,
        logit_scale: LogitScale | None = None,
    ) -> None:
        super().__init__()
        self.towers = nn.ModuleDict({str(kind): tower for kind, tower in towers.items()})
        self.modalities = frozenset(towers)
        (self.dim,) = {tower.head.dim for tower in towers.values()}
        self.tokenizer, self.max_tokens, self.pad_id = tokenizer, max_tokens, pad_id
        self.tokenizer.enable_truncation(max_tokens)
        self.tokenizer.no_padding()
        self.image_input, self.audio_input = image_input, audio_input
        self.logit_scale = logit_scale or LogitScale()

    def collate(self, modality: Modality, batch: Sequence[Any]) -> tuple[Tensor, ...]:
        """What the tower takes, on the model's device.

        batch: uint8 RGB arrays (size, size, 3), float32 sounds (samples,), or texts.
        """
        inputs: tuple[Tensor, ...]
        if modality == Modality.TEXT:
            inputs = self.tokenize(batch)
        elif modality == Modality.IMAGE:
            inputs = (torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).float(),)
        else:
            clips = [torch.from_numpy(cut_patches(samples)) for samples in batch]
            lengths = torch.tensor([len(clip) for clip in clips])
            inputs = torch.cat(clips), torch.arange(len(clips)).repeat_interleave(lengths)
        device = self.logit_scale.logarithm.device
        return tuple(tensor.to(device) for tensor in inputs)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids and mask, each (n, longest) int64; a text too long is cut."""
        rows = [torch.tensor(encoding.ids) for encoding in self.tokenizer.encode_batch(list(texts))]
        ids = pad_sequence(rows, batch_first=True, padding_value=self.pad_id)
        return ids, pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)

    def features(self, modality: Modality, inputs: tuple[Tensor, ...]) -> Tensor:
        """(n, features): what ``head`` takes, so that it need be computed only once."""
        out: Tensor = self.tower(modality).features(*inputs)
        return out

    def head(self, modality: Modality, features: Tensor) -> Tensor:
        """(n, features) -> (n, dim) unit rows."""
        return self.tower(modality).embed(features)

    def encode(self, modality: Modality, inputs: tuple[Tensor, ...]) -> Tensor:
        """What ``collate`` gave -> (n, dim) unit rows."""
        out: Tensor = self.tower(modality)(*inputs)
        return out

    def encode_image(self, pixels: Tensor) -> Tensor:
        """pixels: (n, 3, size, size), 0 to 255 -> (n, dim) unit rows."""
        return self.encode(Modality.IMAGE, (pixels,))

    def encode_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids, mask: (n, t) -> (n, dim) unit rows."""
        return self.encode(Modality.TEXT, (ids, mask))

    def encode_audio(self, patches: Tensor, owners: Tensor) -> Tensor:
        """patches: (p, 15600); owners: (p,) the sound of each -> (n, dim) unit rows."""
        return self.encode(Modality.AUDIO, (patches, owners))

    def tower(self, modality: Modality) -> Tower:
        """The tower of a modality."""
        tower = self.towers[str(modality)]
        assert isinstance(tower, Tower)
        return tower

    def export(self, folder: Path, name: str, facts: Mapping[str, Any]) -> None:
        """Write the folder that ``mmsearch --model`` opens; facts are put into its model.json.

        Call it on the CPU.
        """
        folder.mkdir(parents=True, exist_ok=True)
        files = {}
        for kind in sorted(self.modalities):
            file = f"{kind}.onnx"
            files[file] = write(graph_of(self.tower(kind)), folder / file)
        files["tokenizer.json"] = write(self.tokenizer.to_str().encode(), folder / "tokenizer.json")
        card: dict[str, Any] = {
            "name": name,
            "dim": self.dim,
            "modalities": sorted(self.modalities),
            "text": {"max_tokens": self.max_tokens, "pad_id": self.pad_id},
            "files": files,
            "logit_scale": round(self.logit_scale().item(), 4),
        }
        if self.image_input:
            card["image"] = asdict(self.image_input)
        if self.audio_input:
            card["audio"] = asdict(self.audio_input)
        text = json.dumps(card | dict(facts), indent=2, ensure_ascii=False)
        (folder / "model.json").write_text(text + "\n", encoding="utf-8")


def load_towers(folder: Path) -> DualEncoder:
    """The dual encoder of a model's folder: the weights of a training run, or those in its graphs.

    Raises ModelError for a folder that is not whole, and for graphs of another make.
    """
    encoder = Builtin(folder.name, folder)
    if altered := encoder.altered():
        raise ModelError(f"{folder} is not as it was written: {', '.join(altered)}")
    card = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    weights: dict[str, Tensor] | None = None
    if (folder / WEIGHTS).exists():
        try:
            weights = load_file(folder / WEIGHTS)
        except SafetensorError as error:
            raise ModelError(f"{folder / WEIGHTS} is damaged: {error}") from error
    towers = {}
    for kind in sorted(encoder.modalities):
        place = f"towers.{kind}."
        own = weights and {
            n.removeprefix(place): w for n, w in weights.items() if n.startswith(place)
        }
        towers[kind] = read_tower(folder / f"{kind}.onnx", own)
    return DualEncoder(
        towers,
        Tokenizer.from_file(str(folder / "tokenizer.json")),
        **card["text"],
        image_input=encoder.image_input,
        audio_input=encoder.audio_input,
        logit_scale=LogitScale(card.get("logit_scale", 1 / 0.07)),
    )


STARTS = ("timm", "open_clip", "transformers")  # modules of mmsearch.training.foreign


def start(name: str) -> DualEncoder:
    """Where training begins.

        builtin                         the model in the package, or builtin-N
        FOLDER                          a training run, or another model's folder
        open_clip:NAME/TAG              a release that open_clip lists; it may be fetched
        open_clip:NAME/FILE.safetensors, open_clip:FOLDER
        transformers:NAME_OR_FOLDER     CLIP or SigLIP; a NAME may be fetched
        timm:NAME, timm:NAME.TAG, timm:NAME/FILE.safetensors
                                        an image network with the built-in text tower; a TAG may be
                                        fetched

    Raises ModelError, and MissingExtra where a library is absent.
    """
    library, colon, rest = name.partition(":")
    if colon and library in STARTS:
        try:
            module = importlib.import_module(f"mmsearch.training.foreign.{library}")
        except ModuleNotFoundError as error:
            raise MissingExtra(f"starting from {library}", "train") from error
        model: DualEncoder = module.start(rest)
        return model.eval()
    shipped = MODELS / (BUILTIN if name == "builtin" else name)
    if "/" not in name and shipped.is_dir():
        return load_towers(shipped)
    if (Path(name) / "model.json").exists():
        return load_towers(Path(name))
    raise ModelError(
        f"training cannot start from {name!r}: it is neither builtin, nor a folder with a model, "
        f"nor {', '.join(f'{library}:NAME' for library in STARTS)}"
    )
