"""One batch over two processes against the same batch in one.

``torchrun --nproc-per-node 2 test_gather.py FOLDER`` is what the tests run as a subprocess: each
process leaves what it found in FOLDER.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from mmsearch.errors import UsageError  # noqa: E402
from mmsearch.training.caching import cached_backward  # noqa: E402
from mmsearch.training.gather import average_gradients, gather  # noqa: E402
from mmsearch.training.losses import InfoNCE, Sigmoid, pairwise  # noqa: E402

PROCESSES = 2
# Which rows of the batch a process holds. "uneven": 5 photos and 1, 3 captions and 7. "apart": the
# sounds are all with process 1, photos and captions all with process 0.
SHARES = {
    "even": [
        {"image": [0, 1, 2], "text": [0, 1, 2, 3, 4], "audio": [0, 1]},
        {"image": [3, 4, 5], "text": [5, 6, 7, 8, 9], "audio": [2, 3]},
    ],
    "uneven": [
        {"image": [0, 1, 2, 3, 4], "text": [0, 1, 2], "audio": [0]},
        {"image": [5], "text": [3, 4, 5, 6, 7, 8, 9], "audio": [1, 2, 3]},
    ],
    "apart": [
        {"image": [0, 1, 2, 3, 4, 5], "text": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]},
        {"audio": [0, 1, 2, 3]},
    ],
}
IDS = {"image": [0, 1, 2, 3, 4, 5], "text": [0, 0, 1, 1, 2, 3, 4, 4, 5, 8], "audio": [2, 8, 3, 0]}
CASES = [(shares, loss) for shares in SHARES for loss in ("InfoNCE", "Sigmoid")]
CASES += [("apart", "frozen")]  # InfoNCE, where process 1 has rows of a tower that does not learn


class Towers(torch.nn.Module):
    """One small tower a modality, with the loss: all that is learnt."""

    def __init__(self, loss):
        super().__init__()
        torch.manual_seed(0)
        self.tower = torch.nn.ModuleDict(
            {
                name: torch.nn.Sequential(
                    torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
                )
                for name in IDS
            }
        )
        self.loss = Sigmoid() if loss == "Sigmoid" else InfoNCE()
        if loss == "frozen":
            self.tower["audio"].requires_grad_(False)
        self.double()

    def embed(self, name, inputs):
        """(n, 4) -> (n, 3) unit rows."""
        return torch.nn.functional.normalize(self.tower[name](inputs), dim=1)

    def forward(self, inputs, ids):
        """The loss of the batch of all processes."""
        rows = {name: self.embed(name, part) for name, part in inputs.items()}
        return pairwise(self.loss, *gather(rows, ids))


def batch(share=None):
    """(inputs, ids) of a share, or of the whole batch."""
    generator = torch.Generator().manual_seed(1)
    inputs, ids = {}, {}
    for name, numbers in IDS.items():
        whole = torch.randn(len(numbers), 4, generator=generator, dtype=torch.float64)
        if share is None or name in share:
            kept = slice(None) if share is None else share[name]
            inputs[name], ids[name] = whole[kept], torch.tensor(numbers)[kept]
    return inputs, ids


def gradients(module):
    """{name of a parameter: its gradient}; a missing one is zeros."""
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in module.named_parameters()
        if p.requires_grad
    }


def in_one_process(loss):
    """(loss, gradients) of the whole batch, with no processes anywhere."""
    towers = Towers(loss)
    value = towers(*batch())
    value.backward()
    return value.detach(), gradients(towers)


def wrapped(loss, share):
    """The gradients that DistributedDataParallel averages."""
    parallel = torch.nn.parallel.DistributedDataParallel(Towers(loss), find_unused_parameters=True)
    value = parallel(*batch(share))
    value.backward()
    return value.detach(), gradients(parallel.module)


def unwrapped(loss, share):
    """The gradients that ``average_gradients`` averages."""
    towers = Towers(loss)
    value = towers(*batch(share))
    value.backward()
    average_gradients(p for p in towers.parameters() if p.requires_grad)
    return value.detach(), gradients(towers)


def cached(loss, share):
    """The same in chunks of two, with the gradients of rows kept."""
    towers = Towers(loss)
    inputs, ids = batch(share)
    chunks = {
        name: [lambda n=name, c=chunk: towers.embed(n, c) for chunk in part.split(2)]
        for name, part in inputs.items()
    }
    value = cached_backward(chunks, lambda rows: pairwise(towers.loss, *gather(rows, ids)))
    average_gradients(p for p in towers.parameters() if p.requires_grad)
    return value, gradients(towers)


WAYS = {"wrapped": wrapped, "unwrapped": unwrapped, "cached": cached}


def one_of_several(folder):
    """What each process of torchrun does."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    found = {
        (way, shares, loss): function(loss, SHARES[shares][rank])
        for way, function in WAYS.items()
        for shares, loss in CASES
    }
    rows, ids = batch(SHARES["uneven"][rank])
    found["gathered"] = gather(rows, ids)
    try:
        gather({"image": torch.zeros(1, 3 + rank)}, {"image": torch.zeros(1)})
    except UsageError as error:
        found["refused"] = str(error)
    torch.save(found, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of the processes left, by rank."""
    if not torch.distributed.is_available():
        pytest.skip("this torch was built without torch.distributed")
    folder = tmp_path_factory.mktemp("processes")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(PROCESSES), __file__, str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shares, loss", CASES)
def test_the_loss_and_gradients_of_several_processes_are_those_of_one(found, way, shares, loss):
    """For even and uneven shares, and where a process lacks a modality: no factor is needed."""
    value, expected = in_one_process(loss)
    for of_process in found:
        own_value, own = of_process[way, shares, loss]
        assert own_value.item() == pytest.approx(value.item(), rel=1e-12)
        assert own.keys() == expected.keys()
        for name, gradient in expected.items():
            assert gradient.norm() > 0, name
            difference = (own[name] - gradient).norm() / gradient.norm()
            assert difference < 1e-9, (name, difference)


def test_gathered_rows_lie_in_order_of_process_with_their_ids(found):
    """Every process has them all."""
    inputs, ids = batch()
    for of_process in found:
        rows, gathered_ids = of_process["gathered"]
        assert {name: part.tolist() for name, part in rows.items()} == {
            name: part.tolist() for name, part in inputs.items()
        }
        assert {name: part.tolist() for name, part in gathered_ids.items()} == IDS
        assert ids.keys() == rows.keys()


def test_rows_of_different_dim_are_refused_by_all_processes(found):
    """None is left waiting for another."""
    for of_process in found:
        assert "rows of one dim and type are wanted" in of_process["refused"]
        assert "(3, 'torch.float32'), (4, 'torch.float32')" in of_process["refused"]


def test_in_a_single_process_nothing_is_exchanged():
    """Rows and ids come back as they went in, and gradients stay."""
    rows = {"image": torch.ones(2, 3, requires_grad=True)}
    ids = {"image": torch.tensor([4, 5])}
    gathered, gathered_ids = gather(rows, ids)
    assert gathered["image"] is rows["image"]
    assert gathered_ids["image"] is ids["image"]
    gathered["image"].sum().backward()
    average_gradients(rows.values())
    assert rows["image"].grad.tolist() == [[1.0] * 3] * 2


if __name__ == "__main__":
    one_of_several(sys.argv[1])
