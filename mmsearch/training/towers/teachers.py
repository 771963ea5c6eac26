"""Start weights from teachers under Apache-2.0, for ours to start from.

``mobilenet_from_tflite`` and ``yamnet_from_tflite`` dequantise int8 TensorFlow Lite files,
``minilm`` reads all-MiniLM-L6-v2, and ``student_of`` keeps some of a teacher's layers and
vocabulary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmsearch.training.towers.audio import MobileNetV1
from mmsearch.training.towers.image import MobileNetV2
from mmsearch.training.towers.parts import Convolution
from mmsearch.training.towers.text import TextTower

Layers = list[tuple[Tensor, Tensor]]


def mobilenet_from_tflite(path: Path) -> tuple[MobileNetV2, Tensor, Tensor]:
    """Dequantise MobileNetV2 from an int8 TensorFlow Lite file.

    Returns the network, and the classifier's weight (1001, 1280) and bias (1001,); row 0 is
    'background'.
    """
    network = MobileNetV2()
    *backbone, (weight, bias) = _dequantised(path)
    _fill(network.convolutions(), backbone)
    return network, weight.flatten(1), bias


def yamnet_from_tflite(path: Path) -> tuple[MobileNetV1, Tensor, Tensor]:
    """Dequantise YAMNet from an int8 TensorFlow Lite file.

    Returns the network, and the classifier's weight (521, 1024) and bias (521,).
    """
    network = MobileNetV1()
    *backbone, (weight, bias) = _dequantised(path)
    _fill(network.convolutions(), backbone)
    return network, weight, bias


def _fill(convolutions: list[Convolution], layers: Layers) -> None:
    with torch.no_grad():
        for module, (weight, bias) in zip(convolutions, layers, strict=True):
            assert module.convolution.bias is not None
            module.convolution.weight.copy_(weight)
            module.convolution.bias.copy_(bias)


# The axes of a weight in TensorFlow, in the order in which torch has them.
_AXES = {"CONV_2D": (0, 3, 1, 2), "DEPTHWISE_CONV_2D": (3, 0, 1, 2), "FULLY_CONNECTED": (0, 1)}


def _dequantised(path: Path) -> Layers:
    """(weight, bias) of every layer with int8 weights, in order, in torch's layout."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter: Any = Interpreter(str(path))
    details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}

    def real(index: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        quantised = interpreter.get_tensor(index).astype(np.float32)
        parameters = details[index]["quantization_parameters"]
        shape = [1] * quantised.ndim
        if len(parameters["scales"]) > 1:
            shape[parameters["quantized_dimension"]] = -1
        zero = parameters["zero_points"].reshape(shape).astype(np.float32)
        values: np.ndarray[Any, np.dtype[np.float32]] = (quantised - zero) * parameters[
            "scales"
        ].reshape(shape)
        return values

    layers = []
    for operation in interpreter._get_ops_details():
        axes = _AXES.get(operation["op_name"])
        if axes is None:
            continue
        _, weight, bias = operation["inputs"]
        if details[weight]["dtype"] == np.int8:  # YAMNet's mel bands are a float32 layer
            start = torch.from_numpy(real(weight).transpose(axes).copy())
            layers.append((start, torch.from_numpy(real(bias))))
    return layers


def minilm(folder: Path) -> TextTower:
    """The teacher of texts, all-MiniLM-L6-v2; use ``sentence``, for its head is untrained."""
    from safetensors.torch import load_file

    saved = {
        name.removeprefix("bert."): value.float()
        for name, value in load_file(folder / "model.safetensors").items()
    }
    tower = TextTower(saved["embeddings.word_embeddings.weight"].shape[0], layers=6, max_tokens=512)
    state = tower.state_dict()

    def put(ours: str, theirs: str) -> None:
        for part in ("weight", "bias"):
            state[f"{ours}.{part}"] = saved[f"{theirs}.{part}"]

    state["tokens.weight"] = saved["embeddings.word_embeddings.weight"]
    # Every token has type 0 here, so its vector is part of the position's.
    state["positions"] = (
        saved["embeddings.position_embeddings.weight"]
        + saved["embeddings.token_type_embeddings.weight"][0]
    )
    put("norm", "embeddings.LayerNorm")
    for i in range(6):
        ours, theirs = f"layers.{i}", f"encoder.layer.{i}"
        for part in ("weight", "bias"):
            parts = [
                saved[f"{theirs}.attention.self.{name}.{part}"]
                for name in ("query", "key", "value")
            ]
            state[f"{ours}.query_key_value.{part}"] = torch.cat(parts)
        put(f"{ours}.attention_output", f"{theirs}.attention.output.dense")
        put(f"{ours}.attention_norm", f"{theirs}.attention.output.LayerNorm")
        put(f"{ours}.inner", f"{theirs}.intermediate.dense")
        put(f"{ours}.output", f"{theirs}.output.dense")
        put(f"{ours}.output_norm", f"{theirs}.output.LayerNorm")
    tower.load_state_dict(state)
    return tower.eval()


def student_of(
    teacher: TextTower,
    layers: tuple[int, ...],
    token_ids: list[int],
    max_tokens: int,
    dropout: float = 0.0,
) -> TextTower:
    """A smaller text tower that starts from some of a teacher's layers and tokens.

    token_ids: the teacher's id of each of the student's tokens.
    """
    student = TextTower(len(token_ids), len(layers), max_tokens=max_tokens, dropout=dropout)
    with torch.no_grad():
        student.tokens.weight.copy_(teacher.tokens.weight[token_ids])
        student.positions.copy_(teacher.positions[:max_tokens])
        student.norm.load_state_dict(teacher.norm.state_dict())
        for ours, theirs in enumerate(layers):
            student.layers[ours].load_state_dict(teacher.layers[theirs].state_dict())
    return student
