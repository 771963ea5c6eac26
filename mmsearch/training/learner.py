"""A model while it is trained: what one update does to it, and how it embeds in between."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmsearch.datasets.pairs import Pair
from mmsearch.errors import TrainingError
from mmsearch.records import Modality
from mmsearch.training import adapters
from mmsearch.training.batches import Sample, Wanted, load
from mmsearch.training.caching import cached_backward
from mmsearch.training.config import TrainConfig
from mmsearch.training.dual import start
from mmsearch.training.gate import Rows
from mmsearch.training.gather import average_gradients, gather
from mmsearch.training.losses import InfoNCE, Sigmoid, pairwise


class Learner:
    """A model, its loss and its optimizer. `device` is an Accelerator, one in each process.

    Raises UsageError where nothing is left to train.
    """

    def __init__(self, config: TrainConfig, device: Any) -> None:
        self.config, self.device = config, device
        torch.manual_seed(config.seed)
        self.model = start(config.init).to(device.device)
        self.towers = dict(self.model.towers.items())
        self.wanted = Wanted(self.model.image_input, self.model.audio_input)
        adapters.freeze(self.towers, config.freeze)
        if config.lora:
            adapters.add(self.towers, config.lora, config.freeze)
        if config.heads_only:
            adapters.heads_only(self.towers, config.freeze)
        self.loss = (InfoNCE if config.loss == "info-nce" else Sigmoid)().to(device.device)
        self.loss.scale = self.model.logit_scale
        both: list[torch.nn.Parameter] = [*self.model.parameters(), *self.loss.parameters()]
        self.parameters = [each for each in dict.fromkeys(both) if each.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in self.parameters if p.ndim > 1]},
            {"params": [p for p in self.parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups,
            betas=(0.9, 0.98),
            eps=1e-6,
            weight_decay=config.weight_decay,
        )
        # what lies below the heads, once `keep_features` computed it: (width,) each
        self._files: dict[int, Tensor] = {}
        self._captions: dict[str, Tensor] = {}

    def leave_out(self, kinds: Collection[str]) -> None:
        """Keep the towers of these modalities as they are: no pair reaches them."""
        for kind in kinds:
            self.towers[kind].requires_grad_(False)
        self.parameters = [p for p in self.parameters if p.requires_grad]

    def embed(self, kind: Modality, inputs: Sequence[Any]) -> Rows:
        """(n, dim) unit rows of pictures, sounds or texts, as they are."""
        self.model.eval()
        with torch.no_grad(), self._precision():
            parts = _parts(inputs, self.config.batch)
            rows = [self.model.head(kind, self._below(kind, part)).float() for part in parts]
        found: Rows = torch.cat(rows).cpu().numpy()
        return found

    def update(
        self, number: int, rate: float, samples: Sequence[Sample], views: Sequence[Any]
    ) -> float:
        """One step down the gradient of the loss of a whole batch, and that loss.

        samples, views: this process's share. Raises TrainingError, before any weight changes,
        when the loss or its gradient is not a number.
        """
        self.model.train()
        adapters.quiet(self.towers, self.config.freeze)
        # what dropout drops depends on nothing that was drawn before
        stream = np.random.SeedSequence([self.config.seed, number, self.device.process_index])
        torch.manual_seed(int(stream.generate_state(1)[0]))
        for group in self.optimizer.param_groups:
            group["lr"] = rate

        chunks: dict[str, list[Callable[[], Tensor]]] = {}
        numbers: dict[str, list[int]] = {}
        size = math.ceil(len(samples) / self.config.accumulate)
        for at in range(0, len(samples), size):
            part = slice(at, at + size)
            for kind, inputs, own in self._by_modality(samples[part], views[part]):
                chunks.setdefault(kind, []).append(partial(self._rows, kind, inputs))
                numbers.setdefault(kind, []).extend(own)
        ids = {kind: torch.tensor(each).to(self.device.device) for kind, each in numbers.items()}

        def loss(rows: Mapping[str, Tensor]) -> Tensor:
            return pairwise(self.loss, *gather(rows, ids))

        if self.config.accumulate > 1:
            value = cached_backward(chunks, loss)
        else:
            value = loss({kind: torch.cat([embed() for embed in c]) for kind, c in chunks.items()})
            value.backward()  # type: ignore[no-untyped-call]
        for parameter in self.parameters:  # as `average_gradients` does for several processes
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        average_gradients(self.parameters)
        length = nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        found = value.item()
        if not math.isfinite(found + length.item()):
            raise TrainingError(f"the loss is {found} and its gradient {length.item()}")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return found

    def keep_features(self, pairs: Sequence[Pair]) -> None:
        """Compute what lies below the heads once, of all files and captions."""
        captions = list(dict.fromkeys(text for pair in pairs for text in pair.captions))
        texts = self._features(Modality.TEXT, captions)
        self._captions = dict(zip(captions, texts, strict=True))
        for kind in (Modality.IMAGE, Modality.AUDIO):
            rows = [row for row, pair in enumerate(pairs) if pair.modality is kind]
            with ThreadPoolExecutor(self.config.workers) as pool:
                for part in _parts(rows, self.config.batch):
                    views = pool.map(lambda row: load(pairs[row], self.wanted), part)
                    features = self._features(kind, list(views))
                    self._files |= dict(zip(part, features, strict=True))

    def _features(self, kind: Modality, inputs: Sequence[Any]) -> Tensor:
        """(n, width) of what `embed` takes, without a graph."""
        self.model.eval()
        parts = _parts(inputs, self.config.batch)
        with torch.no_grad(), self._precision():
            return torch.cat([self._below(kind, part) for part in parts])

    def _below(self, kind: Modality, inputs: Sequence[Any]) -> Tensor:
        """(n, width) of what lies below the head."""
        return self.model.features(kind, self.model.collate(kind, inputs))

    def _precision(self) -> torch.autocast:
        kind = self.device.device.type
        return torch.autocast(kind, torch.bfloat16, enabled=self.config.bf16)

    def _rows(self, kind: Modality, inputs: Any) -> Tensor:
        """(n, dim) unit rows, with a graph unless the tower is frozen."""
        graph = torch.is_grad_enabled() and kind not in self.config.freeze
        with torch.set_grad_enabled(graph), self._precision():
            features = inputs if self._captions else self._below(kind, inputs)
            return self.model.head(kind, features).float()

    def _by_modality(
        self, samples: Sequence[Sample], views: Sequence[Any]
    ) -> Iterator[tuple[Modality, Any, list[int]]]:
        """(modality, inputs or kept features, ids) of the files and of their captions."""
        for kind in (Modality.IMAGE, Modality.AUDIO):
            rows = [row for row, sample in enumerate(samples) if sample.modality is kind]
            ids = [samples[row].id for row in rows]
            if rows and self._files:
                yield kind, torch.stack([self._files[samples[row].row] for row in rows]), ids
            elif rows:
                yield kind, [views[row] for row in rows], ids
        said = [sample.caption for sample in samples]
        texts = torch.stack([self._captions[text] for text in said]) if self._captions else said
        yield Modality.TEXT, texts, [sample.id for sample in samples]

    def state(self) -> dict[str, Any]:
        """All that an update changes."""
        holders = {"model": self.model, "loss": self.loss, "optimizer": self.optimizer}
        return {name: holder.state_dict() for name, holder in holders.items()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`."""
        self.model.load_state_dict(state["model"])
        self.loss.load_state_dict(state["loss"])
        self.optimizer.load_state_dict(state["optimizer"])


def _parts(inputs: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (inputs[at : at + size] for at in range(0, len(inputs), size))
