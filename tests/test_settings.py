"""Settings: defaults < file < environment < argument."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mmsearch.errors import MmsearchError, UsageError
from mmsearch.settings import Settings, config_file, load_settings


@pytest.fixture
def config(tmp_path, monkeypatch):
    """The user's settings file, not yet written."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = config_file()
    assert tmp_path in path.parents
    path.parent.mkdir(parents=True)
    return path


def test_defaults(config, tmp_path):
    """With nothing set, the defaults hold and the index is in the user's data folder."""
    found = load_settings()
    index, cache = tmp_path / "data" / "mmsearch" / "default", tmp_path / "cache" / "mmsearch"
    assert found == Settings(index=index, cache=cache)
    assert (found.model, found.batch, found.max_megapixels) == ("builtin", 256, 64.0)


def test_the_file_beats_the_defaults(config):
    """A setting of config.toml counts; the others stay."""
    config.write_text('batch = 7\nindex = "~/elsewhere"\n', encoding="utf-8")
    found = load_settings()
    assert (found.batch, found.index) == (7, Path("~/elsewhere").expanduser())
    assert found.timeout == 30.0


def test_the_environment_beats_the_file(config, monkeypatch):
    """MMSEARCH_BATCH counts more than `batch` in the file; an empty variable is none."""
    config.write_text("batch = 7\nworkers = 3\n", encoding="utf-8")
    monkeypatch.setenv("MMSEARCH_BATCH", "8")
    monkeypatch.setenv("MMSEARCH_WORKERS", "")
    found = load_settings()
    assert (found.batch, found.workers) == (8, 3)


def test_the_argument_beats_everything(config, monkeypatch):
    """What a call says is final; None counts as not said."""
    config.write_text("batch = 7\ntimeout = 1.5\n", encoding="utf-8")
    monkeypatch.setenv("MMSEARCH_BATCH", "8")
    monkeypatch.setenv("MMSEARCH_INDEX", "/from/the/environment")
    found = load_settings(batch=9, index=None, timeout=None)
    assert (found.batch, found.timeout) == (9, 1.5)
    assert found.index == Path("/from/the/environment")


@pytest.mark.parametrize("field", dataclasses.fields(Settings), ids=lambda field: field.name)
def test_every_field_can_be_set_by_the_environment(config, monkeypatch, field):
    """MMSEARCH_ and the field's name in capitals, converted to the field's kind."""
    monkeypatch.setenv(f"MMSEARCH_{field.name.upper()}", "2")
    value = getattr(load_settings(), field.name)
    expected = {
        "index": Path("2"), "model": "2", "cache": Path("2"), "offline": True, "faiss": "2",
            "keep_queries": True,
    }.get(field.name, 2)  # fmt: skip
    assert value == expected
    assert type(value).__name__ in (str(field.type), "PosixPath", "WindowsPath")


@pytest.mark.parametrize(
    "file, environment, arguments, message",
    [
        ("speed = 3\n", {}, {}, r"config\.toml: no setting is called 'speed'"),
        ("batch = 'many'\n", {}, {}, r"config\.toml: batch = 'many' is not a number"),
        ("batch = 0\n", {}, {}, r"config\.toml: batch = 0 is too small"),
        ("batch = [1]\n", {}, {}, r"batch = \[1\] is not a number"),
        ("batch 7\n", {}, {}, r"config\.toml is not a readable settings file"),
        ("", {"MMSEARCH_TIMEOUT": "soon"}, {}, "the environment: timeout = 'soon' is not a number"),
        ("", {"MMSEARCH_TIMEOUT": "nan"}, {}, "the environment: timeout = 'nan' is too small"),
        ("", {"MMSEARCH_WORKERS": "-1"}, {}, "the environment: workers = '-1' is too small"),
        ("", {}, {"batch": 0}, "the call: batch = 0 is too small"),
        ("", {}, {"max_megapixels": -1}, "the call: max_megapixels = -1 is too small"),
        ("", {}, {"colour": "red"}, "the call: no setting is called 'colour'"),
    ],
)
def test_a_wrong_setting_is_named_with_its_place(
    config, monkeypatch, file, environment, arguments, message
):
    """The error says where the setting came from and what is wrong with it."""
    config.write_text(file, encoding="utf-8")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message):
        load_settings(**arguments)


def test_a_file_that_is_not_text_is_refused(config):
    """A settings file of other bytes is an error with its name, never a traceback."""
    config.write_bytes(b"batch = \xff\xfe\n")
    with pytest.raises(MmsearchError, match=r"config\.toml is not a readable settings file"):
        load_settings()


def test_zero_workers_means_one_a_core(config):
    """0 is a value of `workers` alone."""
    assert load_settings(workers=0).workers == 0
