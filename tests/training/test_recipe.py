"""The recipe of the built-in model: what can be worked out by hand of it."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra 'train' is not installed")
pytest.importorskip("onnx", reason="the extra 'train' is not installed")

from torch.nn import functional  # noqa: E402

from mmsearch.training.drawn import KINDS  # noqa: E402
from mmsearch.training.recipe import heads  # noqa: E402
from mmsearch.training.recipe.config import BuiltinConfig  # noqa: E402
from mmsearch.training.recipe.loop import Average, one_cycle, save  # noqa: E402
from mmsearch.training.recipe.photos import kept, kinds_of, run_tower, squashed, view  # noqa: E402
from mmsearch.training.recipe.sentences import like_lengths  # noqa: E402
from mmsearch.training.recipe.sounds import Heard, train_sound_head  # noqa: E402
from mmsearch.training.recipe.texts import padded, small_tokenizer  # noqa: E402
from mmsearch.training.recipe.towers import Memory, Towers, pushed  # noqa: E402
from mmsearch.training.towers import (  # noqa: E402
    FEATURES,
    Head,
    LogitScale,
    MobileNetV2,
    TextTower,
)


def test_losses_are_weighted_by_name():
    """That of pairs counts once, every other as the configuration says."""
    config = BuiltinConfig(keep_weight=0.25, teacher_weight=2.0)
    losses = {name: torch.tensor(value) for name, value in (("pairs", 1.0), ("keep", 4.0))}
    assert config.weighted(losses).item() == 2.0
    assert config.weighted(losses | {"teacher": torch.tensor(0.5)}).item() == 3.0


def test_batches_of_like_length_hold_every_row_once():
    """Positions come shortest first, and none is lost or doubled."""
    tokens = [np.zeros(n, np.int32) for n in (9, 2, 5, 7, 3, 1, 8)]
    rows = np.array([0, 1, 2, 3, 4, 5, 6, 0])
    parts = list(like_lengths(tokens, rows, 3))
    assert sorted(np.concatenate(parts).tolist()) == list(range(8))
    lengths = [len(tokens[rows[place]]) for part in parts for place in part]
    assert lengths == sorted(lengths)


def test_texts_come_back_in_the_order_they_were_asked_for():
    """Encoding in batches of like length changes no row's place."""
    torch.manual_seed(0)
    towers = Towers(BuiltinConfig(), TextTower(30, 1, width=24, heads=2, inner=32)).eval()

    class Said:
        tokens: ClassVar = [np.arange(1, n + 1, dtype=np.int32) for n in (6, 2, 9, 4)]

    rows = np.array([2, 0, 3, 1, 2])
    with torch.no_grad():
        together = towers.sentences(Said(), rows, pieces=2)
        for row, place in zip(rows, together, strict=True):
            (alone,) = towers.text.sentence(*padded([Said.tokens[row]]))
            assert functional.cosine_similarity(alone, place, dim=0) > 0.999  # bfloat16
        banked = towers.bank(Said(), rows)
    assert functional.cosine_similarity(banked, together).min() > 0.999


def test_the_memory_holds_the_newest_rows():
    """Oldest rows go first, and what is remembered has no gradient."""
    memory = Memory(3)
    rows, ids = memory.beside(torch.ones(1, 2), torch.tensor([7]))
    assert rows.shape == (1, 2) and ids.tolist() == [7]
    memory.add(torch.full((2, 2), 1.0, requires_grad=True), torch.tensor([1, 2]))
    memory.add(torch.full((2, 2), 3.0), torch.tensor([3, 4]))
    rows, ids = memory.beside(torch.zeros(1, 2), torch.tensor([9]))
    assert ids.tolist() == [9, 3, 4, 1]
    assert rows[:, 0].tolist() == [0, 3, 3, 1] and not rows.requires_grad


def test_pushed_features_are_of_the_class_they_were_pushed_toward():
    """The teacher names most of them so, and its opinion is a distribution."""
    generator = np.random.default_rng(0)
    weight = torch.from_numpy(generator.normal(size=(50, FEATURES)).astype(np.float32)) * 0.1
    base = torch.rand(4, FEATURES)
    made, opinion = pushed(base, weight, torch.zeros(50), 200, generator)
    assert made.shape == (200, FEATURES) and (made >= 0).all()
    assert torch.allclose(opinion.sum(1), torch.ones(200), atol=1e-5)
    assert len(opinion.argmax(1).unique()) > 40


def test_drawings_know_their_kind():
    """As many of each kind, one kind after another."""
    count = 2 * len(KINDS)
    assert kinds_of(np.arange(count), count).tolist() == [i // 2 for i in range(count)]


def test_a_view_is_part_of_its_photo_and_the_same_for_the_same_seed():
    """Of one colour it stays of one colour, up to the change of light, and is square."""
    photo = np.full((64, 64, 3), 100, np.uint8)
    first, again = (view(photo, 32, np.random.default_rng(5)) for _ in range(2))
    assert first.shape == (32, 32, 3) and (first == again).all()
    assert np.ptp(first, axis=(0, 1)).max() == 0
    assert 70 <= first.min() <= first.max() <= 130


def test_features_of_a_run_tower_are_the_networks_own():
    """ONNX Runtime in a call a core gives what torch gives, in the order of the photos."""
    torch.manual_seed(0)
    network = MobileNetV2().eval()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 40, 40, 3), dtype=np.uint8)
    found = run_tower(network, pixels, lambda row: squashed(pixels[row], 32), size=32, batch=2)
    x = torch.from_numpy(np.stack([squashed(photo, 32) for photo in pixels]))
    with torch.no_grad():
        expected = network(x.permute(0, 3, 1, 2).float()).numpy()
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.02)  # weights are half floats


def test_an_array_is_worked_out_once(tmp_path):
    """The second time it comes from the file, and a half-written one is no file."""
    path = tmp_path / "rows.npy"
    made = kept(path, lambda: np.arange(3))
    assert made.tolist() == [0, 1, 2] and not list(tmp_path.glob("*.part.npy"))
    assert kept(path, lambda: np.zeros(9)).tolist() == [0, 1, 2]


def test_the_average_forgets_its_start_and_then_moves_slowly(tmp_path):
    """Weights (1 + step) / (10 + step), at most the decay."""
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(module.weight, 0.0)
    average = Average(module, 0.5)
    torch.nn.init.constant_(module.weight, 1.0)
    average.update(module, 0)
    assert average.values["weight"].item() == pytest.approx(0.9)
    average.update(module, 1000)
    assert average.values["weight"].item() == pytest.approx(0.95)
    save(tmp_path / "state.pt", average=average.values)
    assert torch.load(tmp_path / "state.pt")["average"]["weight"].item() == pytest.approx(0.95)


def test_the_rate_rises_and_falls_to_nothing():
    """A tenth of the steps up to the peak, the rest down."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer, cycle = one_cycle([{"params": [parameter], "lr": 1.0}], 100)
    rates = []
    for _ in range(100):
        rates.append(cycle.get_last_lr()[0])
        optimizer.step()
        cycle.step()
    assert int(np.argmax(rates)) in (9, 10) and max(rates) == pytest.approx(1.0, abs=0.02)
    assert rates[-1] < 0.001


def test_a_small_tokenizer_spells_and_keeps_what_it_is_given():
    """Useful tokens of the teacher's with their ids there, then the characters it never saw."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    letters = [f"{mark}{letter}" for letter in "abdgo" for mark in ("", "##")]
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, "dog", "bad", "good"]
    teacher = Tokenizer(
        models.WordPiece({token: i for i, token in enumerate(known)}, unk_token="[UNK]")
    )
    teacher.pre_tokenizer = pre_tokenizers.Whitespace()
    small, ids = small_tokenizer(teacher, ["dog dog", "dog bad"], 17, 8, more="狗好")
    assert small.get_vocab_size() == len(ids) == 17
    encoded = small.encode("dog 狗 goad")
    assert encoded.tokens == ["[CLS]", "dog", "狗", "g", "##o", "##a", "##d", "[SEP]"]
    assert ids[encoded.ids[1]] == known.index("dog") and ids[encoded.ids[2]] == 1  # [UNK]


def test_the_sound_head_learns_what_it_hears_and_not_the_fold_it_must_not():
    """Two classes that the features tell apart; in the fold left out the labels are swapped."""
    generator = np.random.default_rng(0)
    labels = np.tile([0, 1], 40)
    folds = np.repeat([1, 2, 3, 4], 20)
    features = torch.from_numpy(generator.random((80, 2048)).astype(np.float32))
    features[labels == 1, :1024] += 1.0
    rows = functional.normalize(
        torch.from_numpy(generator.normal(size=(12, 1, 256)).astype(np.float32)), dim=-1
    )
    heard = Heard(
        features=features,
        folds=folds,
        labels=np.where(folds == 4, 1 - labels, labels),
        names=rows[:2],
        audioset=rows[2:],
        photos=rows[:2, 0],
        shows=torch.eye(2).bool(),
        weight=torch.zeros(10, 1024),
        bias=torch.zeros(10),
    )
    config = BuiltinConfig(sound_steps=40, sound_batch=32, hidden=16)
    _, head = train_sound_head(config, heard, exclude_fold=4)
    first = (head(features) @ rows[:2, 0].T).argmax(1).numpy()
    assert (first == labels).mean() > 0.95


def test_the_heads_learn_what_belongs_together():
    """Photos find their captions in both languages, and a photo the name that its teacher gives."""
    generator = np.random.default_rng(0)

    def features(n, width):
        return torch.from_numpy(generator.normal(size=(n, width)).astype(np.float32))

    photos, tiny, drawn, classes = 16, 8, len(KINDS), 5
    rows = np.arange(100).reshape(-1, 1)  # of sentences: one of each photo, then of each class, ...

    class Said:
        def __init__(self):
            self.of_photo, self.of_photo_chinese = list(rows[:photos]), list(rows[16:32])
            self.of_class = [np.array([0, 32 + i, 37 + i]) for i in range(classes)]
            self.of_kind = list(rows[45 : 45 + drawn])
            self.terms, self.glosses = rows[60:66], rows[66:72, 0]

        def draw(self, groups, generator):
            return np.array([group[generator.integers(len(group))] for group in groups])

    plain, weight = features(photos, 24), features(classes, 24)
    taught = heads.Material(
        photos={
            "train": [plain, plain],
            "tiny": [features(tiny, 24)],
            "drawn": [features(drawn, 24)],
        },
        opinions={
            "train": torch.eye(classes)[rows[:photos, 0] % classes],
            "tiny": torch.full((tiny, classes), 0.2),
        },
        sentences=features(100, 12),
        classifier=(weight, torch.zeros(classes)),
    )
    both = heads.Heads(Head(24, 16), Head(12, 16), LogitScale(20.0), LogitScale(20.0))
    config = BuiltinConfig(
        heads_steps=200, heads_batch=16, heads_drawn=4, heads_chinese=8, heads_glosses=4,
        heads_learning_rate=1e-2, synthetic_weight=0.1, finds_weight=0.0,
        image_dropout=0.0, text_dropout=0.0,
    )  # fmt: skip
    heads.fit(config, Said(), both, taught)
    with torch.no_grad():
        seen, read = both.image(plain), both.text(taught.sentences)
    for first in (0, 16):
        assert ((seen @ read[first : first + photos].T).argmax(1) == torch.arange(photos)).all()
    assert ((seen @ read[37:42].T).argmax(1) == torch.arange(photos) % classes).all()
