"""One run in two processes against the same run in one.

``torchrun --nproc-per-node 2 test_train_processes.py PAIRS RUN`` is what the test runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
for package in ("accelerate", "safetensors", "matplotlib"):
    pytest.importorskip(package)

import tiny  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from mmsearch.training import gate, learner  # noqa: E402
from mmsearch.training.config import TrainConfig  # noqa: E402
from mmsearch.training.train import train  # noqa: E402


def one_run(pairs, out, **more):
    """A short run of the tiny model; True in the process that speaks."""
    config = TrainConfig(
        pairs=(str(pairs),), out=str(out), init="tiny-sober", epochs=2, learning_rate=1e-2,
        workers=1, **more,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner, "start", tiny.start)
        patch.setattr(gate, "_DRAWINGS", 1)
        return train(config).prints


def test_two_processes_give_the_weights_of_one(tmp_path):
    """Batches shared by two, each in two parts; one process writes the run, and speaks."""
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    generator = np.random.default_rng(0)
    for number in range(24):
        shade = tuple(int(value) for value in generator.integers(0, 256, 3))
        Image.new("RGB", (16, 12), shade).save(pairs / f"{number}.png")
        (pairs / f"{number}.txt").write_text(f"a square of {shade[0]} and {shade[1]}\n")
    assert one_run(pairs, tmp_path / "one", batch=16)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*launch, "--nproc-per-node", "2", __file__, pairs, tmp_path / "two"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == ["False", "True"]
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5)


if __name__ == "__main__":
    torch.set_num_threads(1)
    speaks = one_run(Path(sys.argv[1]), Path(sys.argv[2]), batch=8, accumulate=2)
    os.write(1, f"{speaks}\n".encode())  # in one piece: the two share the pipe
