"""Stages finetune and polish: pictures, English and Chinese in one space.

Several losses pull at the towers:
    pairs      a photo and its captions, in both languages, find each other (InfoNCE); rows of the
               batches before serve as further negatives (cross-batch memory, Wang et al. 2020,
               arXiv 1912.06798)
    classes    the image teacher's opinion of a photo, as probabilities over 1,000 class names,
               holds in the shared space too
    synthetic  so it does on features of pictures that do not exist, pushed toward any class
    keep       the teacher's classifier still reads its classes from the tower's features
    teacher    sentences of every kind stay where the text teacher puts them, and Chinese ones go
               where their English translations are
    glosses    a term lies near its gloss
All but the first are why words outside the captions mean something to the model.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from mmsearch.training.losses import info_nce, soft_cross_entropy, synthetic_features
from mmsearch.training.recipe.config import BuiltinConfig
from mmsearch.training.recipe.loop import Average, Log, one_cycle, save
from mmsearch.training.recipe.photos import kinds_of, opinions_of
from mmsearch.training.recipe.sentences import Rows, Sentences, like_lengths
from mmsearch.training.recipe.teachers import image_teacher
from mmsearch.training.recipe.texts import padded
from mmsearch.training.towers import ImageTower, LogitScale, TextTower


def pushed(
    features: Tensor, weight: Tensor, bias: Tensor, count: int, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Synthetic features (count, 1280), each of a random class, and the teacher's opinion of them.

    features: (n, 1280) of real photos, the bases.
    """
    wanted = torch.from_numpy(generator.integers(0, len(weight), count))
    strength = torch.from_numpy(generator.uniform(0.2, 1.5, (count, 1)).astype(np.float32))
    bases = features.detach()[torch.from_numpy(generator.integers(0, len(features), count))]
    made = synthetic_features(bases, weight[wanted], strength)
    return made, F.softmax(made @ weight.T + bias, dim=-1)


class Memory:
    """Rows of the last steps and the photos they belong to: negatives that cost nothing."""

    def __init__(self, size: int):
        self.size, self.rows, self.ids = size, torch.empty(0), torch.empty(0, dtype=torch.int64)

    def add(self, rows: Tensor, ids: Tensor) -> None:
        """Remember these, forget the oldest."""
        self.rows = (
            torch.cat([rows.detach(), self.rows])[: self.size] if len(self.ids) else rows.detach()
        )
        self.ids = torch.cat([ids, self.ids])[: self.size]

    def beside(self, rows: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """These rows and the remembered ones, with the ids of both."""
        return torch.cat([rows, self.rows]) if len(self.ids) else rows, torch.cat([ids, self.ids])


class Towers(torch.nn.Module):
    """Both towers and the two temperatures: that of captions and that of class names."""

    def __init__(self, config: BuiltinConfig, text: TextTower):
        super().__init__()
        self.image = ImageTower(config.hidden, config.image_dropout, size=config.size)
        self.text = text
        self.text.head.dropout.p = config.text_dropout
        self.pair_scale, self.class_scale = LogitScale(25.0), LogitScale(20.0)
        self.frozen = config.frozen
        for module in list(self.image.backbone.layers)[: config.frozen]:
            module.requires_grad_(False)

    def groups(self, config: BuiltinConfig) -> list[dict[str, object]]:
        """The parameters with their learning rates and weight decays."""
        heads = [*self.image.head.parameters(), *self.text.head.parameters()]
        tokens = [self.text.tokens.weight]
        scales = [self.pair_scale.logarithm, self.class_scale.logarithm]
        backbone = [p for p in self.image.backbone.parameters() if p.requires_grad]
        taken = {id(p) for p in (*heads, *tokens)}
        layers = [p for p in self.text.parameters() if id(p) not in taken]
        return [
            {"params": backbone, "lr": config.backbone_learning_rate, "weight_decay": 1e-4},
            {"params": layers, "lr": config.text_learning_rate, "weight_decay": 0.01},
            {"params": tokens, "lr": config.tokens_learning_rate, "weight_decay": 0.0},
            {"params": heads, "lr": config.head_learning_rate, "weight_decay": 0.05},
            {"params": scales, "lr": 1e-3, "weight_decay": 0.0},
        ]

    def features(self, maps: npt.NDArray[np.float16]) -> Tensor:
        """Pooled features (n, 1280) from the maps that leave the frozen layers."""
        x = torch.from_numpy(maps).float().contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            return self.image.backbone.late(x, self.frozen)

    def sentences(self, said: Sentences, rows: Rows, *, pieces: int = 4) -> Tensor:
        """The text tower's rows (n, 384) of these sentences, before the head."""
        places = list(like_lengths(said.tokens, rows, pieces))
        with torch.autocast("cpu", torch.bfloat16):
            parts = [
                self.text.sentence(*padded([said.tokens[row] for row in rows[place]]))
                for place in places
            ]
        return torch.cat(parts)[torch.from_numpy(np.argsort(np.concatenate(places)))]

    @torch.no_grad()
    def bank(self, said: Sentences, rows: Rows) -> Tensor:
        """The same without a graph, for as many rows as wanted."""
        self.text.eval()
        order = rows[np.argsort([len(said.tokens[row]) for row in rows], kind="stable")]
        found = dict[int, Tensor]()
        for start in range(0, len(order), 256):
            some = order[start : start + 256]
            found |= dict(zip(some.tolist(), self.sentences(said, some, pieces=1), strict=True))
        self.text.train()
        return torch.stack([found[row] for row in rows.tolist()])


def finetune(  # noqa: PLR0915 - a recipe reads top to bottom
    config: BuiltinConfig,
    data: Path,
    work: Path,
    said: Sentences,
    *,
    checkpoint: str = "towers.pt",
    start: str | None = None,
) -> None:
    """Both towers end to end, from the teachers or from the checkpoint ``start`` of another run.

    Goes on from its own last checkpoint, which it writes each epoch.
    """
    torch.manual_seed(config.seed)
    _, weight, bias = image_teacher(data)
    towers = Towers(config, said.fresh_tower(config))
    towers.image.backbone.load_state_dict(image_teacher(data)[0].state_dict())
    heads = torch.load(work / "heads.pt")
    towers.image.head.load_state_dict(heads["image"])
    towers.text.head.load_state_dict(heads["text"])
    if start is not None:
        towers.load_state_dict(torch.load(work / start)["average"])
    counts = {"train": config.views, "tiny": 1, "drawn": 1}
    maps = {
        name: [np.load(work / f"{name}_view{i}.npy", mmap_mode="r") for i in range(count)]
        for name, count in counts.items()
    }
    opinions = {name: opinions_of(work, name, weight, bias) for name in ("train", "tiny")}
    n, per_epoch = config.batch, len(said.of_photo) // config.batch
    sizes = [n, config.tiny_batch, config.drawn_batch]
    optimizer, cycle = one_cycle(towers.groups(config), config.epochs * per_epoch)
    average = Average(towers, config.average_decay)
    first = 0
    if (work / checkpoint).exists():
        saved = torch.load(work / checkpoint)
        towers.load_state_dict(saved["towers"])
        average.values = saved["average"]
        optimizer.load_state_dict(saved["optimizer"])
        cycle.load_state_dict(saved["cycle"])
        first = saved["epoch"]
    for epoch in range(first, config.epochs):
        # Everything random in an epoch follows from its number, so that it can begin anew.
        generator = np.random.default_rng((config.seed, epoch))
        torch.manual_seed(config.seed + epoch)
        towers.train()
        images_before, texts_before = Memory(config.memory), Memory(config.memory)
        names = said.draw(said.of_class, generator)
        bank = towers.bank(said, names)
        order = generator.permutation(len(said.of_photo))
        log = Log()
        for step in range(per_epoch):
            # Sorted, for the maps lie on disk.
            photos = np.sort(order[step * n : (step + 1) * n])
            tiny = np.sort(generator.choice(len(maps["tiny"][0]), sizes[1], replace=False))
            drawn = np.sort(generator.choice(len(maps["drawn"][0]), sizes[2], replace=False))
            kinds = kinds_of(drawn, len(maps["drawn"][0]))
            entering = [
                maps["train"][epoch % config.views][photos],
                maps["tiny"][0][tiny],
                maps["drawn"][0][drawn],
            ]
            features = towers.features(np.concatenate(entering))
            real = features[: n + sizes[1]]
            made, made_opinion = pushed(real, weight, bias, n, generator)
            photo, tiny_row, drawing, made_row = torch.split(
                towers.image.embed(torch.cat([features, made])), [*sizes, n]
            )

            chinese = generator.choice(n, config.chinese_batch, replace=False)
            live = generator.choice(len(names), config.names_batch, replace=False)
            terms = generator.choice(len(said.terms), config.glosses_batch, replace=False)
            chosen = [
                said.draw([said.of_photo[i] for i in photos], generator),
                said.draw([said.of_kind[kind] for kind in kinds], generator),
                said.draw([said.of_photo_chinese[i] for i in photos[chinese]], generator),
                generator.choice(said.words, config.dictionary_batch, replace=False),
                names[live],
                generator.choice(said.free, config.free_batch, replace=False),
                said.draw(list(said.terms[terms]), generator),
                said.glosses[terms],
            ]
            together = np.concatenate(chosen)
            sentences = towers.sentences(said, together)
            parts = torch.split(sentences, [len(rows) for rows in chosen])
            texts = towers.text.embed(torch.cat(parts[:3]))
            labels = bank.index_copy(0, torch.from_numpy(live), parts[4].float())
            labels = towers.text.embed(labels)

            image_ids = torch.from_numpy(np.concatenate([photos, -1 - kinds]))
            text_ids = torch.cat([image_ids, torch.from_numpy(photos[chinese])])
            rows = torch.cat([photo, drawing])
            scale, class_scale = towers.pair_scale(), towers.class_scale()
            more_texts, more_text_ids = texts_before.beside(texts, text_ids)
            more_images, more_image_ids = images_before.beside(rows, image_ids)
            to_texts = info_nce(rows, more_texts, scale, image_ids, more_text_ids)
            to_images = info_nce(texts, more_images, scale, text_ids, more_image_ids)
            opinion = torch.cat([opinions["train"][photos], opinions["tiny"][tiny]])
            losses = {
                "pairs": (to_texts + to_images) / 2,
                "classes": soft_cross_entropy(
                    class_scale * torch.cat([photo, tiny_row]) @ labels.T, opinion
                ),
                "synthetic": soft_cross_entropy(class_scale * made_row @ labels.T, made_opinion),
                "keep": soft_cross_entropy(real @ weight.T + bias, opinion),
                "teacher": 1 - (sentences * said.targets[together]).sum(-1).mean(),
                "glosses": 1 - (parts[6] * parts[7].detach()).sum(-1).mean(),
            }
            optimizer.zero_grad(set_to_none=True)
            config.weighted(losses).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(towers.parameters(), config.clip)
            optimizer.step()
            cycle.step()
            average.update(towers, epoch * per_epoch + step)
            images_before.add(rows, image_ids)
            texts_before.add(texts, text_ids)
            log.add(losses)
        log.line(epoch=epoch + 1)
        save(
            work / checkpoint,
            towers=towers.state_dict(),
            average=average.values,
            optimizer=optimizer.state_dict(),
            cycle=cycle.state_dict(),
            epoch=epoch + 1,
        )


def averaged(config: BuiltinConfig, checkpoint: Path) -> Towers:
    """The averaged towers of a run."""
    average = torch.load(checkpoint)["average"]
    layers = {int(name.split(".")[2]) for name in average if name.startswith("text.layers.")}
    text = TextTower(len(average["text.tokens.weight"]), len(layers), max_tokens=config.max_tokens)
    towers = Towers(config, text)
    towers.load_state_dict(average)
    return towers.eval()
