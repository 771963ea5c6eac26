"""`mmsearch train` from the command line, from a model of ours that is small enough for a test."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import clean_environment
from PIL import Image

torch = pytest.importorskip("torch")
for package in ("accelerate", "peft", "safetensors", "matplotlib", "onnx"):
    pytest.importorskip(package)

from safetensors.torch import load_file  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from mmsearch import cli, open_library  # noqa: E402
from mmsearch.encoders import open_encoder, reservations  # noqa: E402
from mmsearch.records import ImageInput, Modality  # noqa: E402
from mmsearch.training import gate  # noqa: E402
from mmsearch.training.config import TrainConfig  # noqa: E402
from mmsearch.training.dual import DualEncoder, start  # noqa: E402
from mmsearch.training.towers import ImageTower, TextTower  # noqa: E402

WORDS = ["[PAD]", "[UNK]", "a", "square", "red", "blue", "green", "yellow"]
COLOURS = {"red": (220, 30, 30), "blue": (40, 50, 220), "green": (30, 200, 40)}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of an untrained model: 32 x 32 pixels, two layers, eight words."""
    torch.manual_seed(0)
    image = ImageTower(hidden=8, dim=16, size=32)
    for module in image.backbone.convolutions():
        torch.nn.init.kaiming_normal_(module.convolution.weight)
    text = TextTower(
        len(WORDS), layers=1, width=16, heads=2, inner=32, max_tokens=16, hidden=8, dim=16
    )
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    towers = {Modality.IMAGE: image, Modality.TEXT: text}
    model = DualEncoder(towers, tokenizer, max_tokens=16, pad_id=0, image_input=ImageInput(32))
    folder = tmp_path_factory.mktemp("models") / "base"
    model.export(folder, "base", {})
    return folder


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """Twelve pictures with a caption each."""
    folder = tmp_path_factory.mktemp("squares")
    for name, colour in COLOURS.items():
        for number in range(4):
            shade = tuple(int(value) for value in np.array(colour) + 3 * number)
            Image.new("RGB", (40, 30), shade).save(folder / f"{name}{number}.png")
            (folder / f"{name}{number}.txt").write_text(f"a {name} square\n")
    return folder


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """A general check of a moment."""
    monkeypatch.setattr(gate, "_DRAWINGS", 1)


def call(*arguments):
    """The command in this process: exit code, stdout, stderr."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def options(squares, base, out):
    """A short run."""
    return [
        "train", squares, "--init", base, "--out", out,
        "--epochs", "2", "--batch", "4", "--held-out", "0.3", "--learning-rate", "0.01",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(base, squares, tmp_path_factory):
    """A finished run, and what its command said."""
    out = tmp_path_factory.mktemp("runs") / "squares"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate, "_DRAWINGS", 1)
        return out, call(*options(squares, base, out))


def test_a_run_is_opened_by_its_folder(run, squares, tmp_path):
    """`--model RUN` opens it at once: ONNX gives torch's rows, and a library is made with it."""
    out, (code, stdout, stderr) = run
    assert code == 0, stderr
    assert re.search(r"held out\s+text to image\s+recall@1 0\.\d+ → ", stdout)
    assert re.search(r"general\s+word to gloss\s+recall@1 0\.\d+ → ", stdout)
    assert re.search(r"update 4 of 4, loss \d\.\d{4}, held-out recall@10 \d\.\d{3}, ", stderr)
    assert "8 files to train on, 4 held out, 0 skipped" in stderr
    encoder = open_encoder(str(out))
    assert (encoder.name, encoder.dim, encoder.altered()) == ("squares", 16, [])
    model = start(str(out))
    with torch.no_grad():
        texts = model.encode(Modality.TEXT, model.collate(Modality.TEXT, ["a red square"]))
    found = encoder.encode(Modality.TEXT, ["a red square"])
    assert (found @ texts.numpy().T).item() > 0.99  # the text tower is kept in 8 bits
    with open_library(tmp_path / "index", model=str(out), workers=1) as library:
        assert library.index(squares).added >= 12
        assert len(library.query("a red square", k=3)) == 3
    assert Image.open(out / "curve.png").size == (900, 400)


def test_weights_are_those_that_a_next_run_starts_from(run, base, squares, tmp_path):
    """`--init RUN` reads the weights as they were trained, not as the graphs keep them."""
    out, _ = run
    trained, again = load_file(out / "model.safetensors"), start(str(out)).state_dict()
    for name, value in trained.items():
        if name.startswith("towers"):
            assert torch.equal(again[name], value), name


def test_the_same_from_json(base, squares, tmp_path):
    """`--json` prints what was measured; bad pairs are named, and the exit code is 3."""
    rows = ["file,caption", "gone.png,a thing"]
    rows += [f"{path},a {path.stem[:-1]} square" for path in sorted(squares.glob("*.png"))]
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    arguments = options(tmp_path / "pairs.csv", base, tmp_path / "run")
    code, stdout, stderr = call(*arguments, "--json", "--heads-only", "--epochs", "1")
    assert code == 3, stderr
    told = json.loads(stdout)
    assert told["offered"] is (not told["reasons"])
    assert told["after"]["held_out"]["text_to_image"].keys() == {
        "recall@1", "recall@5", "recall@10",
    }  # fmt: skip
    assert f"skipped: {tmp_path}/gone.png: unreadable: No such file or directory" in stderr


def test_an_interrupted_command_says_how_to_go_on(base, squares, tmp_path):
    """Row 9 of failures.md: SIGINT at the first update; resumed, it equals a run that was not."""
    # three processes alike: another number of threads adds in another order
    alike = {
        "env": clean_environment(tmp_path) | {"OMP_NUM_THREADS": "1"},
        "cwd": tmp_path, "stderr": subprocess.PIPE, "text": True,
    }  # fmt: skip
    command = [sys.executable, "-m", "mmsearch"]
    arguments = [str(argument) for argument in options(squares, base, tmp_path / "whole")]
    arguments[arguments.index("--epochs") + 1] = "6"
    done = subprocess.run([*command, *arguments], **alike)
    assert done.returncode == 0, done.stderr
    arguments[arguments.index("--out") + 1] = f"{tmp_path}/out"
    process = subprocess.Popen([*command, *arguments], **alike)
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith("update 1 of 12"):
            process.send_signal(signal.SIGINT)
    assert process.wait() == 130, said
    assert said[-1] == f"interrupted; go on with: mmsearch train --resume --out {tmp_path}/out\n"
    done = subprocess.run([*command, "train", "--resume", "--out", tmp_path / "out"], **alike)
    assert done.returncode == 0, done.stderr
    whole, resumed = (load_file(tmp_path / n / "model.safetensors") for n in ("whole", "out"))
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0)


def test_a_marked_run_is_opened_only_by_name_and_with_a_word(run, squares, tmp_path):
    """What lowered its recall is not offered, and says so whenever it is used."""
    out, _ = run
    marked = tmp_path / "marked"
    marked.mkdir()
    for path in out.iterdir():
        (marked / path.name).write_bytes(path.read_bytes())
    card = json.loads((marked / "model.json").read_text())
    card |= {"offered": False, "reasons": ["general recall fell from 0.500 to 0.300"]}
    (marked / "model.json").write_text(json.dumps(card))
    assert reservations(str(marked)) == card["reasons"]
    assert reservations("builtin") == []
    code, _, stderr = call("index", squares, "--model", marked, "--index", tmp_path / "index")
    assert code == 0, stderr
    told = f"{marked} is not offered as a default, for general recall fell from 0.500 to 0.300"
    assert told in stderr


def test_wrong_usage(base, squares, tmp_path):
    """Exit code 2 and a line that says what to give; errors of the data are exit code 1."""

    def refused(*arguments):
        with pytest.raises(Exception) as caught:
            call("train", *arguments)
        return type(caught.value).__name__, str(caught.value)

    out = ["--out", tmp_path / "x"]
    assert refused(*out) == ("UsageError", "give PAIRS: a folder or a list of files and captions")
    assert refused(squares, "--epochs", "0", *out)[0] == "UsageError"
    assert refused(squares, "--loss", "l2", *out)[1] == "--loss is info-nce or sigmoid"
    assert refused(squares, "--lora", "2", "--heads-only", *out)[0] == "UsageError"
    kind, said = refused(tmp_path / "gone.csv", "--init", base, *out)
    assert (kind, said) == ("PairsError", f"{tmp_path}/gone.csv: no such file or folder")
    kind, said = refused(squares, "--init", "nothing", *out)
    assert kind == "ModelError"


def test_the_help_tells_the_defaults():
    """Each default of the help is that of TrainConfig."""
    _, text, _ = call("train", "--help")
    told = {}
    for option in " ".join(text.split()).split(" --")[1:]:
        if default := re.search(r"[Dd]efault: ([\w.-]*\w)", option):
            told[option.split()[0]] = default[1]
    config = TrainConfig()
    assert set(told) == {
        "out", "init", "loss", "epochs", "batch", "accumulate", "learning-rate", "seed", "held-out",
    }  # fmt: skip
    for name, value in told.items():
        own = getattr(config, name.replace("-", "_"))
        assert type(own)(value) == own, name


def test_a_missing_extra_is_met_with_the_line_to_type(squares, tmp_path, monkeypatch):
    """No traceback: exit code 1 and the pip line."""
    monkeypatch.setitem(sys.modules, "mmsearch.training.train", None)
    with pytest.raises(ImportError, match=r'pip install "mmsearch\[train\]"'):
        call("train", squares, "--out", tmp_path / "x")
