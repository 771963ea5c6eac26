"""One random ViT-B/32 in every program's own format, since none of their weights can be fetched
everywhere and speed does not depend on what they are.

    python benchmarks/peer_weights.py FOLDER        # needs mmsearch[train]

The architecture is open_clip's `ViT-B-32-256`, which rclip 3.3 runs: 12 blocks of width 768 over 65
patches, a text tower of 12 blocks of width 512, 512 dimensions out, all in float32.

    FOLDER/open_clip/              open_clip's folder: config, tokenizer, safetensors
    FOLDER/rclip/                  rclip's data folder: two ONNX graphs and the vocabulary
    FOLDER/sentence-transformers/  a CLIP model of transformers

Every form is held against open_clip's own answer before it counts as made: the same pixels and the
same words must give the same rows.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

ARCHITECTURE = "ViT-B-32-256"
RCLIP_FOLDER = "ViT-B-32-256-datacomp_s34b_b86k"
VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
WORDS = ["a dog on grass", "two children play in the snow"]
SAME = 0.99999  # the least cosine between two forms of one row
OPSET = 20


class Visual(nn.Module):
    """Pixels as rclip hands them in: (n, 3, 256, 256) float32, normalised."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        rows: Tensor = self.model.encode_image(pixels)
        return rows


class Textual(nn.Module):
    """(n, 77) int64 ids of tokens."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        rows: Tensor = self.model.encode_text(ids)
        return rows


def random_model() -> Any:
    """open_clip's architecture with its own initial weights: the same in every run."""
    torch.manual_seed(0)
    return open_clip.create_model(ARCHITECTURE, pretrained=None).eval()


def for_open_clip(model: Any, folder: Path) -> None:
    """A folder that open_clip opens as `local-dir:FOLDER`, and a file that it opens by its path."""
    folder.mkdir(parents=True)
    config = {"model_cfg": open_clip.get_model_config(ARCHITECTURE), "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")


def for_rclip(model: Any, folder: Path) -> None:
    """What rclip fetches: a graph for each tower and the vocabulary of the tokenizer."""
    place = folder / RCLIP_FOLDER
    place.mkdir(parents=True)
    (folder / "tokenizer").mkdir()
    vocabulary = Path(open_clip.__file__).with_name(VOCABULARY)
    shutil.copy(vocabulary, folder / "tokenizer" / VOCABULARY)
    pixels, ids = torch.zeros(2, 3, 256, 256), open_clip.tokenize(WORDS)
    for name, module, given in (
        ("visual", Visual(model), pixels),
        ("textual", Textual(model), ids),
    ):
        program = torch.onnx.export(
            module.eval(), (given,), input_names=["input"], output_names=["output"],
            dynamic_shapes=({0: torch.export.Dim("n")},), opset_version=OPSET, dynamo=True,
            verbose=False,
        )  # fmt: skip
        program.save(place / f"{name}.onnx")


def for_transformers(model: Any, folder: Path) -> None:
    """A folder of transformers' CLIPModel with the names that its layers have there."""
    from transformers import CLIPConfig, CLIPModel

    config = CLIPConfig(
        projection_dim=512,
        text_config={
            "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12,
            "num_attention_heads": 8, "hidden_act": "gelu", "projection_dim": 512,
            "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407,
        },
        vision_config={
            "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
            "num_attention_heads": 12, "image_size": 256, "patch_size": 32, "hidden_act": "gelu",
            "projection_dim": 512,
        },
    )  # fmt: skip
    theirs = CLIPModel(config).eval()
    missing, unexpected = theirs.load_state_dict(renamed(model.state_dict()), strict=False)
    if unexpected or any(not name.endswith("position_ids") for name in missing):
        raise RuntimeError(f"names of transformers' CLIP have changed: {missing} {unexpected}")
    theirs.save_pretrained(folder)
    tokenizer(folder)
    mean, deviation = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    preprocess = {
        "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 256},
        "crop_size": {"height": 256, "width": 256}, "do_resize": True, "do_center_crop": True,
        "do_normalize": True, "do_rescale": True, "resample": 3, "do_convert_rgb": True,
        "image_mean": mean, "image_std": deviation,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocess), encoding="utf-8")
    (folder / "processor_config.json").write_text(
        json.dumps({"processor_class": "CLIPProcessor", "image_processor": preprocess}),
        encoding="utf-8",
    )


def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's weights under the names of transformers; query, key and value apart."""
    whole = {
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "ln_final.weight": "text_model.final_layer_norm.weight",
        "ln_final.bias": "text_model.final_layer_norm.bias",
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
        "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
        "visual.ln_post.weight": "vision_model.post_layernorm.weight",
        "visual.ln_post.bias": "vision_model.post_layernorm.bias",
        "logit_scale": "logit_scale",
    }
    turned = {"text_projection": "text_projection", "visual.proj": "visual_projection"}
    inside = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj",
              "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}  # fmt: skip
    out = {}
    for name, value in weights.items():
        if name in whole:
            out[whole[name]] = value
        elif name in turned:
            out[f"{turned[name]}.weight"] = value.T.contiguous()
        elif ".resblocks." in name:
            tower = "vision_model" if name.startswith("visual.") else "text_model"
            number, _, rest = name.partition(".resblocks.")[2].partition(".")
            layer = f"{tower}.encoder.layers.{number}"
            if rest.startswith("attn.in_proj_"):
                kind = rest.removeprefix("attn.in_proj_")
                for part, third in zip("qkv", value.chunk(3), strict=True):
                    out[f"{layer}.self_attn.{part}_proj.{kind}"] = third.contiguous()
            else:
                module, _, kind = rest.rpartition(".")
                out[f"{layer}.{inside[module]}.{kind}"] = value
    return out


def tokenizer(folder: Path) -> None:
    """The vocabulary of open_clip's tokenizer in the files of transformers' one."""
    theirs = open_clip.tokenizer.SimpleTokenizer()
    words = dict(theirs.encoder)
    for ours, name in ((49406, "<|startoftext|>"), (49407, "<|endoftext|>")):
        words.pop(theirs.decoder[ours])
        words[name] = ours
    (folder / "vocab.json").write_text(json.dumps(words, ensure_ascii=False), encoding="utf-8")
    merges = [" ".join(pair) for pair in theirs.bpe_ranks]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


@torch.no_grad()
def check(model: Any, folder: Path) -> None:
    """Raises RuntimeError unless every form gives the rows of open_clip's."""
    from transformers import CLIPModel, CLIPTokenizer

    pixels = torch.randn(2, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    ids = open_clip.tokenize(WORDS)
    ours = [model.encode_image(pixels).numpy(), model.encode_text(ids).numpy()]
    place = folder / "rclip" / RCLIP_FOLDER
    graphs = [
        onnxruntime.InferenceSession(place / f"{name}.onnx") for name in ("visual", "textual")
    ]
    rclip = [
        graph.run(None, {"input": given.numpy()})[0]
        for graph, given in zip(graphs, (pixels, ids), strict=True)
    ]
    clip = CLIPModel.from_pretrained(folder / "sentence-transformers").eval()
    words = CLIPTokenizer.from_pretrained(folder / "sentence-transformers")
    said = words(WORDS, return_tensors="pt", padding=True)
    found = [clip.get_image_features(pixels), clip.get_text_features(**said)]
    theirs = [getattr(rows, "pooler_output", rows).numpy() for rows in found]
    for name, rows in (("rclip", rclip), ("transformers", theirs)):
        for kind, mine, other in zip(("pictures", "texts"), ours, rows, strict=True):
            lengths = np.linalg.norm(mine, axis=1) * np.linalg.norm(other, axis=1)
            cosine = float(((mine * other).sum(axis=1) / lengths).min())
            if cosine < SAME:
                raise RuntimeError(f"{name} gives other rows for {kind}: cosine {cosine:.6f}")


def make(folder: Path) -> None:
    """All forms below `folder`; nothing is done where they have been made before."""
    if (folder / "made").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    model = random_model()
    for_open_clip(model, folder / "open_clip")
    for_rclip(model, folder / "rclip")
    for_transformers(model, folder / "sentence-transformers")
    check(model, folder)
    (folder / "made").touch()


if __name__ == "__main__":
    make(Path(sys.argv[1]))
