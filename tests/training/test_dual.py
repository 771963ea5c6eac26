"""One interface for all towers: exported, read back, and begun from."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from safetensors.torch import save_file  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: E402

from mmsearch.encoders.builtin import Builtin  # noqa: E402
from mmsearch.errors import ModelError  # noqa: E402
from mmsearch.records import AudioInput, ImageInput, Modality  # noqa: E402
from mmsearch.training import dual, export, towers  # noqa: E402

WORDS = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "a": 3, "dog": 4, "barks": 5}


@pytest.fixture(scope="module")
def model():
    """Three small towers whose activations neither vanish nor saturate."""
    torch.manual_seed(0)
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", 2)]
    )
    image, audio = towers.ImageTower(hidden=8, dim=12), towers.AudioTower(hidden=8, dim=12)
    for module in (*image.backbone.convolutions(), *audio.backbone.convolutions()):
        torch.nn.init.kaiming_normal_(module.convolution.weight)
    made = dual.DualEncoder(
        {
            Modality.IMAGE: image,
            Modality.TEXT: towers.TextTower(6, 2, 24, 3, 48, max_tokens=8, hidden=8, dim=12),
            Modality.AUDIO: audio,
        },
        tokenizer,
        max_tokens=8,
        pad_id=0,
        image_input=ImageInput(224),
        audio_input=AudioInput(),
        logit_scale=towers.LogitScale(20.0),
    )
    return made.eval()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """The exported model."""
    backgrounds = {"text": {"image": [0.1, 0.05], "audio": [0.2, 0.04]}}
    made = tmp_path_factory.mktemp("model")
    model.export(made, "tiny", {"backgrounds": backgrounds, "languages": ["en"]})
    return made


def batches():
    """Two pictures; sounds shorter than a patch, of 2 s, and silent; three texts."""
    generator = np.random.default_rng(0)
    sounds = [generator.normal(0, 0.1, n).astype(np.float32) for n in (100, 32_000)]
    return {
        Modality.IMAGE: list(generator.integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)),
        Modality.AUDIO: [*sounds, np.zeros(16_000, np.float32)],
        Modality.TEXT: ["a dog", "dog barks a dog", "unheard"],
    }


@torch.no_grad()
def rows(model, kind):
    """Of a batch, by the model in torch."""
    return model.encode(kind, model.collate(kind, batches()[kind])).numpy()


@pytest.mark.parametrize("kind", list(Modality))
def test_the_exported_folder_gives_the_rows_of_torch(model, folder, kind):
    """Through the encoder that mmsearch opens, in a batch as alone."""
    encoder = Builtin("tiny", folder)
    found = encoder.encode(kind, batches()[kind])
    assert (found.dtype, found.shape[1]) == (np.float32, 12)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert ((found * rows(model, kind)).sum(1) > 0.998).all()
    for row, item in zip(found, batches()[kind], strict=True):
        np.testing.assert_allclose(encoder.encode(kind, [item])[0], row, atol=2e-5)


def test_the_exported_folder_says_what_it_is(folder):
    """Name, inputs, backgrounds and hashes; what is not known of it is not said."""
    encoder = Builtin("tiny", folder)
    assert (encoder.name, encoder.dim, encoder.modalities) == ("tiny", 12, frozenset(Modality))
    assert (encoder.image_input, encoder.audio_input) == (ImageInput(224), AudioInput(16_000, 5.0))
    assert encoder.backgrounds == {
        Modality.TEXT: {Modality.IMAGE: (0.1, 0.05), Modality.AUDIO: (0.2, 0.04)}
    }
    assert encoder.altered() == []


def test_a_model_need_not_have_a_tower_for_sounds(folder, tmp_path):
    """Models of before sounds open as they did: no input for them, and no backgrounds."""
    card = json.loads((folder / "model.json").read_text())
    del card["audio"], card["backgrounds"], card["files"]["audio.onnx"]
    card["modalities"] = ["image", "text"]
    (tmp_path / "model.json").write_text(json.dumps(card))
    encoder = Builtin("tiny", tmp_path)
    assert (encoder.audio_input, encoder.backgrounds) == (None, {})
    with pytest.raises(ModelError, match="no tower for audio"):
        encoder.encode(Modality.AUDIO, [np.zeros(100, np.float32)])


def test_how_sounds_are_heard_is_part_of_the_fingerprint(folder, tmp_path):
    """Windows of another length give other vectors; another background does not."""
    card = json.loads((folder / "model.json").read_text())

    def fingerprint(**changed):
        (tmp_path / "model.json").write_text(json.dumps(card | changed))
        return Builtin("tiny", tmp_path).fingerprint

    own = fingerprint()
    assert fingerprint(backgrounds={}) == own
    assert fingerprint(audio={"rate": 16_000, "window": 4.0}) != own


def test_the_towers_come_back_from_the_files_and_give_the_same_files(model, folder, tmp_path):
    """Weights once stored small are stored the same again, so nothing is lost on the way."""
    again = dual.load_towers(folder)
    for kind in Modality:
        assert ((rows(again, kind) * rows(model, kind)).sum(1) > 0.998).all()
    facts = {"backgrounds": Builtin("tiny", folder).backgrounds, "languages": ["en"]}
    again.export(tmp_path, "tiny", facts)
    for path in folder.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name
    assert again.logit_scale().item() == pytest.approx(20.0)


def test_every_parameter_has_its_name_in_the_file(model, folder):
    """Each weight that torch knows, and nothing under a name that it does not know."""
    import onnx

    for kind, tower in model.towers.items():
        stored = {entry.name for entry in onnx.load(folder / f"{kind}.onnx").graph.initializer}
        names = set(tower.state_dict())
        assert names <= stored
        others = {name for name in stored - names if not name.endswith(".scale")}
        assert all("." not in name for name in others)


def test_a_run_is_gone_on_with_from_its_exact_weights(model, folder, tmp_path):
    """Beside the graphs of a run lie its weights in float32, and these are taken."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / dual.WEIGHTS)
    again = dual.start(str(tmp_path))
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())


@torch.no_grad()
def test_features_and_head_are_the_two_halves_of_encode(model):
    """So that a head may be trained on features that were computed once."""
    for kind in Modality:
        inputs = model.collate(kind, batches()[kind])
        features = model.features(kind, inputs)
        assert len(features) == len(batches()[kind])
        halves, whole = model.head(kind, features), model.encode(kind, inputs)
        np.testing.assert_allclose(halves.numpy(), whole.numpy(), atol=1e-6)
    pixels = model.collate(Modality.IMAGE, batches()[Modality.IMAGE])
    assert torch.equal(model.encode_image(*pixels), model.encode(Modality.IMAGE, pixels))


def test_texts_are_padded_to_the_longest_and_cut_at_the_limit(model):
    """Ids by hand: [CLS], then words; eight at most."""
    ids, mask = model.tokenize(["a dog", "a " * 20])
    assert ids.tolist() == [[2, 3, 4, 0, 0, 0, 0, 0], [2, 3, 3, 3, 3, 3, 3, 3]]
    assert mask.tolist() == [[1, 1, 1, 0, 0, 0, 0, 0], [1] * 8]


def test_altered_files_are_not_started_from(folder, tmp_path):
    """Row 55: a hash that does not fit is named; so is a damaged file of weights."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / dual.WEIGHTS).write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(ModelError, match="safetensors is damaged"):
        dual.start(str(tmp_path))
    (tmp_path / "text.onnx").write_bytes(b"cut short")
    with pytest.raises(ModelError, match="not as it was written: text"):
        dual.start(str(tmp_path))


def test_a_graph_of_another_make_is_refused(tmp_path):
    """One without the names of its weights says so."""
    pixels = onnx.helper.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, [1])
    path = tmp_path / "image.onnx"
    node = onnx.helper.make_node("Identity", ["pixels"], ["embedding"])
    rows = onnx.helper.make_tensor_value_info("embedding", onnx.TensorProto.FLOAT, [1])
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [pixels], [rows])), path)
    with pytest.raises(ModelError, match="does not say what it was made from"):
        export.read_tower(path)
