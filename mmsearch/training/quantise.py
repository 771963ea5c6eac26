"""The image tower in 8-bit integers: half the time a picture on processors that can.

    python -m mmsearch.training.quantise --data DIR [--model mmsearch/models/builtin-1]

Reads `image.onnx` of a model folder, measures the range of every activation on training photos,
and writes `image.int8.onnx` beside it, named in `model.json`. Convolution weights are int8 with a
scale a channel, activations uint8 with a scale a tensor (static quantisation, Jacob et al. 2018,
arXiv 1712.05877); the head, a hundredth of the time, stays as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from mmsearch.training import pairs

PHOTOS = 256  # more did not change the ranges' effect on recall
_BATCH = 16
_HEAD = 4096  # elements: float matrices above this are the head's, stored as float16


class _Photos(CalibrationDataReader):  # type: ignore[misc]
    """Training photos in batches, as the graph takes them."""

    def __init__(self, data: Path) -> None:
        photos = pairs.flickr8k(data, "train")[:PHOTOS]
        self._batches = self._read(photos)

    def _read(self, photos: list[Any]) -> Iterator[dict[str, Any]]:
        for start in range(0, len(photos), _BATCH):
            pictures = [pairs.decode(photo) for photo in photos[start : start + _BATCH]]
            yield {"pixels": np.stack(pictures)}

    def get_next(self) -> dict[str, Any] | None:
        """The next batch, None after the last."""
        return next(self._batches, None)


def quantise(folder: Path, data: Path) -> Path:
    """Write `image.int8.onnx` into a model folder and name it in `model.json`."""
    target = folder / "image.int8.onnx"
    with tempfile.TemporaryDirectory() as scratch:
        wide = Path(scratch) / "wide.onnx"
        onnx.save(_widened(onnx.load(folder / "image.onnx")), wide)
        small = Path(scratch) / "small.onnx"
        quantize_static(
            wide,
            small,
            _Photos(data),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # ReLU6 bounds nearly every range, so the extremes seen are the right ones
            calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=["Conv", "Add", "Clip", "GlobalAveragePool"],
        )
        model = _narrowed(onnx.load(small))
    onnx.checker.check_model(model)
    target.write_bytes(model.SerializeToString(deterministic=True))
    card = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    card["files"][target.name] = hashlib.sha256(target.read_bytes()).hexdigest()
    (folder / "model.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return target


def _widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with float32 weights: the quantiser looks through no Cast."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    kept: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    for node in model.graph.node:
        if node.op_type == "Cast" and node.input[0] in stored:
            array = numpy_helper.to_array(stored.pop(node.input[0])).astype(np.float32)
            weights.append(numpy_helper.from_array(array, node.output[0]))
        else:
            kept.append(node)
    return _rebuilt(model, kept, [*stored.values(), *weights])


def _narrowed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with the head's float matrices stored as float16."""
    nodes: list[onnx.NodeProto] = []
    tensors: list[onnx.TensorProto] = []
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype != np.float32 or array.size < _HEAD:
            tensors.append(tensor)
            continue
        tensors.append(numpy_helper.from_array(array.astype(np.float16), f"{tensor.name}_half"))
        nodes.append(
            helper.make_node("Cast", [f"{tensor.name}_half"], [tensor.name], to=TensorProto.FLOAT)
        )
    return _rebuilt(model, [*nodes, *model.graph.node], tensors)


def _rebuilt(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], tensors: list[onnx.TensorProto]
) -> onnx.ModelProto:
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(tensors)
    return model


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the training data")
    default = Path(__file__).parents[1] / "models" / "builtin-1"
    parser.add_argument("--model", type=Path, default=default, help="the model's folder")
    arguments = parser.parse_args()
    target = quantise(arguments.model, arguments.data)
    print(f"{target}: {target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
