"""Nothing is fetched that was not named, nothing is run that came with weights, damage is named."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading

import pytest
from conftest import clean_environment, paint

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")
pytest.importorskip("transformers")
pytest.importorskip("onnx")

import small  # noqa: E402
from huggingface_hub import constants  # noqa: E402

from mmsearch.encoders import cache, full_name, open_encoder  # noqa: E402
from mmsearch.encoders.foreign import hub  # noqa: E402
from mmsearch.errors import ModelError  # noqa: E402

# Of a process: no socket opens, and at its end it says which packages it imported.
ALONE = """
import atexit, socket, sys
def refuse(*_, **__):
    raise AssertionError("a socket was opened")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
def tell():
    names = sorted({name.partition(".")[0] for name in sys.modules})
    sys.stderr.write("MODULES " + " ".join(names) + "\\n")
atexit.register(tell)
"""


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """(the name, the weights) of a small CLIP, and a cache for this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMSEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        path = small.weights("small-CLIP", tmp_path_factory.mktemp("clip"))
        yield f"small-CLIP/{path}", path


class Payload:
    """What a pickle may do when it is opened."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return self.canary.write_text, ("ran",)


def test_a_second_run_needs_no_network_no_torch_and_no_weights(clip, tmp_path):
    """Row 57: exported once, a library of the model is made and asked with every socket blocked,
    by a process that has imported neither torch nor what brings it, its weights gone.
    """
    name, path = clip
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(path.read_bytes())
    name = f"small-CLIP/{copy}"
    open_encoder(name)
    copy.unlink()
    (tmp_path / "sitecustomize.py").write_text(ALONE, encoding="utf-8")
    paint(tmp_path / "photos" / "red.png", "red")
    paint(tmp_path / "photos" / "blue.png", "blue")
    environment = clean_environment(tmp_path, MMSEARCH_CACHE=str(cache.place().parent))
    environment["PYTHONPATH"] = f"{tmp_path}:{environment['PYTHONPATH']}"

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "mmsearch", *arguments, "--index", "index", "--model", name],
            env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        modules = set(done.stderr.splitlines()[-1].removeprefix("MODULES ").split())
        assert "onnxruntime" in modules
        assert not modules & {"torch", "open_clip", "transformers", "huggingface_hub", "timm"}
        return done.stdout

    run("index", "photos")
    found = run("query", "a", "dog", "--all", "--format", "paths").splitlines()
    assert sorted(found) == [str(tmp_path / "photos" / f"{c}.png") for c in ("blue", "red")]


@pytest.mark.parametrize("suffix", ["pt", "bin", "pth", "ckpt"])
def test_a_pickle_is_refused(suffix, tmp_path):
    """Row 54: it is not opened, and the message says what to do."""
    canary = tmp_path / "canary"
    torch.save(Payload(canary), tmp_path / f"weights.{suffix}")
    small.architecture("small-CLIP", tmp_path)
    with pytest.raises(ModelError, match=r"not a safetensors file.*pickles.*convert it"):
        open_encoder(f"small-CLIP/{tmp_path / 'weights'}.{suffix}")
    assert not canary.exists()


def test_a_pickle_that_calls_itself_safetensors_is_not_run(tmp_path):
    """Row 54: the format's own reader looks at it, and finds none."""
    canary, path = tmp_path / "canary", tmp_path / "weights.safetensors"
    torch.save(Payload(canary), path)
    small.architecture("small-CLIP", tmp_path)
    with pytest.raises(ModelError, match="does not hold the weights"):
        open_encoder(f"small-CLIP/{path}")
    assert not canary.exists()


@pytest.mark.parametrize("damage", ["cut", "page", "another"])
def test_damaged_weights_are_named(clip, tmp_path, damage):
    """Row 55: cut short, a web page in their place, weights of another shape."""
    data = clip[1].read_bytes()
    path = tmp_path / "weights.safetensors"
    header = int.from_bytes(data[:8], "little")
    path.write_bytes(
        {
            "cut": data[:100_000],
            "page": b"<!DOCTYPE html><html>404: not found</html>",
            "another": data[:header].replace(b"logit_scale", b"lodge_scale") + data[header:],
        }[damage]
    )
    with pytest.raises(ModelError, match=rf"{path} does not hold the weights.*fetch it again"):
        open_encoder(f"small-CLIP/{path}")


def test_an_altered_export_is_named(clip):
    """Row 55: a file of the cache that is not what was exported."""
    encoder = open_encoder(clip[0])
    path = encoder.folder / "tokenizer.json"
    before = path.read_bytes()
    try:
        path.write_bytes(before + b" ")
        assert encoder.altered() == ["tokenizer.json"]
    finally:
        path.write_bytes(before)


def test_what_the_hub_has_decides_what_was_fetched(tmp_path):
    """Row 55: a file with another hash is removed and named, so that the next try fetches it."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    hub._check(path, hub.sha256(path))
    assert path.exists()
    hub._check(path, '"a small file has another kind of mark"')
    with pytest.raises(ModelError, match=r"model.safetensors is not what the hub has.*again"):
        hub._check(path, "0" * 64)
    assert not path.exists()


def test_code_of_a_model_is_never_run(tmp_path):
    """Row 56: a configuration that points to a module of its own is refused."""
    folder = small.clap(tmp_path / "clap")
    canary = tmp_path / "canary"
    (folder / "evil.py").write_text(f"open({str(canary)!r}, 'w')\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="cannot be loaded"):
        open_encoder(f"clap:{folder}")
    assert not canary.exists()


@pytest.fixture
def nobody(monkeypatch):
    """A hub that takes every call and never answers; the calls."""
    calls = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen():
            while True:
                try:
                    calls.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=listen, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        template = constants.ENDPOINT + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield calls
        server.shutdown(socket.SHUT_RDWR)


def test_a_hub_that_never_answers_is_given_up(nobody, monkeypatch):
    """Row 57: a proxy that hangs. What works without a hub is named."""
    monkeypatch.setattr(hub, "PATIENCE", 0.5)
    with pytest.raises(ModelError, match=r"cannot be reached for hf-hub:a/b .*--model builtin"):
        open_encoder("hf-hub:a/b")
    assert nobody


def test_patience_ends_within_ten_seconds():
    """A hub that says nothing is given up within ten seconds of the command's start, of which
    torch and the model's library take six.
    """
    assert hub.PATIENCE + 6 <= 10


@pytest.mark.parametrize(
    "name",
    ["ViT-B-32/laion2b_s34b_b79k", "hf-hub:a/b", "clap:a/b", "pe-av:a/b"],
)
def test_without_a_network_the_hub_is_named(monkeypatch, name):
    """Row 57: where no socket opens, one sentence says what cannot be reached and what works."""

    def refuse(*_, **__):
        raise OSError("Network is unreachable")

    for what in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, what, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    said = rf"huggingface.co cannot be reached for {name} \(.*\); without it work: .*builtin"
    with pytest.raises(ModelError, match=said) as raised:
        open_encoder(name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("how", ["HF_HUB_OFFLINE", "MMSEARCH_OFFLINE"])
@pytest.mark.parametrize("name", ["ViT-B-32/laion2b_s34b_b79k", "hf-hub:a/b", "clap:a/b"])
def test_offline_nothing_is_asked(nobody, monkeypatch, how, name):
    """Row 57: neither setting lets a named model be fetched; the message says what is there."""
    if how == "HF_HUB_OFFLINE":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # as its library read it
    else:
        monkeypatch.setenv(how, "1")
    with pytest.raises(ModelError, match=r"not on this machine.*nothing may be fetched.*builtin"):
        open_encoder(name)
    assert not nobody


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere", "no model is called 'nowhere'"),
        ("./nowhere", "no model is called"),
        ("ViT-Z-99/laion2b", "open_clip has no model 'ViT-Z-99'"),
        ("ViT-B-32/nothing", r"neither a release that open_clip lists for ViT-B-32 \(openai"),
        ("ViT-B-32//nothing.safetensors", "there are no weights at /nothing.safetensors"),
        ("coca_ViT-B-32//nothing.safetensors", "there are no weights"),
    ],
)
def test_a_wrong_name_says_what_there_is(name, said):
    """One line, no traceback, nothing fetched."""
    with pytest.raises(ModelError, match=said):
        open_encoder(name)


def test_names_mean_the_same_from_everywhere(tmp_path, monkeypatch):
    """Local paths become absolute, whatever they are written like; names of the hub stay."""
    (tmp_path / "w.safetensors").write_bytes(b"")
    (tmp_path / "clap").mkdir()
    monkeypatch.chdir(tmp_path)
    assert full_name("ViT-B-32/w.safetensors") == f"ViT-B-32/{tmp_path}/w.safetensors"
    assert full_name(f"ViT-B-32/{tmp_path}/w.safetensors") == full_name("ViT-B-32/w.safetensors")
    assert full_name("clap:clap") == f"clap:{tmp_path}/clap"
    assert full_name("clap:laion/clap-htsat-unfused") == "clap:laion/clap-htsat-unfused"
    assert full_name("builtin") is None
