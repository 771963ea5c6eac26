"""Any dual encoder of open_clip for pictures and texts: NAME/TAG, NAME/FILE.safetensors, FOLDER."""

from __future__ import annotations

from typing import Any

from mmsearch.encoders.foreign.hub import fetching
from mmsearch.encoders.foreign.open_clip import built, load
from mmsearch.errors import ModelError
from mmsearch.records import Modality
from mmsearch.training.dual import DualEncoder
from mmsearch.training.foreign.parts import Pictures, Projection, Texts
from mmsearch.training.towers import LogitScale


class OpenClipImage(Pictures):
    """The half for pictures."""

    def __init__(self, config: dict[str, Any], preprocess: dict[str, Any], trunk: Any = None):
        trunk = trunk or _rebuilt(config).visual
        size, mean, deviation = (preprocess[key] for key in ("size", "mean", "std"))
        super().__init__(trunk, Projection(config["embed_dim"]), size, mean, deviation)
        self.arguments = {"config": config, "preprocess": preprocess}


class OpenClipText(Texts):
    """The half for texts."""

    def __init__(self, config: dict[str, Any], pad_id: int, trunk: Any = None):
        trunk = trunk or _rebuilt(config).text
        super().__init__(trunk, Projection(config["embed_dim"]), trunk.context_length, pad_id)
        self.arguments = {"config": config, "pad_id": pad_id}


def start(said: str) -> DualEncoder:
    """The model of that name. Raises ModelError."""
    found = load(said)
    want = found.image_input
    if want.fit == "pad":
        raise ModelError(f"open_clip:{said} pads its pictures; only cropped and squashed are made")
    normal = {"size": want.size, "mean": found.mean, "std": found.deviation}
    image = OpenClipImage(found.config, normal, found.network.visual)
    text = OpenClipText(found.config, found.pad_id, found.network.text)
    return DualEncoder(
        {Modality.IMAGE: image, Modality.TEXT: text},
        found.tokenizer,
        max_tokens=text.context,
        pad_id=found.pad_id,
        image_input=want,
        logit_scale=LogitScale(min(found.network.logit_scale.exp().item(), 100.0)),
    )


def _rebuilt(config: dict[str, Any]) -> Any:
    """The network for a run that is gone on with, which needs no hub."""
    with fetching(False):
        return built(config)
