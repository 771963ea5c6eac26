"""A model of another library to a folder that needs none: graphs, a tokenizer and a card."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmsearch.encoders.foreign.hub import line, sha256
from mmsearch.encoders.foreign.modules import PictureRows, text_rows
from mmsearch.encoders.foreign.tracing import Shapes, scripted, traced
from mmsearch.encoders.runtime import Graph
from mmsearch.errors import ModelError
from mmsearch.records import Modality

LEAST = 0.9999  # the cosine of a graph's rows with torch's
TEXTS = ["a dog", "two cats on a sofa, one asleep", "w " * 200]


@dataclass(frozen=True)
class Tower:
    """One half: a module, what it is traced with, and which axes vary. `others` are inputs that
    its graph is held against, where they cannot be drawn like the first one.
    """

    module: nn.Module
    inputs: dict[str, Tensor]
    shapes: tuple[Shapes, ...]
    others: tuple[dict[str, Tensor], ...] = ()


@dataclass(frozen=True)
class Source:
    """A network in torch with all that an encoder has to know of it.

    `identity` is what else, besides the weights and the tokenizer, decides what its rows are;
    `card` goes into model.json, and `files` by name beside it.
    """

    towers: Mapping[Modality, Tower]
    tokenizer: Tokenizer
    weights: Path
    identity: dict[str, Any]
    card: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Of the weights and the preprocessing: the same for every export of a model."""
        words = json.dumps(sorted(self.tokenizer.get_vocab().items()))
        said = self.identity | {
            "weights": sha256(self.weights),
            "tokenizer": hashlib.sha256(words.encode()).hexdigest(),
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def load(name: str) -> Source:
    """The model of that name, in torch. Raises ModelError."""
    library, _, rest = name.partition(":")
    if library == "clap":
        from mmsearch.encoders.foreign import clap

        return clap.source(rest)
    if library == "pe-av":
        from mmsearch.encoders.foreign import pe_av

        return pe_av.source(rest)
    return _open_clip(name)


def _open_clip(name: str) -> Source:
    from mmsearch.encoders.foreign import open_clip

    found = open_clip.load(name)
    size, context = found.image_input.size, found.network.text.context_length
    n = torch.export.Dim("n")
    pixels = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    towers = {
        Modality.IMAGE: Tower(
            PictureRows(found.network.visual, found.mean, found.deviation),
            {"pixels": pixels},
            ({0: n},),
        ),
        Modality.TEXT: text_tower(text_rows(found.network.text, context, found.pad_id), context),
    }
    picture = {key: value for key, value in asdict(found.image_input).items() if key != "exact"}
    text = {"max_tokens": context, "pad_id": found.pad_id}
    normal = {"mean": found.mean, "deviation": found.deviation}
    return Source(
        towers,
        found.tokenizer,
        found.weights,
        {"config": found.config, "image": picture, "text": text | {"clean": found.clean}} | normal,
        {"kind": "open_clip", "dim": found.config["embed_dim"], "image": picture, "text": text}
        | {"repaired": True},
    )


def text_tower(module: nn.Module, context: int) -> Tower:
    """A module for ids and mask, both (n, t)."""
    n, t = torch.export.Dim("n"), torch.export.Dim("t", max=context)
    row = torch.ones(2, min(5, context), dtype=torch.int64)
    return Tower(module, {"ids": row, "mask": row.clone()}, ({0: n, 1: t}, {0: n, 1: t}))


def export(source: Source, name: str, folder: Path) -> None:
    """Write a folder that an Exported encoder opens. Raises ModelError for a graph whose rows are
    not those of torch.
    """
    files = dict(source.files) | {"tokenizer.json": source.tokenizer.to_str().encode()}
    hashes = {}
    for file, data in files.items():
        (folder / file).write_bytes(data)
    parity = {}
    for kind, tower in source.towers.items():
        parity[str(kind)] = _export_tower(kind, tower, source, folder)
    for path in sorted(folder.iterdir()):
        hashes[path.name] = sha256(path)
    card = source.card | {
        "name": name,
        "fingerprint": source.fingerprint,
        "modalities": sorted(source.towers),
        "files": hashes,
        "weights": {
            "path": str(source.weights),
            "sha256": sha256(source.weights),
            "bytes": source.weights.stat().st_size,
        },
        "parity": parity,
        "made_with": {package: version(package) for package in ("torch", "onnx")},
    }
    text = json.dumps(card, indent=2, ensure_ascii=False)
    (folder / "model.json").write_text(text + "\n", encoding="utf-8")


def _export_tower(kind: Modality, tower: Tower, source: Source, folder: Path) -> float:
    """Write a tower's graph; the least cosine of its rows with torch's, at least LEAST."""
    least = 0.0
    for exporter in (partial(scripted, folder), traced):
        try:
            with warnings.catch_warnings():  # of torch, about itself
                warnings.simplefilter("ignore")
                model = exporter(tower.module, tower.inputs, tower.shapes)
            _write(model, folder, str(kind))
            least = _parity(kind, tower, source, folder)
        except Exception as error:  # of torch, onnx or onnxruntime, each has its own
            if exporter is traced:
                raise ModelError(f"{kind} cannot be exported: {line(error)}") from error
        if least >= LEAST:
            return least
    raise ModelError(
        f"the exported graph for {kind} is not the model: cosine {least:.5f} with torch "
        f"{torch.__version__}; please report it with the model's name"
    )


def _write(model: onnx.ModelProto, folder: Path, name: str) -> None:
    """The graph and, in a file beside it, its weights: they are mapped into memory, where
    reading them out of one file costs a cold query half a second.
    """
    (folder / f"{name}.data").unlink(missing_ok=True)
    onnx.save_model(
        model, str(folder / f"{name}.onnx"), save_as_external_data=True, location=f"{name}.data",
        size_threshold=1024,
    )  # fmt: skip


def _parity(kind: Modality, tower: Tower, source: Source, folder: Path) -> float:
    """The least cosine of a written graph's rows with torch's, over inputs of several sizes."""
    with torch.inference_mode():
        graph, least = Graph(folder / f"{kind}.onnx"), 1.0
        for inputs in _samples(kind, tower, source):
            expected = tower.module(*inputs.values()).numpy()
            found = graph(**{name: tensor.numpy() for name, tensor in inputs.items()})
            least = min(least, float((expected * found).sum(1).min()))
    return round(least, 6)


def _samples(kind: Modality, tower: Tower, source: Source) -> Sequence[dict[str, Tensor]]:
    """Inputs of other sizes than the tower was traced with."""
    if tower.others:
        return tower.others
    if kind is Modality.TEXT:
        most: int = source.card["text"]["max_tokens"]
        found = [source.tokenizer.encode(text).ids[:most] for text in TEXTS]
        return [
            {"ids": torch.tensor([ids]), "mask": torch.ones(1, len(ids), dtype=torch.int64)}
            for ids in found
        ]
    ((name, example),) = tower.inputs.items()
    draw = np.random.default_rng(0)
    if kind is Modality.IMAGE:
        values = draw.integers(0, 256, (3, *example.shape[1:]), dtype=np.uint8)
    else:
        values = draw.normal(-30, 20, (3, *example.shape[1:])).astype(np.float32)
    return [{name: torch.from_numpy(values)}]
