"""The audio tower: its spectrogram and network against YAMNet itself, its graph against torch."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
soundfile = pytest.importorskip("soundfile")

from graphs import DATA, alive, run  # noqa: E402

from mmsearch.encoders.patches import PATCH, cut_patches  # noqa: E402
from mmsearch.training import export, towers  # noqa: E402

YAMNET = DATA / "teachers" / "yamnet_int8.tflite"
WINDOW, MELS, SPECTROGRAM, FEATURES, LOGITS = 11, 22, 25, 115, 118  # tensors of that file


@pytest.fixture(scope="module")
def tower():
    """With random weights."""
    return alive(towers.AudioTower)


def noise(patches, seed=0):
    """Quiet noise, (patches, 15600)."""
    rows = np.random.default_rng(seed).normal(0, 0.1, (patches, PATCH))
    return rows.astype(np.float32)


@torch.no_grad()
def test_the_spectrogram_of_a_tone_is_the_formula_written_as_loops():
    """One frame and one band by hand: a window, a Fourier sum, a triangle, a logarithm."""
    samples = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(PATCH) / 16_000)
    found = towers.LogMel()(torch.from_numpy(samples[None].astype(np.float32)))
    assert found.shape == (1, 1, 96, 64)

    def mel(frequency):
        return 1127 * np.log(1 + frequency / 700)

    frame, band = 7, 19
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    cut = samples[frame * 160 : frame * 160 + 400] * window
    step = (mel(7500) - mel(125)) / 65
    low, peak, high = (mel(125) + (band + i) * step for i in range(3))
    total = 0.0
    for k in range(1, 257):
        magnitude = abs(sum(cut * np.exp(-2j * np.pi * k * np.arange(400) / 512)))
        at = mel(k * 16_000 / 512)
        total += magnitude * max(0.0, min((at - low) / (peak - low), (high - at) / (high - peak)))
    assert total > 1  # the tone is in this band
    assert found[0, 0, frame, band].item() == pytest.approx(np.log(total + 0.001), abs=1e-4)


def test_pooling_is_the_mean_and_the_maximum_of_each_clip():
    """Two clips of two patches and one."""
    features = torch.tensor([[1.0, 8.0], [3.0, -4.0], [5.0, -6.0]])
    found = towers.audio.pool(features, torch.tensor([0, 0, 1]))
    assert found.tolist() == [[2.0, 2.0, 3.0, 8.0], [5.0, -6.0, 5.0, -6.0]]


@torch.no_grad()
def test_a_clip_gets_the_same_row_alone_and_among_others(tower):
    """Owners keep the clips of a batch apart."""
    patches = torch.from_numpy(noise(5))
    together = tower(patches, torch.tensor([0, 0, 0, 1, 1]))
    for i, part in enumerate((patches[:3], patches[3:])):
        alone = tower(part, torch.zeros(len(part), dtype=torch.int64))
        np.testing.assert_allclose(alone[0], together[i], atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("count", [1, 4])
def test_the_exported_audio_tower_equals_torch(tower, count):
    """ONNX Runtime gives torch's row but for int8 weights, and the features before the head."""
    patches = noise(count)
    owners = torch.zeros(count, dtype=torch.int64)
    found = run(export.audio_graph(tower), patches=patches)
    expected = tower(torch.from_numpy(patches), owners).numpy()
    assert (found.shape, found.dtype) == ((1, 256), np.float32)
    np.testing.assert_allclose(np.linalg.norm(found), 1, atol=1e-5)
    assert float((found * expected).sum()) > 0.999
    features = run(export.audio_features_graph(tower), patches=patches)
    expected = tower.features(torch.from_numpy(patches), owners).numpy()
    assert features.shape == (1, 2048)
    cosine = float((features * expected).sum())
    assert cosine / np.linalg.norm(features) / np.linalg.norm(expected) > 0.999


@torch.no_grad()
def test_the_exported_spectrogram_equals_torch(tower):
    """Silence, quiet noise and loud noise: the convolution computes what the FFT does."""
    patches = noise(3) * np.array([[0.0], [0.01], [9.0]], np.float32)
    graph = export.Graph(tower)
    rows = export.audio._spectrogram(graph, tower.log_mel)
    model = graph.model([export.audio._patches()], rows, [1, 96, 64])
    expected = tower.log_mel(torch.from_numpy(patches)).numpy()
    np.testing.assert_allclose(run(model, patches=patches), expected, atol=2e-4)


def test_the_log_mel_does_not_lose_precision_under_autocast(tower):
    """Half of float32 would round near silence to nothing."""
    patches = torch.from_numpy(noise(1) * 1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        found = tower.log_mel(patches)
    assert torch.equal(found, tower.log_mel(patches))


@pytest.fixture(scope="module")
def yamnet():
    """The teacher's own interpreter, every tensor readable."""
    if not YAMNET.exists():
        pytest.skip("the teacher is not beside the repository")
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = litert.Interpreter(str(YAMNET), experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    return interpreter


def test_the_spectrogram_uses_the_teachers_window_and_bands(yamnet):
    """The same numbers as in the teacher's file."""
    log_mel = towers.LogMel()
    np.testing.assert_allclose(log_mel.window, yamnet.get_tensor(WINDOW), atol=1e-6)
    np.testing.assert_allclose(log_mel.weights.T, yamnet.get_tensor(MELS), atol=1e-6)


@torch.no_grad()
def test_the_dequantised_yamnet_computes_what_its_teacher_does(yamnet):
    """On real sounds: the spectrogram, the features, and the class named first."""
    network, weight, bias = towers.yamnet_from_tflite(YAMNET)
    assert (weight.shape, bias.shape) == ((521, 1024), (521,))
    log_mel, details = towers.LogMel(), yamnet.get_tensor_details()
    (scale, zero), cosines, agreements = details[FEATURES]["quantization"], [], 0
    for path in sorted((DATA / "esc50" / "audio").glob("*.ogg"))[::100]:
        samples, _ = soundfile.read(path, dtype="float32")
        patch = cut_patches(samples)[2]
        yamnet.set_tensor(0, patch)
        yamnet.invoke()
        spectrogram = log_mel(torch.from_numpy(patch)[None])
        np.testing.assert_allclose(spectrogram[0, 0], yamnet.get_tensor(SPECTROGRAM), atol=1e-3)
        theirs = (yamnet.get_tensor(FEATURES).astype(np.float32).ravel() - zero) * scale
        ours = network(spectrogram)[0]
        norms = np.linalg.norm(theirs) * float(ours.norm())
        cosines.append(float(ours.numpy() @ theirs) / norms)
        logits = yamnet.get_tensor(LOGITS)[0]  # int8: several may be highest
        agreements += int(logits[(ours @ weight.T + bias).argmax()] == logits.max())
    assert len(cosines) == 16
    assert min(cosines) > 0.99
    assert agreements >= 15
