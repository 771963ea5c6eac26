"""Dual encoders of other libraries: the same vectors in torch, as a tower of ours, and exported.

No hub is reached: tiny models with random weights, saved as their libraries save them.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
open_clip = pytest.importorskip("open_clip")
timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")

from PIL import Image  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors  # noqa: E402

from mmsearch.encoders.builtin import Builtin  # noqa: E402
from mmsearch.encoders.foreign import tokenizing  # noqa: E402
from mmsearch.errors import ModelError  # noqa: E402
from mmsearch.records import Modality  # noqa: E402
from mmsearch.training import dual, towers  # noqa: E402

SIZE, CONTEXT, DIM = 32, 16, 24
TEXTS = ["a dog", "Two cats on a sofa, one's asleep", "w " * 40]
VISION = {"image_size": SIZE, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16}
TEXT = {"context_length": CONTEXT, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}


def pictures(n=3):
    """Random pictures, uint8."""
    return list(np.random.default_rng(0).integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8))


def open_clip_folder(folder, **text):
    """A tiny open_clip model in a folder, as open_clip pushes one to the hub; and the model."""
    torch.manual_seed(0)
    config = {"embed_dim": DIM, "vision_cfg": VISION, "text_cfg": TEXT | text}
    network = open_clip.CLIP(**config)
    for parameter in network.parameters():  # or a random network gives all inputs one row
        torch.nn.init.normal_(parameter, std=0.3) if parameter.ndim > 1 else None
    folder.mkdir()
    preprocess = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3], "resize_mode": "squash"}
    both = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(both))
    save_file(
        {name: value.contiguous() for name, value in network.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    return network.eval()


def transformers_folder(folder, kind):
    """A tiny CLIP or SigLIP in a folder, as ``save_pretrained`` writes it; and the model."""
    torch.manual_seed(0)
    words = {"<pad>": 0, "<unk>": 1, "<s>": 2, "</s>": 3, "a": 4, "dog": 5, "two": 6, "cats": 7}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    small |= {"num_attention_heads": 2}
    text = small | {"vocab_size": 9, "max_position_embeddings": CONTEXT}
    text |= {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0, "projection_size": 32}
    vision = small | {"image_size": SIZE, "patch_size": 8}
    if kind == "clip":
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=DIM)
        processor = transformers.CLIPImageProcessor(
            size={"shortest_edge": SIZE}, crop_size=SIZE, image_std=[0.2, 0.25, 0.3]
        )
    else:
        config = transformers.SiglipConfig(text_config=text, vision_config=vision)
        processor = transformers.SiglipImageProcessor(size={"height": SIZE, "width": SIZE})
    network = transformers.AutoModel.from_config(config).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3) if parameter.ndim > 1 else None
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>"
    ).save_pretrained(folder)
    return network


def check(model, folder, images, texts):
    """A model gives the rows that it should, in torch, exported, and started from again."""
    model.export(folder, "tiny", {"offered": True})
    encoder = Builtin("tiny", folder)
    state = {name: value.contiguous().clone() for name, value in model.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    again = dual.start(str(folder))
    pairs = ((Modality.IMAGE, pictures(), images), (Modality.TEXT, TEXTS[:2], texts))
    for kind, batch, rows in pairs:
        expected = torch.nn.functional.normalize(rows, dim=-1).numpy()
        assert abs(expected[0] @ expected[1]) < 0.99  # the rows tell the inputs apart
        with torch.no_grad():
            ours = model.encode(kind, model.collate(kind, batch)).numpy()
            loaded = again.encode(kind, again.collate(kind, batch)).numpy()
            features = model.features(kind, model.collate(kind, batch))
            headed = model.head(kind, features).numpy()
        for found in (ours, loaded, headed, encoder.encode(kind, batch)):
            assert ((found * expected).sum(1) > 0.9999).all(), kind
        for i, item in enumerate(batch):  # alone as in a batch
            alone = encoder.encode(kind, [item])[0]
            np.testing.assert_allclose(alone, expected[i], atol=1e-4)
    assert again.image_input == model.image_input == encoder.image_input


def normalised(network_input, mean, deviation):
    """Pixels as torchvision's ToTensor and Normalize make them."""
    pixels = torch.from_numpy(np.stack(network_input)).permute(0, 3, 1, 2).float() / 255
    shape = (1, 3, 1, 1)
    return (pixels - torch.tensor(mean).view(shape)) / torch.tensor(deviation).view(shape)


@torch.no_grad()
@pytest.mark.parametrize(
    "text",
    [{}, {"no_causal_mask": True, "pool_type": "last", "proj_bias": True}],
    ids=["clip", "siglip"],
)
def test_an_open_clip_model_keeps_its_vectors(tmp_path, text):
    """With the text tower of CLIP and with that of SigLIP, which reads padding too."""
    if text:
        pytest.importorskip("open_clip.model")
        network = custom_folder(tmp_path / "theirs", **text)
    else:
        network = open_clip_folder(tmp_path / "theirs")
    model = dual.start(f"open_clip:{tmp_path / 'theirs'}")
    assert (model.dim, model.max_tokens) == (DIM, CONTEXT)
    assert (model.image_input.size, model.image_input.fit) == (SIZE, "squash")
    tokenize = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'theirs'}")
    pixels = normalised(pictures(), [0.4, 0.5, 0.6], [0.2, 0.25, 0.3])
    check(
        model,
        tmp_path / "ours",
        network.encode_image(pixels),
        network.encode_text(tokenize(TEXTS[:2])),
    )


def custom_folder(folder, **text):
    """The same with a text tower of its own, as SigLIP's configurations have."""
    open_clip_folder(folder)
    both = json.loads((folder / "open_clip_config.json").read_text())
    both["model_cfg"] |= {"text_cfg": TEXT | text, "custom_text": True}
    network = open_clip.CustomTextCLIP(
        **{key: value for key, value in both["model_cfg"].items() if key != "custom_text"}
    )
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3) if parameter.ndim > 1 else None
    (folder / "open_clip_config.json").write_text(json.dumps(both))
    save_file(
        {name: value.contiguous() for name, value in network.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    return network.eval()


@torch.no_grad()
def test_an_open_clip_architecture_takes_weights_from_a_file(tmp_path, monkeypatch):
    """open_clip:NAME/FILE.safetensors, with the preprocessing of the architecture."""
    network = open_clip_folder(tmp_path / "theirs")
    config = json.loads((tmp_path / "theirs" / "open_clip_config.json").read_text())["model_cfg"]
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: config)
    weights = tmp_path / "theirs" / "open_clip_model.safetensors"
    model = dual.start(f"open_clip:tiny-0/{weights}")
    assert (model.image_input.size, model.image_input.fit) == (SIZE, "crop")
    expected = network.encode_text(open_clip.tokenize(TEXTS[:1], CONTEXT), normalize=True)
    found = model.encode_text(*model.tokenize(TEXTS[:1]))
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_transformers_model_keeps_its_vectors(tmp_path, kind):
    """CLIP, and SigLIP, whose texts are padded to the full length."""
    network = transformers_folder(tmp_path / "theirs", kind)
    model = dual.start(f"transformers:{tmp_path / 'theirs'}")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "theirs")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    pixels = processor([Image.fromarray(p) for p in pictures()], return_tensors="pt").pixel_values
    ids = tokenizer(
        TEXTS[:2], padding="max_length", max_length=CONTEXT, return_tensors="pt"
    ).input_ids
    assert model.image_input.fit == ("crop" if kind == "clip" else "squash")
    check(
        model,
        tmp_path / "ours",
        network.get_image_features(pixels).pooler_output,
        network.get_text_features(ids).pooler_output,
    )


@torch.no_grad()
@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet"])
def test_a_timm_network_takes_the_place_of_the_built_in_image_tower(tmp_path, monkeypatch, name):
    """Its own weights from a file, ours for texts; exported and read back."""
    torch.manual_seed(0)
    base = dual.DualEncoder(
        {
            Modality.IMAGE: towers.ImageTower(hidden=8, dim=DIM),
            Modality.TEXT: towers.TextTower(49408, 1, 24, 2, 48, CONTEXT, hidden=8, dim=DIM),
        },
        tokenizing.clip_tokenizer(open_clip.tokenizer.SimpleTokenizer(), "lower"),
        max_tokens=CONTEXT,
        pad_id=0,
        image_input=dual.ImageInput(224),
    )
    base.export(tmp_path / "builtin-9", "builtin-9", {})
    monkeypatch.setattr(dual, "MODELS", tmp_path)
    monkeypatch.setattr(dual, "BUILTIN", "builtin-9")
    network = timm.create_model(name, num_classes=0).eval()
    save_file(network.state_dict(), tmp_path / "trunk.safetensors")
    model = dual.start(f"timm:{name}/{tmp_path / 'trunk.safetensors'}")
    size = model.image_input.size
    batch = list(np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8))
    wants = timm.data.resolve_model_data_config(network)
    expected = network(normalised(batch, wants["mean"], wants["std"]))
    found = model.features(Modality.IMAGE, model.collate(Modality.IMAGE, batch))
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-4)
    model.export(tmp_path / "ours", "tiny", {})
    encoder = Builtin("tiny", tmp_path / "ours")
    rows = model.encode(Modality.IMAGE, model.collate(Modality.IMAGE, batch)).numpy()
    np.testing.assert_allclose(encoder.encode(Modality.IMAGE, batch), rows, atol=1e-4)
    before = base.eval().encode_text(*base.tokenize(["a dog"])).numpy()
    assert float((encoder.encode(Modality.TEXT, ["a dog"]) * before).sum()) > 0.999


HOSTILE = [
    "", " ", "A  Dog\tand\n\x1fa CAT", "it's 2026, they'll've 12:30 o'clock", "naïve café ﬁ ½ Ⅷ",
    "一只狗，在草地上！ＡＢ１２　ｶﾞ", "犬🐶🐕‍🦺 👩‍👩‍👧", "don't_stop !!! ... #tag @you", "a" * 300,
    "x" * 90 + " y", "ÀÉÎ ÜBER e\u0301 IT'S", "“don’t” ‘go’", "\ufefftext\x00\x7f", "Ǆ ĳ ﬃ",
    "zero\u200bwidth \u00a0space", "the the the the " * 30,
]  # fmt: skip


@pytest.mark.parametrize("clean", ["lower", "whitespace", "canonicalize"])
def test_the_json_tokenizer_gives_open_clips_ids(clean):
    """For plain and for hostile texts, short and too long, cleaned in each of its ways."""
    theirs = open_clip.tokenizer.SimpleTokenizer(clean=clean)
    ours = tokenizing.clip_tokenizer(theirs, clean)
    ours.enable_truncation(CONTEXT)
    for text in [*TEXTS, *HOSTILE]:
        expected = theirs([text], CONTEXT)[0].tolist()
        ids = ours.encode(text).ids
        assert ids + [0] * (CONTEXT - len(ids)) == expected, text


def test_a_pickle_is_refused(tmp_path):
    """Row 54: a checkpoint that could run code is not opened, wherever it is named."""
    canary = tmp_path / "canary"

    class Payload:
        def __reduce__(self):
            return canary.write_text, ("ran",)

    torch.save(Payload(), tmp_path / "weights.pt")
    for name in ("open_clip:ViT-B-32", "timm:test_vit"):
        with pytest.raises(ModelError, match="safetensors"):
            dual.start(f"{name}/{tmp_path / 'weights.pt'}")
    transformers_folder(tmp_path / "clip", "clip")
    (tmp_path / "clip" / "model.safetensors").unlink()
    (tmp_path / "weights.pt").rename(tmp_path / "clip" / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be loaded"):
        dual.start(f"transformers:{tmp_path / 'clip'}")
    assert not canary.exists()


def test_damaged_weights_are_named(tmp_path):
    """Row 55: cut short, or a web page in their place."""
    open_clip_folder(tmp_path / "theirs")
    path = tmp_path / "theirs" / "open_clip_model.safetensors"
    for data in (path.read_bytes()[:1000], b"<!DOCTYPE html><html>not found</html>"):
        path.write_bytes(data)
        with pytest.raises(ModelError, match="open_clip_model"):
            dual.start(f"open_clip:{tmp_path / 'theirs'}")


def test_code_of_a_model_is_never_run(tmp_path):
    """Row 56: a configuration that points to a module of its own is refused."""
    transformers_folder(tmp_path / "clip", "clip")
    canary = tmp_path / "canary"
    (tmp_path / "clip" / "evil.py").write_text(f"open({str(canary)!r}, 'w')\n")
    config = json.loads((tmp_path / "clip" / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}
    (tmp_path / "clip" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="cannot be loaded"):
        dual.start(f"transformers:{tmp_path / 'clip'}")
    assert not canary.exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("open_clip:ViT-Z-99/laion2b", "open_clip has no model 'ViT-Z-99'"),
        ("open_clip:ViT-B-32/nothing.safetensors", "there are no weights at nothing.safetensors"),
        ("open_clip:ViT-B-32", "neither a release"),
        ("timm:resnet_of_mine", "timm has no model"),
        ("nowhere", "training cannot start from 'nowhere'"),
    ],
)
def test_a_wrong_start_says_what_there_is(name, said):
    """One line, no traceback, nothing fetched."""
    with pytest.raises(ModelError, match=said):
        dual.start(name)
