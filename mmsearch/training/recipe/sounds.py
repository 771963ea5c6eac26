"""Stage sounds: a head on YAMNet's frozen features, into the space of pictures and texts.

names      a clip of ESC-50 finds the names of its class among those of all (InfoNCE); half of
           the clips are mixtures of two, and then belong to both
opinions   the teacher's opinion of a clip over AudioSet's 521 classes holds in the shared space
           too; on real clips, and on synthetic features of classes that no clip has
pictures   a clip finds photos of what makes its sound (esc50_to_imagenet.tsv)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
import torch.nn.functional as F
from torch import Tensor

from mmsearch.encoders.patches import RATE, cut_patches
from mmsearch.loaders import sounds as loading
from mmsearch.records import AudioInput
from mmsearch.training import esc50
from mmsearch.training.export import audio_features_graph
from mmsearch.training.losses import soft_cross_entropy, synthetic_features
from mmsearch.training.recipe.config import BuiltinConfig
from mmsearch.training.recipe.loop import Average, Log, one_cycle
from mmsearch.training.recipe.photos import kept
from mmsearch.training.recipe.teachers import sound_teacher
from mmsearch.training.towers import AUDIO_FEATURES, AudioTower, Head, LogitScale

Floats = npt.NDArray[np.float32]


def samples_of(path: Path) -> Floats:
    """The samples of a clip, whole: a few are longer than five seconds."""
    with path.open("rb") as file:
        (window,) = loading.windows(file, AudioInput(RATE, window=10.0))
    return window.samples


def clip_features(data: Path, work: Path) -> Floats:
    """YAMNet's pooled features of every clip of ESC-50, (1600, 2048): mean, then maximum."""

    def work_out() -> Floats:
        tower = AudioTower()
        tower.backbone = sound_teacher(data)[0]
        session = onnxruntime.InferenceSession(audio_features_graph(tower).SerializeToString())
        rows = []
        for clip in esc50.clips(data):
            rows.append(session.run(None, {"patches": cut_patches(samples_of(clip.path))})[0])
        return np.concatenate(rows)

    return kept(work / "clip_features.npy", work_out)  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class Heard:
    """What the head is taught with; all rows are unit rows of the shared space.

    features: (clips, 2048); folds, labels: (clips,), a label is the row of a class by name.
    names: (50, templates, dim); audioset: (521, templates, dim), the texts of each class.
    photos: (photos, dim); shows: (50, photos) booleans, what a class of sound looks like.
    weight: (521, 1024), bias: (521,) of the teacher's classifier.
    """

    features: Tensor
    folds: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    names: Tensor
    audioset: Tensor
    photos: Tensor
    shows: Tensor
    weight: Tensor
    bias: Tensor

    def opinion(self, features: Tensor) -> Tensor:
        """The teacher's scores of the 521 classes as shares of one, from features (n, 2048)."""
        mean = features[:, : self.weight.shape[1]]
        return F.normalize(torch.sigmoid(mean @ self.weight.T + self.bias), p=1, dim=-1)


def train_sound_head(
    config: BuiltinConfig, heard: Heard, *, exclude_fold: int | None = None
) -> tuple[Head, Callable[[Tensor], Tensor]]:
    """The head, trained on all folds but one, and the function (n, 2048) -> (n, dim) it is."""
    torch.manual_seed(config.seed)
    generator = np.random.default_rng(config.seed)
    rows = np.flatnonzero(heard.folds != exclude_fold)
    head = Head(AUDIO_FEATURES, config.hidden, dropout=config.sound_dropout)
    scales = torch.nn.ModuleList([LogitScale(20.0), LogitScale(20.0), LogitScale(20.0)])
    trained = torch.nn.ModuleList([head, scales])
    group = {"params": list(trained.parameters()), "lr": config.sound_learning_rate}
    optimizer, cycle = one_cycle([group | {"weight_decay": 0.2}], config.sound_steps)
    average = Average(trained, config.average_decay)
    n, log = config.sound_batch, Log()
    classes, (_, templates, _) = torch.eye(len(heard.names)), heard.names.shape
    pictured = heard.shows.any(1)
    looks = heard.shows / heard.shows.sum(1, keepdim=True).clamp(min=1)
    for step in range(config.sound_steps):
        first, second = generator.choice(rows, (2, n))
        share = torch.from_numpy(generator.beta(0.4, 0.4, (n, 1)).astype(np.float32))
        share[: n // 2] = 1.0
        mixed = share * heard.features[first] + (1 - share) * heard.features[second]
        belongs = share * classes[heard.labels[first]] + (1 - share) * classes[heard.labels[second]]
        towards = heard.weight[generator.integers(0, len(heard.weight), n)]
        strength = torch.from_numpy(generator.uniform(0.2, 1.5, (n, 1)).astype(np.float32))
        halves = mixed.chunk(2, dim=1)
        made = torch.cat([synthetic_features(half, towards, strength) for half in halves], dim=1)
        both = torch.cat([mixed, made])
        out = head(both)
        names = heard.names[:, generator.integers(templates)]
        audioset = heard.audioset[:, generator.integers(templates)]
        with_photos = pictured[heard.labels[first[: n // 2]]]
        photos = looks[heard.labels[first[: n // 2]]][with_photos]
        logits = scales[0]() * out[:n] @ names.T
        # A column's share of the batch: texts find their clips too.
        columns = F.normalize(belongs.T, p=1, dim=-1)
        used = belongs.sum(0) > 0
        losses = {
            "pairs": (
                soft_cross_entropy(logits, belongs)
                + soft_cross_entropy(logits.T[used], columns[used])
            )
            / 2,
            "opinions": soft_cross_entropy(scales[1]() * out @ audioset.T, heard.opinion(both)),
            "pictures": soft_cross_entropy(
                scales[2]() * out[: n // 2][with_photos] @ heard.photos.T, photos
            ),
        }
        optimizer.zero_grad(set_to_none=True)
        config.weighted(losses).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        cycle.step()
        average.update(trained, step)
        log.add(losses)
    log.line(sounds=config.sound_steps, without_fold=exclude_fold)
    trained.load_state_dict(average.values)
    head.eval()
    return head, torch.no_grad()(head)
