"""The training loop on a tiny model and pictures of one colour."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
for package in ("accelerate", "peft", "safetensors", "matplotlib"):
    pytest.importorskip(package)

import tiny  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from mmsearch.errors import TrainingError, UsageError  # noqa: E402
from mmsearch.training import gate  # noqa: E402
from mmsearch.training.batches import Batches, Wanted  # noqa: E402
from mmsearch.training.config import TrainConfig, resumed  # noqa: E402
from mmsearch.training.learner import Learner  # noqa: E402
from mmsearch.training.train import learning_rate, train  # noqa: E402

COLOURS = {
    "red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 50, 220),
    "yellow": (230, 220, 40), "black": (10, 10, 10), "white": (245, 245, 245),
    "pink": (240, 130, 180), "brown": (120, 70, 20),
}  # fmt: skip


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """A folder of 48 pictures, six of each colour in slightly different shades, with captions."""
    folder = tmp_path_factory.mktemp("squares")
    generator = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        for number in range(6):
            shade = np.clip(np.array(colour) + generator.integers(-9, 10, 3), 0, 255)
            picture = Image.new("RGB", (16, 12), tuple(int(value) for value in shade))
            picture.save(folder / f"{name}{number}.png")
            (folder / f"{name}{number}.txt").write_text(f"a {name} square\n{name} all over\n")
    return folder


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    """The tiny model in the place of every start; a general check of a moment."""
    monkeypatch.setattr("mmsearch.training.learner.start", tiny.start)
    monkeypatch.setattr(gate, "_DRAWINGS", 1)
    monkeypatch.setattr("mmsearch.training.curve.draw", lambda metrics: b"a curve")


def settings(squares, out, **more):
    """A short run."""
    given = {"init": "tiny", "epochs": 4, "batch": 16, "learning_rate": 1e-2, "held_out": 0.25}
    return TrainConfig(pairs=(str(squares),), out=str(out), workers=1, **(given | more))


def weights(out):
    """The trained tensors."""
    return load_file(out / "model.safetensors")


def same(first, second):
    """Bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def started(config):
    """The weights that a run of these settings begins with."""
    torch.manual_seed(config.seed)
    return tiny.start(config.init).state_dict()


def test_recall_of_held_out_pictures_rises(squares, tmp_path):
    """From guessing to nearly always among 12 pictures; the run folder tells how."""
    steps, notes = [], []
    config = settings(squares, tmp_path / "run", epochs=40)
    done = train(config, progress=steps.append, note=notes.append)
    assert done.before["held_out"]["text_to_image"]["recall@1"] <= 0.4
    assert done.after["held_out"]["text_to_image"]["recall@1"] >= 0.8
    assert done.after["held_out"]["image_to_text"]["recall@1"] >= 0.6  # from 0.25, and pink is pale
    assert done.after["held_out"]["image_to_text"]["recall@5"] == 1.0
    assert done.bad == []
    assert notes[-1] == "36 files to train on, 12 held out, 0 skipped"
    run = tmp_path / "run"
    config_file = json.loads((run / "config.json").read_text())
    assert config_file["data"]["trained_on"] == 36
    assert len(config_file["data"]["sha256"]) == 64
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 81))
    assert rows[-1]["held_out"] == done.after["held_out"]
    assert rows[-1]["offered"] is (not done.reasons)
    assert (run / "curve.png").read_bytes() == b"a curve"
    assert steps[-1].update == steps[-1].updates == 80
    assert steps[-1].seconds_left == 0
    assert steps[-1].recall == 1.0
    card = json.loads((run / "model.json").read_text())
    assert card["offered"] is rows[-1]["offered"]
    assert card["training"]["config"]["epochs"] == 40
    assert not [path.name for path in run.iterdir() if "part" in path.name or "export" in path.name]


@pytest.mark.parametrize("loss", ["info-nce", "sigmoid"])
def test_both_losses_learn(squares, tmp_path, loss):
    """The sigmoid loss too, with its own temperature and bias."""
    done = train(settings(squares, tmp_path / "run", epochs=12, loss=loss))
    assert done.before["held_out"]["text_to_image"]["recall@5"] <= 0.5
    assert done.after["held_out"]["text_to_image"]["recall@5"] >= 0.9


def test_the_same_seed_gives_the_same_weights(squares, tmp_path):
    """And another seed others."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(settings(squares, tmp_path / name, epochs=1, seed=seed))
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_a_run_stopped_at_any_update_goes_on_bit_for_bit(squares, tmp_path):
    """In the middle of an epoch, at its end, twice: the weights and the log are the same."""
    whole = settings(squares, tmp_path / "whole", epochs=3, batch=12)  # three updates an epoch
    train(whole)
    for stops in ([2], [3], [1, 5], [0, 8]):
        out = tmp_path / f"stopped-{stops}"
        config, resume = settings(squares, out, epochs=3, batch=12), False
        for at in stops:
            assert stopped_at(at, config, resume=resume).after is None
            assert not (out / "model.json").exists()
            config, resume = resumed(str(out), {}), True
        assert train(config, resume=True).after is not None
        assert same(weights(out), weights(tmp_path / "whole"))
        assert log_of(out) == log_of(tmp_path / "whole")


def test_a_run_that_is_killed_goes_on_from_its_checkpoint(squares, tmp_path):
    """Row 1 of failures.md: what was logged after the checkpoint is done, and logged, again."""

    def kill(step):
        if step.update == 5:
            raise KeyboardInterrupt

    train(settings(squares, tmp_path / "whole", epochs=3, batch=12))
    out = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        train(settings(squares, out, epochs=3, batch=12), progress=kill)
    with open(out / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "lo')  # torn
    assert train(resumed(str(out), {}), resume=True).after is not None
    assert same(weights(out), weights(tmp_path / "whole"))
    assert log_of(out) == log_of(tmp_path / "whole")


def stopped_at(update, config, **more):
    """A run that is told to stop once it has done so many updates."""
    seen = []
    stop = lambda: bool(seen) and seen[-1].update >= update  # noqa: E731
    return train(config, progress=seen.append, stop=stop, **more)


def log_of(out):
    """The lines of metrics.jsonl without what a clock says."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "pairs_per_second"} for row in rows]


@pytest.mark.parametrize("frozen", ["image", "text"])
def test_a_frozen_tower_stays_bit_for_bit(squares, tmp_path, frozen):
    """And the other one moves."""
    config = settings(squares, tmp_path / "run", freeze=(frozen,), epochs=2)
    train(config)
    before, after = started(config), weights(tmp_path / "run")
    moved = {name.split(".")[1] for name in after if not torch.equal(after[name], before[name])}
    assert moved == {"image", "text"} - {frozen} | {"logarithm"}


def test_heads_only_leaves_what_lies_below(squares, tmp_path):
    """The bodies stay; the heads learn, on features that are computed once."""
    config = settings(squares, tmp_path / "run", heads_only=True, epochs=20)
    done = train(config)
    before, after = started(config), weights(tmp_path / "run")
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert {name.rpartition(".")[0] for name in moved} == {
        "towers.image.head", "towers.text.head", "logit_scale",
    }  # fmt: skip
    assert done.after["held_out"]["text_to_image"]["recall@5"] >= 0.9


def test_lora_trains_adapters_alone_and_merges_them(squares, tmp_path):
    """While it trains no weight moves; afterwards each differs by a matrix of the rank."""
    config = settings(squares, tmp_path / "run", lora=2, epochs=3)
    train(config)
    before, after = started(config), weights(tmp_path / "run")
    assert before.keys() == after.keys()
    for name in before:
        change = after[name] - before[name]
        if name.endswith("weight") and not name.startswith("towers.audio"):
            assert torch.linalg.matrix_rank(change, rtol=1e-3) == 2, name
        elif name != "logit_scale.logarithm":
            assert not change.any(), name
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["model"]
    assert any("lora_A" in name for name in state)
    for name, value in state.items():
        plain = name.replace(".base_layer", "")
        if plain in before and plain != "logit_scale.logarithm":
            assert torch.equal(value, before[plain]), name


class OneProcess:
    """Stands for an Accelerator."""

    device = torch.device("cpu")
    process_index, num_processes = 0, 1


@pytest.mark.parametrize("loss", ["info-nce", "sigmoid"])
def test_accumulation_equals_the_larger_batch(squares, tmp_path, loss):
    """Four parts of four: loss and weights after two updates are those of sixteen at once."""
    found = []
    for batch, accumulate in ((16, 1), (4, 4)):
        config = settings(
            squares,
            tmp_path / "x",
            batch=batch,
            accumulate=accumulate,
            loss=loss,
            init="tiny-sober",
        )
        learner = Learner(config, OneProcess())
        batches = Batches(read(squares), config, learner.wanted)
        assert batches.size == 16
        losses = []
        for update, samples, views in batches.views(0):
            losses.append(learner.update(update, 1e-2, samples, views))
            if update == 1:
                break
        found.append((losses, learner.model.state_dict()))
    (first, whole), (second, parts) = found
    assert second == pytest.approx(first, rel=1e-5)
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-4, atol=1e-5)


def read(folder):
    """The pairs of a folder, read."""
    from mmsearch.datasets.reading import read_pairs
    from mmsearch.training.sources import merged, usable_pairs

    return merged(usable_pairs(read_pairs([folder])[0], lambda pair, data: None, 1))


def test_files_that_say_the_same_are_no_negatives(squares, tmp_path):
    """Equal captions have equal ids, whatever word dropout leaves of them."""
    config = settings(squares, tmp_path / "x", batch=48, word_dropout=0.5)
    batches = Batches(read(squares), config, Wanted(None, None))
    chosen = {}
    for sample in batches.samples(0):
        kinds = {word for caption in batches.pairs[sample.row].captions for word in caption.split()}
        colour = (kinds & COLOURS.keys()).pop()
        chosen.setdefault(sample.id, set()).add(colour)
    assert all(len(colours) == 1 for colours in chosen.values())
    assert 8 <= len(chosen) <= 16  # two captions of each colour


def test_an_epoch_sees_every_file_once_and_processes_share_it(squares, tmp_path):
    """Shares of two processes make up the update of one; the next epoch has another order."""
    config = settings(squares, tmp_path / "x", batch=12)
    pairs = read(squares)
    one = Batches(pairs, config, Wanted(None, None))
    both = [Batches(pairs, config, Wanted(None, None), (n, 2)) for n in range(2)]
    epochs = [[s.row for u in range(4) for s in one.samples(e * 4 + u)] for e in range(2)]
    assert [sorted(rows) for rows in epochs] == [list(range(48))] * 2
    assert epochs[0] != epochs[1]
    assert both[0].own(5) + both[1].own(5) == one.samples(5)


def test_the_rate_rises_and_falls():
    """A tenth of ten updates up, the rest down a cosine: by hand at its middle."""
    config = TrainConfig(learning_rate=2.0, warmup=0.2)
    rates = [learning_rate(config, update, 10) for update in range(10)]
    assert rates[:3] == pytest.approx([1.0, 2.0, 2.0])
    assert rates[6] == pytest.approx(1.0)
    assert rates[9] == pytest.approx(1 + np.cos(np.pi * 7 / 8))
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_a_loss_that_is_not_a_number_names_the_update_and_keeps_the_checkpoint(
    squares, tmp_path, monkeypatch
):
    """No weight of it is saved; the run goes on from the last good checkpoint."""
    out = tmp_path / "run"
    config = settings(squares, out, epochs=3, batch=12)
    update = Learner.update

    def spoilt(self, number, *rest):
        if number == 4:
            with torch.no_grad():
                self.model.towers["text"].head.bias[0] = float("nan")
        return update(self, number, *rest)

    monkeypatch.setattr(Learner, "update", spoilt)
    with pytest.raises(TrainingError, match=r"the loss is nan .* at update 5 of 9: .* --resume"):
        train(config)
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    assert state["update"] == 3
    assert all(torch.isfinite(value).all() for value in state["model"].values())
    monkeypatch.setattr(Learner, "update", update)
    assert train(resumed(str(out), {"learning_rate": 1e-3}), resume=True).after is not None


def test_bad_pairs_are_named_and_skipped(squares, tmp_path):
    """Missing, undecodable, without a caption; the rest is trained on."""
    rows = ["file,caption", "gone.png,a thing", "text.png,no picture", f"{squares}/red0.png,"]
    rows += [f"{squares}/{name}{n}.png,{name}" for name in COLOURS for n in range(2)]
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    (tmp_path / "text.png").write_text("this is no picture")
    done = train(settings(tmp_path / "pairs.csv", tmp_path / "run", epochs=1, batch=4))
    assert [(b.name.rpartition("/")[2], b.reason.partition(":")[0]) for b in done.bad] == [
        ("red0.png", "an empty caption"), ("gone.png", "unreadable"), ("text.png", "type-mismatch"),
    ]  # fmt: skip
    lines = (tmp_path / "run" / "bad.jsonl").read_text().splitlines()
    assert [json.loads(line)["reason"] for line in lines] == [b.reason for b in done.bad]


def test_no_usable_pairs_is_an_error_with_the_reasons(tmp_path):
    """And no run is left behind that a second try would stumble over."""
    (tmp_path / "pairs.csv").write_text("file,caption\ngone.png,a thing\n")
    config = settings(tmp_path / "pairs.csv", tmp_path / "run")
    for _ in range(2):
        with pytest.raises(TrainingError, match=r"0 can be used .*gone.png: unreadable"):
            train(config)


def test_what_a_run_must_not_be_asked(squares, tmp_path):
    """An old run is not overwritten, and goes on only as it was begun."""
    out = tmp_path / "run"
    train(settings(squares, out, epochs=1))
    with pytest.raises(TrainingError, match="has a run in it already"):
        train(settings(squares, out))
    with pytest.raises(TrainingError, match="is finished"):
        train(resumed(str(out), {}), resume=True)
    with pytest.raises(UsageError, match="begun with epochs 1, not 2"):
        resumed(str(out), {"epochs": 2})
    with pytest.raises(TrainingError, match="no run to go on with"):
        resumed(str(tmp_path / "nothing"), {})
    with pytest.raises(UsageError, match="nothing is left to train"):
        train(settings(squares, tmp_path / "b", freeze=("image", "text", "audio")))


def test_other_pairs_are_refused_on_resume(squares, tmp_path):
    """A caption that changed: the run would be neither the old nor the new."""
    folder = tmp_path / "squares"
    folder.mkdir()
    for path in squares.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    out = tmp_path / "run"
    stopped_at(1, settings(folder, out))
    (folder / "red0.txt").write_text("something else\n")
    with pytest.raises(TrainingError, match=r"are not those that .* was begun with"):
        train(resumed(str(out), {}), resume=True)


def test_a_damaged_checkpoint_is_told(squares, tmp_path):
    """Row 54 of failures.md: no code of a checkpoint is run; a damaged one is one clear error."""
    out = tmp_path / "run"
    stopped_at(1, settings(squares, out))
    (out / "checkpoint.pt").write_bytes(b"cposix\nsystem\n(S'touch canary'\ntR.")
    with pytest.raises(TrainingError, match=r"checkpoint\.pt cannot be read"):
        train(resumed(str(out), {}), resume=True)
    assert not (tmp_path / "canary").exists()
