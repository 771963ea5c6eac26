"""Every default of the recipe, in one place."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from torch import Tensor


@dataclass(frozen=True, slots=True)
class BuiltinConfig:
    """The built-in model's numbers. Weights of losses end in ``_weight``; that of pairs is 1."""

    seed: int = 2
    threads: int = 2
    size: int = 192  # pixels: a third quicker than the teacher's 224, and trained at that size
    # what the text tower reads
    vocabulary: int = 22_000
    max_tokens: int = 64
    corpus_captions: int = 20_000
    corpus_sounds: int = 10_000
    corpus_words: int = 6_000
    dictionary: int = 20_000  # Chinese words with an English gloss
    # two heads on features, where the towers start from
    hidden: int = 512
    image_dropout: float = 0.3
    text_dropout: float = 0.1
    heads_runs: int = 1  # from the same start; their weights are averaged
    heads_steps: int = 300
    heads_batch: int = 768
    heads_drawn: int = 22
    heads_chinese: int = 256
    heads_glosses: int = 64
    heads_learning_rate: float = 1e-3
    heads_weight_decay: float = 0.2
    heads_average_decay: float = 0.97
    # both towers, end to end
    frozen: int = 5  # of the backbone's 19 layers: simple filters, which 6,000 photos cannot better
    views: int = 10
    drawings: int = 40  # of each kind
    epochs: int = 16
    batch: int = 128
    memory: int = 2048  # rows of earlier batches that serve as further negatives
    tiny_batch: int = 32
    drawn_batch: int = 16
    chinese_batch: int = 64
    dictionary_batch: int = 40
    names_batch: int = 24
    free_batch: int = 32
    glosses_batch: int = 16
    backbone_learning_rate: float = 2e-4
    text_learning_rate: float = 5e-5
    tokens_learning_rate: float = 3e-4
    head_learning_rate: float = 5e-4
    average_decay: float = 0.995
    clip: float = 5.0
    classes_weight: float = 0.5
    synthetic_weight: float = 0.5
    keep_weight: float = 0.2
    teacher_weight: float = 2.0
    glosses_weight: float = 0.5
    finds_weight: float = 0.5
    # sounds
    sound_steps: int = 800
    sound_batch: int = 128
    sound_dropout: float = 0.3
    sound_learning_rate: float = 3e-3
    opinions_weight: float = 0.05
    pictures_weight: float = 0.1

    def polished(self) -> BuiltinConfig:
        """The second run: shorter and gentler, with less dropout, and classes weigh more."""
        return replace(
            self,
            seed=self.seed + 1,
            epochs=5,
            image_dropout=0.1,
            text_dropout=0.05,
            backbone_learning_rate=1.5e-4,
            text_learning_rate=4e-5,
            tokens_learning_rate=1e-4,
            head_learning_rate=3e-4,
            keep_weight=0.5,
            classes_weight=0.75,
        )

    def refitted(self) -> BuiltinConfig:
        """The heads once more: captions weigh three times as much beside the other losses."""
        return replace(
            self,
            seed=self.seed + 2,
            heads_runs=3,
            heads_chinese=384,
            heads_steps=150,
            heads_learning_rate=1.6e-3,
            heads_weight_decay=0.1,
            classes_weight=0.5 / 3,
            synthetic_weight=0.5 / 3,
            glosses_weight=2.0 / 3,
            finds_weight=0.5 / 3,
        )

    def weighted(self, losses: dict[str, Tensor]) -> Tensor:
        """The sum of losses, each times its weight."""
        weights = {k.removesuffix("_weight"): v for k, v in asdict(self).items()}
        total = losses["pairs"]
        for name, loss in losses.items():
            if name != "pairs":
                total = total + weights[name] * loss
        return total
