"""Small models with random weights, saved as their own libraries save them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import open_clip
import torch
import transformers
from safetensors.torch import save_file
from timm.models import fastvit, register_model
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

CONTEXT, DIM = 16, 24
TEXT = {"context_length": CONTEXT, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
WORDS = ["<pad>", "<eos>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz0123456789", "▁a", "▁do", "do"]
# The shapes of the real ones: what goes around the towers, and which parts they are made of.
ARCHITECTURES = {
    "small-CLIP": {
        "embed_dim": DIM,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16,
        },
        "text_cfg": TEXT,
    },
    "small-SigLIP2": {
        "embed_dim": 64,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 160, "timm_model_name": "test_vit", "timm_model_pretrained": False,
            "timm_pool": "map", "timm_proj": "none",
        },
        "text_cfg": TEXT | {
            "vocab_size": len(WORDS), "width": 64, "no_causal_mask": True, "proj_bias": True,
            "pool_type": "last", "tokenizer_kwargs": {"clean": "canonicalize"},
            "norm_kwargs": {"eps": 1e-6}, "act_kwargs": {"approximate": "tanh"},
        },
    },
    "small-MobileCLIP": {
        "embed_dim": DIM,
        "custom_text": True,
        "vision_cfg": {
            "timm_model_name": "fastvit_small", "timm_model_pretrained": False, "timm_pool": "avg",
            "timm_proj": None, "timm_drop": 0.0, "timm_drop_path": 0.0, "image_size": 64,
        },
        "text_cfg": TEXT | {"no_causal_mask": True},
    },
}  # fmt: skip


SEED = 0  # with which the pictures' rows of the small MobileCLIP lie apart


@register_model
def fastvit_small(num_classes: int, drop_path_rate: float = 0.0, **_):
    """MobileCLIP's network with a block of each kind."""
    position = partial(fastvit.RepConditionalPosEnc, spatial_shape=(7, 7))
    return fastvit.FastVit(
        layers=(1, 1, 1, 1), embed_dims=(16, 32, 64, 128), mlp_ratios=(3, 3, 3, 3),
        se_downsamples=(False, False, True, True), downsamples=(False, True, True, True),
        pos_embs=(None, None, None, position), lkc_use_act=True,
        token_mixers=("repmixer", "repmixer", "repmixer", "attention"), num_classes=num_classes,
    )  # fmt: skip


def architecture(name: str, folder: Path) -> None:
    """Have open_clip know an architecture; a tokenizer it needs is made in a folder."""
    config = json.loads(json.dumps(ARCHITECTURES[name]))
    if "SigLIP" in name:
        config["text_cfg"]["hf_tokenizer_name"] = str(sentencepieces(folder / "tokenizer"))
    (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{name}.json")


def sentencepieces(folder: Path) -> Path:
    """A tokenizer of pieces as SigLIP's are: an end, no beginning, padded to one length."""
    vocabulary = {piece: id for id, piece in enumerate(WORDS)}
    merges = [("▁", "a"), ("d", "o"), ("▁", "do")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 1)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    ).save_pretrained(folder)
    return folder


def scattered(network: torch.nn.Module) -> torch.nn.Module:
    """The network with weights that tell inputs apart, which random ones hardly do."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1 and "conv" not in name and "stem" not in name:
                torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


def weights(name: str, folder: Path) -> Path:
    """Random weights of an architecture in a safetensors file; the architecture is known then."""
    folder.mkdir(parents=True, exist_ok=True)
    architecture(name, folder)
    torch.manual_seed(SEED)
    network = open_clip.create_model(name, pretrained=None, pretrained_text=False)
    if "Mobile" not in name:
        scattered(network)
    path = folder / "open_clip_model.safetensors"
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
    return path


def worded() -> Tokenizer:
    """A tokenizer of a few words between two marks."""
    words = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4, "dog": 5, "barks": 6, "rain": 7}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def clap(folder: Path) -> Path:
    """A CLAP in a folder, as ``save_pretrained`` writes it."""
    text = {
        "vocab_size": 9, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
        "num_attention_heads": 2, "max_position_embeddings": 40, "pad_token_id": 1,
        "bos_token_id": 0, "eos_token_id": 2, "projection_dim": DIM,
    }  # fmt: skip
    audio = {
        "spec_size": 64, "num_mel_bins": 16, "patch_size": 4, "patch_stride": [4, 4],
        "window_size": 4, "hidden_size": 64, "patch_embeds_hidden_size": 16, "depths": [1, 1, 1],
        "num_attention_heads": [2, 2, 2], "projection_dim": DIM, "num_classes": 5,
    }  # fmt: skip
    config = transformers.ClapConfig(text_config=text, audio_config=audio, projection_dim=DIM)
    scattered(transformers.ClapModel(config)).save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=worded(), pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        unk_token="<unk>", model_max_length=38,
    ).save_pretrained(folder)  # fmt: skip
    transformers.ClapFeatureExtractor(
        feature_size=16, sampling_rate=8000, hop_length=80, max_length_s=2, fft_window_size=256,
        frequency_max=4000, truncation="rand_trunc",
    ).save_pretrained(folder)  # fmt: skip
    return folder


def pe_av(folder: Path, frames: int | None = None) -> Path:
    """A PE-AV of sounds and videos in a folder, as ``save_pretrained`` writes it; `frames`: how
    many of them it looks at, of a video of any length.
    """
    shape = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
        "num_attention_heads": 2, "head_dim": 16,
    }  # fmt: skip
    text = {
        "model_type": "modernbert", "vocab_size": 9, "hidden_size": DIM, "intermediate_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 40,
        "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0,
        "sep_token_id": 2, "global_attn_every_n_layers": 2, "local_attention": 8,
    }  # fmt: skip
    audio = shape | {
        "dac_config": {
            "encoder_hidden_size": 4, "downsampling_ratios": [2, 4], "codebook_dim": 8,
            "hop_length": 8,
        }
    }  # fmt: skip
    video = shape | {
        "vision_config": {
            "architecture": "vit_pe_core_tiny_patch16_384", "num_labels": 12, "num_classes": 12,
            "do_pooling": True, "global_pool": "map",
            "model_args": {"img_size": 32, "embed_dim": 32, "depth": 1, "num_heads": 2},
        }
    }  # fmt: skip
    config = transformers.PeAudioVideoConfig(
        text_config=text,
        audio_video_config=shape | {"audio_config": audio, "video_config": video},
    )
    scattered(transformers.PeAudioVideoModel(config)).save_pretrained(folder)
    transformers.PeAudioVideoProcessor(
        transformers.PeAudioFeatureExtractor(sampling_rate=8000, hop_length=8),
        transformers.PeVideoVideoProcessor(
            size={"height": 32, "width": 32}, image_mean=[0.5] * 3, image_std=[0.5] * 3,
            num_frames=frames, do_sample_frames=frames is not None, do_resize=True,
            do_rescale=True, do_normalize=True,
        ),
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=worded(), pad_token="<pad>", bos_token="<s>", eos_token="</s>",
            unk_token="<unk>", model_max_length=38,
        ),
    ).save_pretrained(folder)  # fmt: skip
    return folder
