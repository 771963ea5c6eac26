"""The towers of a built-in model, in plain PyTorch: each ends in unit rows of one shared space."""

from mmsearch.training.towers.audio import AUDIO_FEATURES, AudioTower, LogMel, MobileNetV1
from mmsearch.training.towers.image import FEATURES, SIZE, ImageTower, InvertedResidual, MobileNetV2
from mmsearch.training.towers.parts import DIM, Convolution, Head, LogitScale, Tower
from mmsearch.training.towers.teachers import (
    minilm,
    mobilenet_from_tflite,
    student_of,
    yamnet_from_tflite,
)
from mmsearch.training.towers.text import TextTower, TransformerLayer

__all__ = [
    "AUDIO_FEATURES",
    "DIM",
    "FEATURES",
    "SIZE",
    "AudioTower",
    "Convolution",
    "Head",
    "ImageTower",
    "InvertedResidual",
    "LogMel",
    "LogitScale",
    "MobileNetV1",
    "MobileNetV2",
    "TextTower",
    "Tower",
    "TransformerLayer",
    "minilm",
    "mobilenet_from_tflite",
    "student_of",
    "yamnet_from_tflite",
]
