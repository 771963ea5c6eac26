"""The towers: start weights against the teachers, and exported graphs against torch."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from graphs import DATA, alive, run  # noqa: E402

from mmsearch.training import export, pairs, towers  # noqa: E402


@pytest.fixture(scope="module")
def image_tower():
    """With random weights."""
    return alive(towers.ImageTower)


@pytest.fixture(scope="module")
def text_tower():
    """A small, randomly initialised text tower."""
    torch.manual_seed(1)
    tower = towers.TextTower(50, layers=2, width=24, heads=3, inner=48, max_tokens=16, hidden=16)
    return tower.eval()


def batch(*lengths, seed=0):
    """Random ids and the mask of rows of these lengths."""
    generator = np.random.default_rng(seed)
    ids = np.zeros((len(lengths), max(lengths)), np.int64)
    mask = np.zeros_like(ids)
    for i, length in enumerate(lengths):
        ids[i, :length] = generator.integers(1, 50, length)
        mask[i, :length] = 1
    return ids, mask


def test_the_exported_image_tower_equals_torch(image_tower):
    """ONNX Runtime gives torch's rows but for float16 weights; rows have length one, any n."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    found = run(export.image_graph(image_tower), pixels=pixels)
    with torch.no_grad():
        expected = image_tower(torch.from_numpy(pixels).permute(0, 3, 1, 2).float()).numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=5e-3)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    alone = run(export.image_graph(image_tower), pixels=pixels[1:2])
    np.testing.assert_allclose(alone[0], found[1], atol=1e-5)


def test_a_layer_of_whole_numbers_is_the_formula_written_as_loops():
    """Each row and each output has a scale; what is added up are whole numbers."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(5, 3)
    x = np.random.default_rng(0).normal(0, 1, (2, 2, 5)).astype(np.float32)
    x[1, 1] = 0
    graph = export.Graph(layer)
    inputs = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", "t", 5])]
    found = run(graph.model(inputs, graph.linear(layer, "x"), ["t", 3]), x=x)
    weight, scale = export.quantise(layer.weight.detach().numpy(), axis=1)
    for i, t in np.ndindex(2, 2):
        step = max(np.abs(x[i, t]).max(), 1e-6) / 127
        whole = [int(np.floor(value / step + 0.5)) for value in x[i, t]]
        for k in range(3):
            total = sum(int(w) * value for w, value in zip(weight[k], whole, strict=True))
            expected = total * step * scale[k, 0] + layer.bias[k].item()
            assert found[i, t, k] == pytest.approx(expected, abs=1e-6)


def test_the_exported_text_tower_nearly_equals_torch(text_tower):
    """Whole numbers in place of real ones turn a row by little; its length is one."""
    ids, mask = batch(5, 9, 2)
    with torch.no_grad():
        exact = text_tower(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    found = run(export.text_graph(text_tower), ids=ids, mask=mask)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert ((found * exact).sum(1) > 0.999).all()


@pytest.mark.parametrize("filler", [0, 7])
def test_padding_does_not_change_a_row(text_tower, filler):
    """Neither its length nor what stands in it matters, in torch as in ONNX Runtime."""
    ids, mask = batch(4, 6)
    wide = np.pad(ids, ((0, 0), (0, 5)), constant_values=filler)
    wide_mask = np.pad(mask, ((0, 0), (0, 5)))
    wide[wide_mask == 0] = filler
    model = export.text_graph(text_tower)
    narrow = run(model, ids=ids[:1, :4], mask=mask[:1, :4])
    np.testing.assert_allclose(run(model, ids=wide, mask=wide_mask)[:1], narrow, atol=1e-6)
    with torch.no_grad():
        first = text_tower(torch.from_numpy(ids[:1, :4]), torch.from_numpy(mask[:1, :4]))
        second = text_tower(torch.from_numpy(wide), torch.from_numpy(wide_mask))[:1]
    np.testing.assert_allclose(first.numpy(), second.numpy(), atol=1e-6)


def test_the_order_of_words_matters(text_tower):
    """Positions reach the embedding: the same tokens in another order give another row."""
    ids, mask = batch(6)
    model = export.text_graph(text_tower)
    there, back = run(model, ids=ids, mask=mask), run(model, ids=ids[:, ::-1].copy(), mask=mask)
    assert np.abs(there - back).max() > 1e-4


def test_the_same_weights_give_the_same_bytes(text_tower, image_tower, tmp_path):
    """An export is deterministic: its hash may be recorded."""
    for make, tower in ((export.text_graph, text_tower), (export.image_graph, image_tower)):
        hashes = {export.write(make(tower), tmp_path / "model.onnx") for _ in range(2)}
        assert len(hashes) == 1


def test_quantise_keeps_every_value_within_half_a_step():
    """The largest of a slice becomes 127; a slice of zeros stays zero."""
    values = np.array([[0.5, -1.27, 0.013], [0.0, 0.0, 0.0]], np.float32)
    quantised, scale = export.quantise(values, axis=1)
    assert quantised.tolist() == [[50, -127, 1], [0, 0, 0]]
    assert (np.abs(quantised * scale - values) <= scale / 2 + 1e-9).all()


def test_stride_two_pads_as_tensorflow_does():
    """'same' on an even size: nothing before, one row and column after."""
    layer = towers.Convolution(1, 1, 3, 2, linear=True)
    with torch.no_grad():
        layer.convolution.weight.copy_(torch.arange(9.0).view(1, 1, 3, 3))
        layer.convolution.bias.zero_()
        found = layer(torch.ones(1, 1, 4, 4))[0, 0]
    # The last window of a row lacks its third column (2 + 5 + 8), of a column its third row (6 + 7
    # + 8).
    assert found.tolist() == [[36.0, 36 - 15.0], [36 - 21.0, 36 - 15 - 21 + 8.0]]


def test_a_student_starts_from_the_layers_and_tokens_it_was_given(text_tower):
    """Copied weights, in the order asked for."""
    teacher = towers.TextTower(30, layers=3, max_tokens=8)
    student = towers.student_of(teacher, (0, 2), [4, 9, 1], max_tokens=5)
    assert torch.equal(student.tokens.weight, teacher.tokens.weight[[4, 9, 1]])
    assert torch.equal(student.layers[1].inner.weight, teacher.layers[2].inner.weight)
    assert torch.equal(student.positions, teacher.positions[:5])


def test_the_dequantised_mobilenet_computes_what_its_teacher_does():
    """Pooled features lie in the teacher's direction, and name the same classes."""
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="needs ai-edge-litert")
    path = DATA / "teachers" / "mobilenet_v2_1.0_224_int8.tflite"
    if not path.exists():
        pytest.skip("the training data is not beside the repository")
    network, weight, bias = towers.mobilenet_from_tflite(path)
    teacher = litert.Interpreter(str(path), experimental_preserve_all_tensors=True)
    teacher.allocate_tensors()
    pooled = next(d for d in teacher.get_tensor_details() if d["index"] == 172)
    scale, zero = pooled["quantization"]
    agreements = 0
    photos = pairs.flickr8k(DATA, "dev")[:8]
    for photo in photos:
        pixels = pairs.decode(photo)[None]
        teacher.set_tensor(0, pixels)
        teacher.invoke()
        theirs = (teacher.get_tensor(172).astype(np.float32).ravel() - zero) * scale
        with torch.no_grad():
            ours = network(torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2).float())[0]
        cosine = float(ours.numpy() @ theirs) / np.linalg.norm(theirs) / float(ours.norm())
        assert cosine > 0.99
        logits = ours @ weight.T + bias
        agreements += int(logits.argmax() == teacher.get_tensor(176)[0].argmax())
    assert agreements >= len(photos) - 2
