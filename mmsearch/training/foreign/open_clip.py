"""Any dual encoder of open_clip for pictures and texts: NAME/TAG, NAME/FILE.safetensors, FOLDER."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
from open_clip import tokenizer as theirs
from open_clip.model import CustomTextCLIP
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from tokenizers import Tokenizer
from torch import nn

from mmsearch.errors import ModelError
from mmsearch.records import ImageInput, Modality
from mmsearch.training.dual import DualEncoder
from mmsearch.training.foreign.hub import fetching
from mmsearch.training.foreign.parts import Pictures, Projection, Texts
from mmsearch.training.foreign.tokenizing import cleaned, clip_tokenizer
from mmsearch.training.towers import LogitScale

WEIGHTS, CONFIG = "open_clip_model.safetensors", "open_clip_config.json"
FITS = {"shortest": "crop", "squash": "squash"}


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
    """The model of that name. Raises ModelError.

    Only NAME/TAG may fetch anything: the weights of a release that open_clip lists.
    """
    found = _found(said)
    config = found.config
    if "multimodal_cfg" in config:
        raise ModelError(f"open_clip:{said} also writes texts; only dual encoders can be trained")
    with fetching(found.released):
        network = _network(config)
        tokenizer, pad_id = _tokenizer(config, found.source)
    try:
        open_clip.load_checkpoint(network, str(found.weights))
    except Exception as error:  # safetensors, torch and open_clip each have their own
        raise ModelError(f"{found.weights} does not hold the weights of {said}: {error}") from error
    preprocess = merge_preprocess_dict(PreprocessCfg(), found.preprocess)
    height, width = open_clip.transform.to_2tuple(network.visual.image_size)
    fit = FITS.get(preprocess["resize_mode"])
    if height != width or fit is None:
        raise ModelError(
            f"open_clip:{said} wants pictures of {height} x {width}, {preprocess['resize_mode']}; "
            "only square ones can be made, cropped or squashed"
        )
    normal = {"size": height, "mean": list(preprocess["mean"]), "std": list(preprocess["std"])}
    resample = {"random": "bicubic"}.get(preprocess["interpolation"], preprocess["interpolation"])
    image = OpenClipImage(config, normal, network.visual)
    text = OpenClipText(config, pad_id, network.text)
    return DualEncoder(
        {Modality.IMAGE: image, Modality.TEXT: text},
        tokenizer,
        max_tokens=text.context,
        pad_id=pad_id,
        image_input=ImageInput(height, fit, resample),
        logit_scale=LogitScale(min(network.logit_scale.exp().item(), 100.0)),
    )


class _Found(NamedTuple):
    config: dict[str, Any]
    preprocess: dict[str, Any]
    weights: Path
    source: str  # of the tokenizer
    released: bool = False  # and so to be fetched, where it is not here


def _found(said: str) -> _Found:
    if (folder := Path(said)).is_dir():
        try:
            both = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            config, preprocess = both["model_cfg"], both.get("preprocess_cfg", {})
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"{folder / CONFIG} is not open_clip's: {error}") from error
        return _Found(config, preprocess, _safe(folder / WEIGHTS), f"local-dir:{folder}")
    name, _, place = said.partition("/")
    config = open_clip.get_model_config(name)
    if config is None:
        raise ModelError(
            f"open_clip has no model {name!r}; it lists: python -c "
            "'import open_clip; print(open_clip.list_models())'"
        )
    release = open_clip.get_pretrained_cfg(name, place)
    if not release:
        return _Found(config, {}, _safe(Path(place)), name)
    try:
        weights = Path(open_clip.download_pretrained(release))
    except Exception as error:  # of the hub, of the network, of the disk
        raise ModelError(f"the weights of {said} could not be fetched: {error}") from error
    if "quick_gelu" in release:
        config["quick_gelu"] = release["quick_gelu"]
    return _Found(config, release, weights, name, released=True)


def _safe(path: Path) -> Path:
    """A pickle can run anything when it is opened."""
    if path.suffix != ".safetensors":
        raise ModelError(f"{path} is neither a release that open_clip lists nor a safetensors file")
    if not path.is_file():
        raise ModelError(f"there are no weights at {path}")
    return path


def _network(config: dict[str, Any]) -> Any:
    """Both halves, each a module of its own, with random weights."""
    config = deepcopy(config)
    config.pop("custom_text", None)
    config["vision_cfg"]["timm_model_pretrained"] = False
    config["text_cfg"]["hf_model_pretrained"] = False
    network: nn.Module = CustomTextCLIP(**config)
    return network.eval()


def _rebuilt(config: dict[str, Any]) -> Any:
    """The same for a run that is gone on with, which needs no hub."""
    with fetching(False):
        return _network(config)


def _tokenizer(config: dict[str, Any], source: str) -> tuple[Tokenizer, int]:
    text = config["text_cfg"]
    tokenizer = open_clip.get_tokenizer(source)
    clean = text.get("tokenizer_kwargs", {}).get("clean")
    if isinstance(tokenizer, theirs.SimpleTokenizer):
        return clip_tokenizer(tokenizer, clean or "lower"), 0
    other = not isinstance(tokenizer, theirs.HFTokenizer)
    if other or tokenizer.tokenizer_mode or tokenizer.strip_sep_token:
        raise ModelError(f"the tokenizer of {source} has no JSON form")
    ready = Tokenizer.from_str(tokenizer.tokenizer.backend_tokenizer.to_str())
    return cleaned(ready, clean or "whitespace"), tokenizer.tokenizer.pad_token_id
