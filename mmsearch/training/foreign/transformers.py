"""Dual encoders of transformers for pictures and texts: CLIP and SigLIP, by name or folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmsearch.encoders.foreign.hub import fetching
from mmsearch.errors import ModelError
from mmsearch.records import ImageInput, Modality
from mmsearch.training.dual import DualEncoder
from mmsearch.training.foreign.parts import Pictures, Projection, Texts
from mmsearch.training.towers import LogitScale

KINDS = ("clip", "siglip")
FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


class _Half(nn.Module):
    """One half of a dual encoder: what ``get_image_features`` or ``get_text_features`` needs."""

    def __init__(self, network: Any, part: str):
        super().__init__()
        self.model = getattr(network, f"{part}_model")
        name = "visual_projection" if part == "vision" else "text_projection"
        self.projection = getattr(network, name, nn.Identity())  # SigLIP has none of its own
        self.float()  # as saved it may be of half the precision

    def forward(self, inputs: Tensor) -> Tensor:
        """Pixels or ids to rows of the shared space, of any length."""
        out: Tensor = self.projection(self.model(inputs).pooler_output)
        return out


class TransformersImage(Pictures):
    """The half for pictures."""

    def __init__(
        self, config: dict[str, Any], mean: list[float], deviation: list[float], trunk: Any = None
    ):
        made = _configuration(config)
        trunk = trunk or _Half(transformers.AutoModel.from_config(made), "vision")
        head = Projection(_dim(made))
        super().__init__(trunk, head, made.vision_config.image_size, mean, deviation)
        self.arguments = {"config": config, "mean": mean, "deviation": deviation}


class TransformersText(Texts):
    """The half for texts."""

    def __init__(self, config: dict[str, Any], pad_id: int, trunk: Any = None):
        made = _configuration(config)
        trunk = trunk or _Half(transformers.AutoModel.from_config(made), "text")
        head = Projection(_dim(made))
        super().__init__(trunk, head, made.text_config.max_position_embeddings, pad_id)
        self.arguments = {"config": config, "pad_id": pad_id}


def start(said: str) -> DualEncoder:
    """A folder that ``save_pretrained`` made, or a name on the hub, which may be fetched.

    Raises ModelError. Weights come from safetensors only, and no code of a model's is run.
    """
    plainly = {"trust_remote_code": False}  # else it asks, and a yes runs what the model brings
    with fetching(not Path(said).is_dir()):
        try:
            config = transformers.AutoConfig.from_pretrained(said, **plainly)
            if config.model_type not in KINDS:
                raise ModelError(
                    f"transformers:{said} is of the kind {config.model_type}; there is: "
                    + ", ".join(KINDS)
                )
            network = transformers.AutoModel.from_pretrained(said, use_safetensors=True, **plainly)
            pictures = transformers.AutoImageProcessor.from_pretrained(said, **plainly)
            texts = transformers.AutoTokenizer.from_pretrained(said, **plainly)
        except (OSError, ValueError, ImportError, SafetensorError) as error:
            raise ModelError(f"transformers:{said} cannot be loaded: {error}") from error
    if not hasattr(texts, "backend_tokenizer"):
        raise ModelError(f"the tokenizer of {said} has no JSON form; its folder needs one that has")
    plain = config.to_dict()
    mean, deviation = list(pictures.image_mean), list(pictures.image_std)
    image = TransformersImage(plain, mean, deviation, _Half(network, "vision"))
    text = TransformersText(plain, texts.pad_token_id, _Half(network, "text"))
    crop = getattr(pictures, "do_center_crop", None)
    return DualEncoder(
        {Modality.IMAGE: image, Modality.TEXT: text},
        Tokenizer.from_str(texts.backend_tokenizer.to_str()),
        max_tokens=text.context,
        pad_id=texts.pad_token_id,
        image_input=ImageInput(
            image.size, "crop" if crop else "squash", FILTERS[int(pictures.resample)]
        ),
        logit_scale=LogitScale(min(network.logit_scale.exp().item(), 100.0)),
    )


def _configuration(config: dict[str, Any]) -> Any:
    return transformers.AutoConfig.for_model(**config)


def _dim(config: Any) -> int:
    """CLIP projects both halves to one width; SigLIP's are of one width from the beginning."""
    dim: int = getattr(config, "projection_dim", None) or config.text_config.projection_size
    return dim
