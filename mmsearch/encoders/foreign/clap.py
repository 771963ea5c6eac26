"""CLAP of transformers: sounds and texts in one space (Wu et al. 2023, arXiv 2211.06687)."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmsearch.encoders.foreign import hub
from mmsearch.encoders.foreign.exporting import Source, Tower, text_tower
from mmsearch.errors import ModelError
from mmsearch.records import Modality


class SoundRows(nn.Module):
    """The half for sounds."""

    def __init__(self, network: Any):
        super().__init__()
        self.model, self.projection = network.audio_model, network.audio_projection

    def forward(self, features: Tensor) -> Tensor:
        """features: (n, 1, frames, bands) in decibels -> (n, dim) unit rows."""
        row = self.projection(self.model(input_features=features).pooler_output)
        return nn.functional.normalize(row, dim=-1)


class WordRows(nn.Module):
    """The half for texts."""

    def __init__(self, network: Any):
        super().__init__()
        self.model, self.projection = network.text_model, network.text_projection

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids, mask: (n, t) -> (n, dim) unit rows."""
        row = self.projection(self.model(input_ids=ids, attention_mask=mask).pooler_output)
        return nn.functional.normalize(row, dim=-1)


def source(said: str) -> Source:
    """A folder that ``save_pretrained`` made, or a name on the hub, which may be fetched.

    Raises ModelError. No code of a model's is run.
    """
    folder = hub.folder(said, f"clap:{said}")
    weights = hub.safe(folder / hub.WEIGHTS)
    plainly: Any = {"trust_remote_code": False}  # else it asks, and a yes runs what it brings
    with hub.loading(f"clap:{said}"):
        config = transformers.AutoConfig.from_pretrained(folder, **plainly)
        if config.model_type != "clap":
            raise ModelError(f"clap:{said} is of the kind {config.model_type}, not clap")
        network: Any = transformers.ClapModel.from_pretrained(
            folder, use_safetensors=True, dtype=torch.float32
        )
        sounds = transformers.AutoFeatureExtractor.from_pretrained(folder, **plainly)
        texts = transformers.AutoTokenizer.from_pretrained(folder, **plainly)
    if config.audio_config.enable_fusion or sounds.truncation == "fusion":
        raise ModelError(
            f"clap:{said} fuses pieces of a sound that are drawn by chance, so that it has no row "
            "of its own; take one without fusion, such as clap:laion/clap-htsat-unfused"
        )
    text = {"pad_id": texts.pad_token_id}
    text["max_tokens"] = min(
        texts.model_max_length, config.text_config.max_position_embeddings - text["pad_id"] - 1
    )
    spectrogram = {
        "samples": sounds.nb_max_samples,
        "frame": sounds.fft_window_size,
        "hop": sounds.hop_length,
        "repeat": sounds.padding == "repeatpad",
    }
    if not spectrogram["repeat"] and sounds.padding != "pad":
        raise ModelError(f"clap:{said} pads its sounds as {sounds.padding}, which is not known")
    audio = {"rate": sounds.sampling_rate, "window": float(sounds.max_length_s)}
    bands = io.BytesIO()
    np.save(bands, sounds.mel_filters_slaney)
    frames = sounds.nb_max_samples // sounds.hop_length + 1
    features = torch.zeros(2, 1, frames, sounds.feature_size)
    return Source(
        {
            Modality.AUDIO: Tower(
                SoundRows(network), {"features": features}, ({0: torch.export.Dim("n")},)
            ),
            Modality.TEXT: text_tower(WordRows(network), text["max_tokens"]),
        },
        Tokenizer.from_str(texts.backend_tokenizer.to_str()),
        weights,
        {"config": config.to_dict(), "audio": audio, "text": text, "spectrogram": spectrogram},
        {
            "kind": "clap",
            "dim": config.projection_dim,
            "audio": audio,
            "text": text,
            "spectrogram": spectrogram,
        },
        {"bands.npy": bands.getvalue()},
    )
