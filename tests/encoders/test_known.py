"""mmsearch models: what is here, what could be, whether it is whole, and which is the default."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from hashlib import sha256

import pytest

from mmsearch.encoders import cache
from mmsearch.encoders.known import known, show, verify
from mmsearch.errors import ModelError, UsageError
from mmsearch.settings import config_file, load_settings, save_setting


@pytest.fixture
def exported(tmp_path, monkeypatch):
    """An export in a cache of its own: a card and a file, as exporting leaves them."""
    monkeypatch.setenv("MMSEARCH_CACHE", str(tmp_path))
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"weights")
    folder = tmp_path / "models" / "abc"
    folder.mkdir(parents=True)
    (folder / "text.onnx").write_bytes(b"graph")
    card = {
        "modalities": ["image", "text"], "dim": 512, "fingerprint": "f" * 64, "parity": {},
        "files": {"text.onnx": "0d9fcf4ad37a31bc3b0a7d9e0d8a4dcc"},
    }  # fmt: skip

    card["files"]["text.onnx"] = sha256(b"graph").hexdigest()
    (folder / "model.json").write_text(json.dumps(card))
    status = weights.stat()
    entry = cache.Entry(
        "ViT-B-32-256/datacomp_s34b_b86k", "abc", str(weights), status.st_size,
        status.st_mtime_ns, sha256(b"weights").hexdigest(),
    )  # fmt: skip
    record = cache._record(entry.name)
    record.parent.mkdir()

    record.write_text(json.dumps(asdict(entry)))
    return entry


def test_known_models_stand_once_each_with_their_state(exported):
    """Built in, exported here, or not here; an exported one keeps what is published of it."""
    states = {one.name: one.state for one in known()}
    assert states["builtin-2"] == "built in"
    assert states[exported.name] == "exported"
    assert states["ViT-B-32-SigLIP2-256/webli"] == "not here"
    assert len(states) == len(known())
    here = show(exported.name)
    assert (here.licence, here.dim, here.recall) == ("MIT", 512, {"COCO text→image R@1": 39.9})
    assert here.bytes == sum(path.stat().st_size for path in exported.path.iterdir())


def test_every_published_figure_has_a_source():
    """And every recommended model has a licence, its languages and its dimension."""
    for one in known():
        if one.state == "exported":  # of anything at all, by this test run too
            continue
        assert one.source, one.name
        assert one.licence and one.languages and one.dim, one.name


def test_verify_names_what_is_damaged(exported):
    """Row 55: a graph that is not what was exported, weights that were replaced, a lost card."""
    assert dict(verify([exported.name])) == {exported.name: []}
    assert {name for name, _ in verify([])} == {"builtin-2", exported.name}
    (exported.path / "text.onnx").write_bytes(b"grape")
    with open(exported.weights, "wb") as file:
        file.write(b"wights!")
    [(_, problems)] = verify([exported.name])
    assert len(problems) == 2
    assert problems[0].startswith("text.onnx is not what was exported; remove")
    assert problems[1] == f"{exported.weights} is not what the export was made from"
    with pytest.raises(ModelError, match="neither here nor among the recommended"):
        list(verify(["ViT-B-32/nothing"]))


def test_an_entry_holds_while_its_weights_are_as_they_were(exported):
    """Gone is no matter: the export needs them no more; changed is looked at anew."""
    assert cache.find(exported.name) == exported
    with open(exported.weights, "ab") as file:
        file.write(b"more")
    assert cache.find(exported.name) is None

    os.unlink(exported.weights)
    assert cache.find(exported.name) == exported
    (exported.path / "model.json").unlink()
    assert cache.find(exported.name) is None


def test_a_saved_setting_keeps_the_others(tmp_path, monkeypatch):
    """`models use` writes a line of the settings file, once, and the file stays readable."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert save_setting("model", 'a "quoted" name') == config_file()
    with open(config_file(), "a", encoding="utf-8") as file:
        file.write("batch = 7\n")
    save_setting("model", "builtin")
    found = load_settings()
    assert (found.model, found.batch) == ("builtin", 7)
    assert config_file().read_text(encoding="utf-8").count("model =") == 1
    config_file().write_text("batch = [", encoding="utf-8")
    with pytest.raises(UsageError, match="not a readable settings file"):
        save_setting("model", "builtin")
    assert config_file().read_text(encoding="utf-8") == "batch = ["


def test_the_commands(run_cli, tmp_path):
    """list, show, verify and use, as typed; offline, a model that is not here is an error."""
    listed = run_cli("models", "list")
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.decode().splitlines()[1].startswith("*  builtin-2")
    rows = json.loads(run_cli("models", "list", "--json").stdout)
    assert rows[0]["name"] == "builtin-2"
    assert b"LICENSE-WEIGHTS" in run_cli("models", "show", "builtin").stdout
    assert run_cli("models", "verify").stdout == b"ok\tbuiltin-2\n"
    home = {"XDG_CONFIG_HOME": str(tmp_path)}
    used = run_cli("models", "use", "builtin", env=home)
    assert b"builtin-2" in used.stdout and used.returncode == 0
    assert (tmp_path / "mmsearch" / "config.toml").read_text() == 'model = "builtin"\n'
    unknown = run_cli("models", "show", "nowhere")
    assert (unknown.returncode, unknown.stderr.count(b"\n")) == (1, 1)
