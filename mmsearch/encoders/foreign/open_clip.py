"""Any dual encoder of open_clip for pictures and texts, its own network with its own weights."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
from open_clip import tokenizer as theirs
from open_clip.model import CustomTextCLIP
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from tokenizers import Tokenizer
from torch import nn

from mmsearch.encoders.foreign import hub
from mmsearch.encoders.foreign.tokenizing import cleaned, clip_tokenizer
from mmsearch.errors import ModelError
from mmsearch.records import ImageInput

WEIGHTS, CONFIG = "open_clip_model.safetensors", "open_clip_config.json"
FITS = {"shortest": "crop", "squash": "squash", "longest": "pad"}


@dataclass(frozen=True)
class OpenClip:
    """A network with its halves `visual` and `text`, and what goes before them.

    `mean` and `deviation` are of pixels from 0 to 1. `clean` names open_clip's way of cleaning a
    text, and `weights` is the file that the network was read from.
    """

    network: Any
    config: dict[str, Any]
    tokenizer: Tokenizer
    pad_id: int
    clean: str
    image_input: ImageInput
    mean: list[float]
    deviation: list[float]
    weights: Path


def load(said: str) -> OpenClip:
    """ARCHITECTURE/TAG, ARCHITECTURE/FILE.safetensors, hf-hub:ORG/NAME, or a FOLDER.

    Raises ModelError. Only a release and a name on the hub may fetch anything.
    """
    found = _found(said)
    config = found.config
    if "multimodal_cfg" in config:
        raise ModelError(f"{said} also writes texts; only dual encoders can be opened")
    with hub.fetching(found.released):
        network = built(config)
        tokenizer, pad_id, clean = _tokenizer(config, found.source, said)
    try:
        open_clip.load_checkpoint(network, str(found.weights))
    except Exception as error:  # safetensors, torch and open_clip each have their own
        raise ModelError(
            f"{found.weights} does not hold the weights of {said}: "
            f"{hub.line(error)}; "
            "if it was fetched, remove it and fetch it again"
        ) from error
    preprocess = merge_preprocess_dict(PreprocessCfg(), found.preprocess)
    height, width = open_clip.transform.to_2tuple(network.visual.image_size)
    if height != width:
        raise ModelError(f"{said} wants pictures of {height} x {width}; only squares can be made")
    resample = {"random": "bicubic"}.get(preprocess["interpolation"], preprocess["interpolation"])
    return OpenClip(
        network,
        config,
        tokenizer,
        pad_id,
        clean,
        ImageInput(
            height, FITS[preprocess["resize_mode"]], resample, int(preprocess["fill_color"])
        ),
        list(preprocess["mean"]),
        list(preprocess["std"]),
        found.weights,
    )


class _Found(NamedTuple):
    config: dict[str, Any]
    preprocess: dict[str, Any]
    weights: Path
    source: str  # of the tokenizer
    released: bool = False  # and so to be fetched, where it is not here


def _found(said: str) -> _Found:
    if said.startswith("hf-hub:"):
        return _on_hub(said)
    if (folder := Path(said)).is_dir():
        config, preprocess = _read(folder / CONFIG)
        return _Found(config, preprocess, hub.safe(folder / WEIGHTS), f"local-dir:{folder}")
    name, _, place = said.partition("/")
    config = open_clip.get_model_config(name)
    if config is None:
        raise ModelError(
            f"open_clip has no model {name!r}; it lists: python -c "
            "'import open_clip; print(open_clip.list_models())'"
        )
    release = open_clip.get_pretrained_cfg(name, place)
    if not release:
        if "/" not in place and Path(place).suffix == "":
            tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
            raise ModelError(
                f"{said} is neither a release that open_clip lists for {name} ({tags}) "
                "nor a safetensors file"
            )
        return _Found(config, {}, hub.safe(Path(place)), name)
    if "quick_gelu" in release:
        config["quick_gelu"] = release["quick_gelu"]
    repository, _, file = release.get("hf_hub", "").rpartition("/")
    if not repository:
        raise ModelError(
            f"the weights of {said} are published as a pickle, {release.get('url', '')}, which "
            "can run anything when it is opened; only safetensors are: convert them, and name "
            f"the file as {name}//path/to/model.safetensors"
        )
    weights = hub.fetch(repository, _safe_names(file), said)
    return _Found(config, release, weights, name, released=True)


def _on_hub(said: str) -> _Found:
    repository = said.removeprefix("hf-hub:")
    config, preprocess = _read(hub.fetch(repository, [CONFIG], said))
    weights = hub.fetch(repository, _safe_names(""), said)
    return _Found(config, preprocess, weights, said, released=True)


def _safe_names(file: str) -> list[str]:
    """The names under which a release may have its weights as safetensors, likeliest first."""
    own = [str(Path(file).with_suffix(".safetensors"))] if file else []
    return [*own, WEIGHTS, "open_clip_pytorch_model.safetensors", "model.safetensors"]


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        both = json.loads(path.read_text(encoding="utf-8"))
        return both["model_cfg"], both.get("preprocess_cfg", {})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is not open_clip's: {error}") from error


def built(config: dict[str, Any]) -> Any:
    """The network, both halves a module of its own, with random weights."""
    config = deepcopy(config)
    config.pop("custom_text", None)
    config["vision_cfg"]["timm_model_pretrained"] = False
    config["text_cfg"]["hf_model_pretrained"] = False
    network: nn.Module = CustomTextCLIP(**config)
    return network.eval()


def _tokenizer(config: dict[str, Any], source: str, said: str) -> tuple[Tokenizer, int, str]:
    """The tokenizer, the id it pads with, and how it cleans."""
    text = config["text_cfg"]
    try:
        tokenizer = open_clip.get_tokenizer(source)
    except Exception as error:  # of the hub, of transformers, of the disk
        raise ModelError(f"the tokenizer of {said} cannot be loaded: {hub.line(error)}") from error
    clean = text.get("tokenizer_kwargs", {}).get("clean")
    if isinstance(tokenizer, theirs.SimpleTokenizer):
        clean = clean or "lower"
        return clip_tokenizer(tokenizer, clean), 0, clean
    other = not isinstance(tokenizer, theirs.HFTokenizer)
    if other or tokenizer.tokenizer_mode or tokenizer.strip_sep_token:
        raise ModelError(f"the tokenizer of {source} has no JSON form")
    inside = tokenizer.tokenizer
    if inside.padding_side != "right":
        raise ModelError(f"the tokenizer of {source} pads on the left; only the right is read")
    clean = clean or "whitespace"
    ready = Tokenizer.from_str(inside.backend_tokenizer.to_str())
    return cleaned(ready, clean), inside.pad_token_id, clean
