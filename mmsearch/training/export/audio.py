"""The audio tower as a graph, its spectrogram included."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from mmsearch.encoders.patches import PATCH
from mmsearch.training.export.graph import Graph, sign
from mmsearch.training.towers import AUDIO_FEATURES, AudioTower, LogMel
from mmsearch.training.towers.audio import FLOOR, HOP


def audio_graph(tower: AudioTower) -> onnx.ModelProto:
    """``patches`` float32 (p, 15600) of one clip -> ``embedding`` float32 (1, dim), a unit row."""
    graph = Graph(tower)
    rows = graph.head(tower.head, _pooled(graph, tower))
    return sign(graph.model([_patches()], rows, [tower.head.linear.out_features]), tower)


def audio_features_graph(tower: AudioTower) -> onnx.ModelProto:
    """The same up to the head: ``patches`` -> pooled features (1, 2048)."""
    graph = Graph(tower)
    return graph.model([_patches()], _pooled(graph, tower), [AUDIO_FEATURES])


def _patches() -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info("patches", TensorProto.FLOAT, ["p", PATCH])


def _pooled(graph: Graph, tower: AudioTower) -> str:
    x = _spectrogram(graph, tower.log_mel)
    for layer in tower.backbone.convolutions():
        x = graph.convolution(layer, x, wide=False)
    x = graph.add("Flatten", graph.add("GlobalAveragePool", x))  # (p, 1024)
    mean = graph.add("ReduceMean", x, graph.ints(0), keepdims=1)
    return graph.add("Concat", mean, graph.add("ReduceMax", x, graph.ints(0), keepdims=1), axis=1)


def _spectrogram(graph: Graph, log_mel: LogMel) -> str:
    """(p, 1, 96, 64). Frames and their Fourier transform are one convolution along the samples:
    it took ONNX Runtime a third of the time of its DFT operation, a matrix product half.
    """
    weights = log_mel.weights.numpy()  # (257, 64)
    used = np.flatnonzero(weights.any(axis=1))
    bins = slice(used[0], used[-1] + 1)
    waves = log_mel.fourier().numpy()[:, bins]  # cosines and sines, each (237, 400)
    kernel = graph.constant(waves.reshape(-1, 1, waves.shape[-1]))
    x = graph.add("Unsqueeze", "patches", graph.ints(1))
    x = graph.add("Conv", x, kernel, strides=[HOP])  # (p, 474, 96)
    real, imaginary = graph.split("Split", x, outputs=2, axis=1, num_outputs=2)
    power = graph.add("Add", graph.add("Mul", real, real), graph.add("Mul", imaginary, imaginary))
    bands = graph.add("MatMul", graph.constant(weights[bins].T), graph.add("Sqrt", power))
    x = graph.add("Log", graph.add("Add", bands, graph.number(FLOOR)))  # (p, 64, 96)
    return graph.add("Unsqueeze", graph.add("Transpose", x, perm=[0, 2, 1]), graph.ints(1))
