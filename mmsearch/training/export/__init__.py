"""Trained towers to ONNX files, built node by node, and back.

The graphs are written by hand rather than traced: there are few kinds of node, every dynamic
dimension is meant, and the same weights give the same bytes on any version of torch.

A tower of another library is traced instead, in float32 (``mmsearch.training.foreign.tracing``).

Weights are stored small and widened when a session starts, by nodes that ONNX Runtime folds away:
    image   float16, then Cast: halves the file
    text    int8 with one scale an output channel, then Cast and Mul: quarters it. The token table
            stays int8 in memory, since only the rows of a query's tokens are widened.
    audio   as text
All arithmetic is float32. Each weight has the name of its parameter in torch, and each file the
arguments its tower was made with, so that ``read_tower`` has the tower back.
"""

import onnx

from mmsearch.training.export.audio import audio_features_graph, audio_graph
from mmsearch.training.export.graph import Graph, quantise, write
from mmsearch.training.export.image import classifier_graph, features_graph, image_graph
from mmsearch.training.export.parity import check_parity
from mmsearch.training.export.reading import read_tower
from mmsearch.training.export.text import text_graph
from mmsearch.training.towers import AudioTower, ImageTower, TextTower, Tower

__all__ = [
    "Graph",
    "audio_features_graph",
    "audio_graph",
    "check_parity",
    "classifier_graph",
    "features_graph",
    "graph_of",
    "image_graph",
    "quantise",
    "read_tower",
    "text_graph",
    "write",
]


def graph_of(tower: Tower) -> onnx.ModelProto:
    """The graph of any tower, ours or foreign."""
    match tower:
        case ImageTower():
            return image_graph(tower)
        case TextTower():
            return text_graph(tower)
        case AudioTower():
            return audio_graph(tower)
    from mmsearch.training.foreign.parts import Pictures, Texts
    from mmsearch.training.foreign.tracing import traced_graph

    assert isinstance(tower, Pictures | Texts)
    return traced_graph(tower)
