"""Both heads alone, on features that are worked out once: before the towers are trained, and after.

The losses are those of ``towers`` but for what only towers need, and one more for words of everyday
things:
    finds      a term finds among a batch's photos what its gloss finds
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from mmsearch.training.losses import info_nce, soft_cross_entropy
from mmsearch.training.recipe.config import BuiltinConfig
from mmsearch.training.recipe.loop import Average, Log, one_cycle, save
from mmsearch.training.recipe.photos import features, kept, kinds_of, opinions_of, pixels_of
from mmsearch.training.recipe.sentences import Rows, Sentences
from mmsearch.training.recipe.teachers import image_teacher
from mmsearch.training.recipe.texts import Floats, embed_texts
from mmsearch.training.recipe.towers import Towers, averaged, pushed
from mmsearch.training.towers import FEATURES, Head, LogitScale


class Heads(torch.nn.Module):
    """A head for pictures, one for texts, and the temperatures of captions and of class names."""

    def __init__(self, image: Head, text: Head, pair_scale: LogitScale, class_scale: LogitScale):
        super().__init__()
        self.image, self.text = image, text
        self.pair_scale, self.class_scale = pair_scale, class_scale


@dataclass(frozen=True, slots=True)
class Material:
    """What heads are taught with.

    photos: (n, 1280) of 'train', as they are and mirrored; of 'tiny'; of 'drawn'. opinions: (n,
    1000), the image teacher's of 'train' and 'tiny'. sentences: (texts, 384), zero where no loss
    here reads a text. classifier: the teacher's weight (1000, 1280) and bias (1000,).
    """

    photos: dict[str, list[Tensor]]
    opinions: dict[str, Tensor]
    sentences: Tensor
    classifier: tuple[Tensor, Tensor]


def material(
    photos: dict[str, list[Tensor]], sentences: Tensor, data: Path, work: Path
) -> Material:
    """These features with what the image teacher says of the photos."""
    _, weight, bias = image_teacher(data)
    opinions = {name: opinions_of(work, name, weight, bias) for name in ("train", "tiny")}
    return Material(photos, opinions, sentences, (weight, bias))


def class_labels(said: Sentences) -> list[Rows]:
    """Of each class "a ..." and "a photo of a ..."."""
    return [names[1:3] for names in said.of_class]


def start_heads(config: BuiltinConfig, data: Path, work: Path, said: Sentences) -> None:
    """New heads on the teachers' features, for the towers to start from."""
    torch.manual_seed(config.seed)
    photos = {
        name: [
            torch.from_numpy(np.load(path))
            for path in sorted(work.glob(f"{name}_{config.size}*.npy"))
        ]
        for name in ("train", "tiny", "drawn")
    }
    image, text = Head(FEATURES, config.hidden), Head(said.targets.shape[1], config.hidden)
    heads = Heads(image, text, LogitScale(20.0), LogitScale(20.0))
    fit(config, said, heads, material(photos, said.targets, data, work))
    save(work / "heads.pt", image=image.state_dict(), text=text.state_dict())


def refit_heads(config: BuiltinConfig, data: Path, work: Path, said: Sentences) -> None:
    """The heads once more, on what the finished towers make of whole photos and of sentences.

    Several runs from the same start differ only in their seeds; the mean of their weights is better
    than each (Wortsman et al. 2022, arXiv 2203.05482).
    """
    towers = averaged(config, work / "polished.pt")
    photos, sentences = tuned(config, data, work, said, towers)
    taught = material(photos, sentences, data, work)
    heads = Heads(towers.image.head, towers.text.head, towers.pair_scale, towers.class_scale)
    start = {name: value.clone() for name, value in heads.state_dict().items()}
    runs = []
    for run in range(config.heads_runs):
        heads.load_state_dict(start)
        fit(replace(config, seed=config.seed + run), said, heads, taught)
        runs.append({name: value.clone() for name, value in heads.state_dict().items()})
    heads.load_state_dict({name: torch.stack([r[name] for r in runs]).mean(0) for name in start})
    save(work / "refit.pt", average=towers.state_dict())


def tuned(
    config: BuiltinConfig, data: Path, work: Path, said: Sentences, towers: Towers
) -> tuple[dict[str, list[Tensor]], Tensor]:
    """Photos and sentences as ``Material`` has them, by these towers; kept beside their digest."""
    digest = hashlib.sha256()
    for value in towers.state_dict().values():
        digest.update(value.numpy().tobytes())
    stamp = digest.hexdigest()[:16]

    def pooled(name: str, flip: bool) -> Tensor:
        def work_out() -> npt.NDArray[np.generic]:
            pixels = pixels_of(name, config, data, work)
            return features(towers.image.backbone, pixels, size=config.size, flip=flip)

        path = work / f"tuned_{name}{'_flipped' if flip else ''}_{stamp}.npy"
        return torch.from_numpy(np.array(kept(path, work_out)))

    def read() -> Floats:
        groups = [*said.of_photo, *said.of_photo_chinese, *class_labels(said), *said.of_kind]
        rows = np.unique(np.concatenate([*groups, *said.terms, said.glosses]))
        sentences = np.zeros(said.targets.shape, np.float32)
        texts = [said.texts[row] for row in rows]
        sentences[rows] = embed_texts(towers.text, said.tokenizer, texts, sentence=True)
        return sentences

    photos = {name: [pooled(name, False)] for name in ("train", "tiny", "drawn")}
    photos["train"].append(pooled("train", True))
    return photos, torch.from_numpy(np.array(kept(work / f"tuned_texts_{stamp}.npy", read)))


def fit(config: BuiltinConfig, said: Sentences, heads: Heads, taught: Material) -> None:
    """Train both heads; leaves the average of the steps in them."""
    torch.manual_seed(config.seed)
    generator = np.random.default_rng(config.seed)
    heads.image.dropout.p, heads.text.dropout.p = config.image_dropout, config.text_dropout
    heads.train()
    group = {"params": list(heads.parameters()), "lr": config.heads_learning_rate}
    decay = config.heads_weight_decay
    optimizer, cycle = one_cycle([group | {"weight_decay": decay}], config.heads_steps)
    average, log = Average(heads, config.heads_average_decay), Log()
    plain, mirrored = taught.photos["train"]
    (tinies,), (drawings,) = taught.photos["tiny"], taught.photos["drawn"]
    labels, sentences = class_labels(said), taught.sentences
    n, others = config.heads_batch, config.heads_batch // 2
    for step in range(config.heads_steps):
        photos = generator.choice(len(plain), n, replace=False)
        flip = torch.from_numpy(generator.random((n, 1)) < 0.5)
        tiny = generator.choice(len(tinies), others, replace=False)
        drawn = generator.choice(len(drawings), config.heads_drawn, replace=False)
        kinds = kinds_of(drawn, len(drawings))
        faces = torch.where(flip, mirrored[photos], plain[photos])
        real = torch.cat([faces, tinies[tiny], drawings[drawn]])
        made, made_opinion = pushed(real[: n + others], *taught.classifier, others, generator)
        images = heads.image(torch.cat([real, made]))
        photo, named, drawing, made_row = torch.split(images, [n, others, len(drawn), others])

        also = photos[: config.heads_chinese]  # these have a Chinese caption beside the English
        terms = generator.choice(len(said.terms), config.heads_glosses, replace=False)
        chosen = [
            said.draw([said.of_photo[i] for i in photos], generator),
            said.draw([said.of_kind[kind] for kind in kinds], generator),
            said.draw([said.of_photo_chinese[i] for i in also], generator),
            said.draw(labels, generator),
            said.draw(list(said.terms[terms]), generator),
            said.glosses[terms],
        ]
        texts = heads.text(sentences[np.concatenate(chosen)])
        captions = sum(len(rows) for rows in chosen[:3])
        caption, label, term, gloss = torch.split(
            texts, [captions, *(len(rows) for rows in chosen[3:])]
        )
        gloss = gloss.detach()
        found = F.softmax(20.0 * gloss @ images.detach().T, dim=-1)
        image_ids = torch.from_numpy(np.concatenate([photos, -1 - kinds]))
        text_ids = torch.cat([image_ids, torch.from_numpy(also)])
        pictures, class_scale = torch.cat([photo, drawing]), heads.class_scale()
        opinion = torch.cat([taught.opinions["train"][photos], taught.opinions["tiny"][tiny]])
        losses = {
            "pairs": info_nce(pictures, caption, heads.pair_scale(), image_ids, text_ids),
            "classes": soft_cross_entropy(
                class_scale * torch.cat([photo, named]) @ label.T, opinion
            ),
            "synthetic": soft_cross_entropy(class_scale * made_row @ label.T, made_opinion),
            "glosses": 1 - (term * gloss).sum(-1).mean(),
            "finds": soft_cross_entropy(20.0 * term @ images.detach().T, found),
        }
        optimizer.zero_grad(set_to_none=True)
        config.weighted(losses).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        cycle.step()
        average.update(heads, step)
        log.add(losses)
    log.line(heads=config.heads_steps, seed=config.seed)
    heads.load_state_dict(average.values)
    heads.eval()
