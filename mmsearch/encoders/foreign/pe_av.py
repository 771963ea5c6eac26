"""PE-AV of transformers: sounds, pictures and texts in one space (Vyas et al. 2025, arXiv
2512.19687). Its checkpoints are of three kinds: of sounds, of videos, and of both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmsearch.encoders.foreign import hub
from mmsearch.encoders.foreign.exporting import Source, Tower, text_tower
from mmsearch.encoders.foreign.modules import PictureRows
from mmsearch.errors import ModelError
from mmsearch.records import Modality

WINDOW = 10.0  # seconds that are one item; the network itself hears any length
_RESAMPLE = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
# How a network is called by what its config says.
NETWORKS = {
    "pe_audio": "PeAudioModel", "pe_video": "PeVideoModel", "pe_audio_video": "PeAudioVideoModel",
}  # fmt: skip


class SoundRows(nn.Module):
    """The half for sounds; model: PeAudioModel."""

    def __init__(self, model: Any):
        super().__init__()
        self.encoder, self.head = model.audio_encoder, model.audio_head

    def forward(self, samples: Tensor) -> Tensor:
        """samples: (n, t), t a multiple of the hop -> (n, dim) unit rows."""
        return F.normalize(self.head(self.encoder(samples[:, None]).pooler_output), dim=-1)


class StillFrames(nn.Module):
    """What a video's frames are made of, where all of them are one picture: seen only once."""

    def __init__(self, own: nn.Module, frames: int):
        super().__init__()
        self.own, self.frames = own, frames

    def forward(self, pixels: Tensor, padding_mask: None = None) -> tuple[Tensor, None]:
        """pixels: (n, 1, 3, size, size) -> (n, frames, width)."""
        return self.own(pixels)[0].expand(-1, self.frames, -1), None


class StillRows(nn.Module):
    """The half for videos, of pictures that stand still; model: PeVideoModel."""

    def __init__(self, model: Any, frames: int):
        super().__init__()
        self.encoder, self.head = model.video_encoder, model.video_head
        self.encoder.embedder = StillFrames(self.encoder.embedder, frames)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels: (n, 3, size, size), normalised -> (n, dim)."""
        row: Tensor = self.head(self.encoder(pixels[:, None]).pooler_output)
        return row


class WordRows(nn.Module):
    """The half for texts. The network has a row of a text against sounds and another against
    videos; where it reads both, ours is the renormalised mean of the two.
    """

    def __init__(self, text: nn.Module, heads: list[nn.Module]):
        super().__init__()
        self.text, self.heads = text, nn.ModuleList(heads)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids, mask: (n, t) -> (n, dim) unit rows."""
        first = self.text(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
        rows = torch.stack([F.normalize(head(first), dim=-1) for head in self.heads])
        return F.normalize(rows.sum(dim=0), dim=-1)


def source(said: str) -> Source:
    """A folder that ``save_pretrained`` made, or a name on the hub, which may be fetched.

    Raises ModelError, also where the installed transformers does not know the network.
    """
    name = f"pe-av:{said}"
    folder = hub.folder(said, name)
    weights = hub.safe(folder / hub.WEIGHTS)
    with hub.loading(name):
        kind = transformers.PreTrainedConfig.get_config_dict(folder)[0].get("model_type")
        if kind not in NETWORKS:
            raise ModelError(f"{name} is of the kind {kind}, not PE-AV ({', '.join(NETWORKS)})")
        if not hasattr(transformers, NETWORKS[kind]):
            raise ModelError(
                f"{name} needs transformers 5.0 or newer, {transformers.__version__} does not know "
                'it: pip install --upgrade "mmsearch[clip]"'
            )
        network = getattr(transformers, NETWORKS[kind]).from_pretrained(
            folder, config=_config(folder), use_safetensors=True, dtype=torch.float32
        )
        texts = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    network = network.eval()
    towers: dict[Modality, Tower] = {}
    card: dict[str, Any] = {}
    heads = []
    if kind != "pe_video":
        model = getattr(network, "audio_model", network)
        towers[Modality.AUDIO], heard = _sounds(model, folder, name)
        card |= heard
        heads.append(model.text_audio_head)
    if kind != "pe_audio":
        model = getattr(network, "video_model", network)
        towers[Modality.IMAGE], seen = _pictures(model, folder, name)
        card |= seen
        heads.append(model.text_video_head)
    config = network.config.text_config
    text = {"pad_id": texts.pad_token_id}
    text["max_tokens"] = min(texts.model_max_length, config.max_position_embeddings)
    towers[Modality.TEXT] = text_tower(WordRows(network.text_model, heads), text["max_tokens"])
    card["text"] = text
    frames = {"frames": card.pop("frames", None), "normal": card.pop("normal", None)}
    return Source(
        towers,
        Tokenizer.from_str(texts.backend_tokenizer.to_str()),
        weights,
        {"config": network.config.to_dict()} | card | frames,
        {"kind": "pe-av", "dim": config.hidden_size} | card,
    )


def _config(folder: Path) -> Any:
    """What a folder says of its network. transformers 5.24 writes how wide the row of a frame is
    as `num_classes`, and forgets it when it reads that.
    """
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    video = getattr(getattr(config, "audio_video_config", config), "video_config", None)
    if video is not None:
        video.vision_config.num_labels = video.vision_config.num_classes
    return config


def _sounds(model: Any, folder: Path, name: str) -> tuple[Tower, dict[str, Any]]:
    """The tower for sounds, and what a card says of them."""
    with hub.loading(name):
        heard = transformers.AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False)
    if heard.feature_size != 1:
        raise ModelError(f"{name} hears {heard.feature_size} channels; only one can be given")
    hop = heard.hop_length
    draw = torch.Generator().manual_seed(0)
    noise = [0.1 * torch.randn(1, hop * many, generator=draw) for many in (25, 7, 40)]
    tower = Tower(
        SoundRows(model),
        {"samples": noise[0]},
        ({1: hop * torch.export.Dim("hops", min=2)},),
        tuple({"samples": some} for some in noise[1:]),
    )
    card = {"audio": {"rate": heard.sampling_rate, "window": WINDOW}, "waveform": {"hop": hop}}
    return tower, card


def _pictures(model: Any, folder: Path, name: str) -> tuple[Tower, dict[str, Any]]:
    """The tower for pictures, and what a card says of them; of `frames` and `normal`, the means
    and deviations of a channel, the graph knows already.
    """
    with hub.loading(name):
        seen = transformers.AutoVideoProcessor.from_pretrained(folder, trust_remote_code=False)
    if not (seen.do_resize and seen.do_rescale and seen.do_normalize):
        raise ModelError(f"{name} takes pictures as they are, and not of one size and range")
    wanted, cropped = dict(seen.size), dict(seen.crop_size or {}) if seen.do_center_crop else None
    size = wanted.get("height") or wanted.get("shortest_edge")
    squashed = wanted.get("width") == size and cropped is None
    centred = wanted.get("shortest_edge") == size and cropped == {"height": size, "width": size}
    resample = _RESAMPLE.get(int(seen.resample))
    if size is None or not (squashed or centred) or resample is None:
        raise ModelError(
            f"{name} wants pictures of the size {wanted}, cut to {cropped}, by filter "
            f"{seen.resample}; only squares can be made, bilinear or bicubic"
        )
    frames = (seen.num_frames or 1) if seen.do_sample_frames else 1
    image = {"size": size, "fit": "squash" if squashed else "crop", "resample": resample, "fill": 0}
    normal = {"mean": list(seen.image_mean), "deviation": list(seen.image_std)}
    scale = 255 * seen.rescale_factor  # 1 in every release: pixels from 0 to 1
    mean, deviation = ([value / scale for value in values] for values in normal.values())
    tower = Tower(
        PictureRows(StillRows(model, frames), mean, deviation),
        {"pixels": torch.zeros(2, size, size, 3, dtype=torch.uint8)},
        ({0: torch.export.Dim("n")},),
    )
    return tower, {"image": image, "frames": frames, "normal": normal}
