"""Pictures by OpenVINO: the rows, their order, and when it is not to be used."""

from __future__ import annotations

import json

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
openvino = pytest.importorskip("openvino")

from onnx import TensorProto, helper  # noqa: E402

from mmsearch.encoders import openvino as ours  # noqa: E402
from mmsearch.encoders.openvino import OpenVinoImages, drawn, in_bfloat16  # noqa: E402
from mmsearch.errors import ModelError  # noqa: E402

SIZE = 16


@pytest.fixture
def folder(tmp_path):
    """A folder with a graph that makes the unit row of a picture's mean colour."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
        helper.make_node("LpNormalization", ["mean"], ["embedding"], axis=-1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "mean",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", SIZE, SIZE, 3])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    (tmp_path / "image.onnx").write_bytes(model.SerializeToString())
    return tmp_path


def mean_colours(pictures):
    """The same by numpy."""
    means = np.stack(pictures).reshape(len(pictures), -1, 3).mean(axis=1)
    return (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 8, 19])
def test_rows_come_in_order_whatever_the_count(folder, count):
    """More than a request holds, fewer, and exactly as many; again with the same object."""
    draw = np.random.default_rng(0)
    pictures = list(draw.integers(1, 256, (count, SIZE, SIZE, 3), dtype=np.uint8))
    images = OpenVinoImages(folder / "image.onnx", "f32")
    for batch in (pictures, pictures[::-1]):
        np.testing.assert_allclose(images(batch), mean_colours(batch), atol=1e-5)


def test_a_graph_that_is_none_is_named(folder):
    """Row 55: damaged on the disk."""
    (folder / "image.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"OpenVINO does not take .*image.onnx"):
        OpenVinoImages(folder / "image.onnx", "f32")


def test_rows_that_differ_are_not_used(folder, monkeypatch):
    """What was measured on this processor is kept beside the graph, and asked first."""
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bfloat16")
    calls = []

    def exact(pictures):
        calls.append(len(pictures))
        return mean_colours(pictures)

    images = in_bfloat16(folder, SIZE, exact)
    assert images is not None
    cosines = (images(drawn(SIZE)) * mean_colours(drawn(SIZE))).sum(axis=1)
    [measured] = json.loads((folder / "parity.json").read_text()).values()
    assert measured == pytest.approx(cosines.min(), abs=1e-4)
    assert measured >= ours.LEAST
    assert in_bfloat16(folder, SIZE, exact) is not None
    assert len(calls) == 1
    (folder / "parity.json").unlink()
    assert in_bfloat16(folder, SIZE, lambda pictures: mean_colours(pictures)[::-1]) is None
    monkeypatch.setattr(ours, "OpenVinoImages", None)  # it is not compiled to find out again
    assert in_bfloat16(folder, SIZE, exact) is None
