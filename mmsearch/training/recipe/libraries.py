"""A fixed list of libraries, with and without what is asked for: to say how sure an answer is.

Every query is put twice to a library drawn for it: once with what it asks for, once with all of
that taken out. What there is to find is known from labels that no model made: classes of photos
and of sounds, words that people used of a photo, and clusters of photos by all that was said of
them. The libraries that the calibrator is fitted to and those it is measured on share no photo, no
class, no sound and no caption.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmsearch import hubness
from mmsearch.encoders.builtin import Builtin
from mmsearch.records import Modality
from mmsearch.training import esc50, pairs
from mmsearch.training.recipe.anything import sentences
from mmsearch.training.recipe.photos import kept
from mmsearch.training.recipe.sentences import SOUND_TEMPLATES

Floats = npt.NDArray[np.float32]
Booleans = npt.NDArray[np.bool_]
IMAGE, AUDIO, TEXT = Modality.IMAGE, Modality.AUDIO, Modality.TEXT

_PHOTOS = 40  # of each class of tiny-ImageNet: ten that are held out, thirty that none was shown
_SENTENCE = "a photo of a {}"
_WAYS = ("{}", _SENTENCE, "a picture of the {}")

# Words that are said of too many things, or of none.
_COMMON = frozenset(
    [
        "with",
        "while",
        "from",
        "into",
        "through",
        "near",
        "over",
        "another",
        "other",
        "others",
        "their",
        "several",
        "standing",
        "front",
        "background",
        "looking",
        "wearing",
        "holding",
        "next",
        "some",
        "three",
        "four",
        "small",
        "large",
        "young",
        "black",
        "white",
        "blue",
        "green",
        "yellow",
        "brown",
        "orange",
        "pink",
        "purple",
        "gray",
        "grey",
        "people",
        "person",
        "something",
        "someone",
        "that",
        "this",
        "they",
        "them",
        "very",
        "behind",
        "along",
        "around",
        "between",
        "under",
        "down",
        "onto",
        "away",
        "outside",
        "inside",
        "side",
        "towards",
        "toward",
        "across",
        "about",
        "against",
        "after",
        "also",
        "another",
        "both",
        "each",
        "being",
        "have",
        "has",
        "had",
        "its",
        "his",
        "her",
        "one",
        "two",
        "who",
        "what",
        "which",
        "where",
        "there",
        "dark",
        "light",
        "bright",
        "colored",
        "tall",
        "long",
        "older",
        "little",
        "middle",
        "left",
        "right",
        "back",
        "camera",
        "picture",
        "photo",
        "seen",
        "are",
        "and",
        "the",
        "for",
        "out",
        "off",
    ]
)


@dataclass(frozen=True, slots=True)
class Trials:
    """Queries and the libraries they are put to.

    scores: (q, n) inner products of each query with all items there could be. hubs: (n,) what
    hubness takes off. there: (q, n) what each query asks for. kept: (q, n) the library drawn for
    it. absent: the queries ask for what no library has, so that they are put but once.
    """

    name: str
    asked: Modality
    found: Modality
    queries: Floats
    items: Floats
    scores: Floats
    hubs: Floats
    there: Booleans
    kept: Booleans

    def libraries(self) -> Iterator[tuple[int, Booleans, bool]]:
        """Each query (its row), a library (n,) it is put to, whether what it asks is there.

        Both libraries of a query are of one size: that which has what is asked for is without as
        many other items, so that nothing but the items can tell them apart.
        """
        generator = np.random.default_rng(0)
        for row, (these, there) in enumerate(zip(self.kept, self.there, strict=True)):
            without = these & ~there
            count = int((these & there).sum())
            if count:
                fewer = these.copy()
                fewer[generator.permutation(np.flatnonzero(without))[:count]] = False
                yield row, fewer, True
            yield row, without, False


class Rows:
    """Unit rows of everything that is used here, worked out once for an encoder's weights."""

    def __init__(self, encoder: Builtin, data: Path, work: Path) -> None:
        self.encoder, self.data = encoder, data
        self._work = work
        work.mkdir(parents=True, exist_ok=True)

    def named(self, name: str, make: Callable[[], Floats]) -> Floats:
        """Rows by name; `make` works them out the first time."""
        path = self._work / f"{name}_{self.encoder.fingerprint[:12]}.npy"
        return np.asarray(kept(path, make), np.float32)

    @property
    def sentences(self) -> Floats:
        """(s, dim): those of mmsearch's bank of reference queries."""
        return self.texts("bank", sentences())

    def texts(self, name: str, texts: Sequence[str]) -> Floats:
        """(n, dim) of n texts; the short ones are encoded together, so that little is padded."""

        def encode() -> Floats:
            order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
            rows = np.empty((len(texts), self.encoder.dim), np.float32)
            rows[order] = self.encoder.encode(TEXT, [texts[at] for at in order])
            return rows

        said = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:8]
        return self.named(f"{name}-{said}", encode)

    def pictures(self, name: str, pictures: Callable[[], Iterator[bytes | Path]]) -> Floats:
        """(n, dim) of pictures, as files or as what is in them."""

        def encode() -> Floats:
            size, rows, batch = self.encoder.image_input.size, [], []
            for source in pictures():
                with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as it:
                    batch.append(pairs.squash(it, size))
                if len(batch) == 64:
                    rows.append(self.encoder.encode(IMAGE, batch))
                    batch = []
            return np.concatenate([*rows, self.encoder.encode(IMAGE, batch)])

        return self.named(name, encode)


# -- what there is -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Photos:
    """Captioned photos: rows (n, dim), five captions each with rows (n, 5, dim), one in Chinese
    (n, dim) where there is one; words: what each is said to show; clusters: (n,)."""

    rows: Floats
    captions: Floats
    chinese: Floats | None
    words: list[set[str]]
    nouns: set[str]
    clusters: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Named:
    """Things of classes: rows (n, dim), classes (n,), and the rows of names (classes, dim) of the
    classes that any of them has, by `known`."""

    rows: Floats
    classes: npt.NDArray[np.int64]
    known: npt.NDArray[np.int64]
    names: Floats


def captioned(rows: Rows, name: str) -> Photos:
    """The photos of Flickr8k "dev" or "test", or of "coco"."""
    chinese = None
    if name == "coco":
        folder = rows.data / "coco_free"
        lines = (folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()
        entries = [json.loads(line) for line in lines]
        paths = [folder / "images" / entry["file"] for entry in entries]
        said = [entry["captions"][:5] for entry in entries]
    else:
        photos = pairs.flickr8k(rows.data, name)
        paths, said = [photo.path for photo in photos], [list(photo.captions) for photo in photos]
        chinese = rows.texts(
            f"{name}_zh", [several[0] for several in pairs.flickr8k_chinese(rows.data, name)]
        )
    texts = rows.texts(f"{name}_en", [caption for several in said for caption in several])
    return Photos(
        rows.pictures(f"{name}_img", lambda: iter(paths)),
        texts.reshape(len(paths), 5, -1),
        chinese,
        [set(re.findall(r"[a-z]{3,}", " ".join(several).lower())) for several in said],
        _nouns(said),
        _clusters(said),
    )


def _nouns(said: Sequence[Sequence[str]]) -> set[str]:
    """Words that stand behind an article, before no other noun, a third of the time."""
    texts = " . ".join(caption.lower() for several in said for caption in several)
    every = Counter(re.findall(r"[a-z]{3,}", texts))
    ends = "is|are|in|on|with|and|of|at|to|while|running|standing|sitting|[.,]"
    behind = Counter(re.findall(rf"\b(?:a|an|the) ([a-z]{{3,}})(?= (?:{ends}))", texts))
    return {word for word, count in behind.items() if count >= max(3, every[word] / 3)}


def _clusters(said: Sequence[Sequence[str]]) -> npt.NDArray[np.int64]:
    """Photos by what was said of them, a cluster for some thirty photos: (n,)."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    words = TfidfVectorizer(stop_words="english", min_df=2, sublinear_tf=True)
    counts = words.fit_transform([" ".join(several) for several in said])
    narrow = TruncatedSVD(min(50, len(said) // 2), random_state=0).fit_transform(counts)
    clusters = KMeans(max(2, len(said) // 30), n_init=2, random_state=0)
    return np.asarray(clusters.fit_predict(normalize(narrow)), np.int64)


def tiny_imagenet(rows: Rows) -> tuple[Named, Floats]:
    """Forty photos of each class that no training saw, and the rows of all 1,000 classes' names."""
    names = pairs.class_names(rows.data)
    number = {", ".join(several): row for row, several in enumerate(names)}
    with zipfile.ZipFile(rows.data / "tiny_imagenet_20k.zip") as archive:
        members: dict[str, list[str]] = {}
        for member in sorted(archive.namelist()):
            if member.endswith(".JPEG"):
                members.setdefault(member.split("/")[1], []).append(member)
        lines = archive.read("tiny_imagenet_20k/classes.tsv").decode().splitlines()
        classes = [line.split("\t")[:2] for line in lines]
        chosen = {
            number[said]: members[wnid][:10] + members[wnid][50 : 40 + _PHOTOS]
            for wnid, said in classes
            if said in number
        }
        pictures = rows.pictures(
            "tiny_img",
            lambda: (archive.read(one) for several in chosen.values() for one in several),
        )
    texts = rows.texts("class_names", [pairs.named(_SENTENCE, several[0]) for several in names])
    known = np.array(list(chosen))
    return Named(pictures, np.repeat(known, _PHOTOS), known, texts[known]), texts


def sounds(rows: Rows) -> Named:
    """The clips of ESC-50, each through a head that was trained without its fold."""
    clips = esc50.clips(rows.data)
    categories = sorted({clip.category for clip in clips})
    texts = rows.texts("sound_names", [f"the sound of {esc50.spoken(name)}" for name in categories])
    classes = np.array([categories.index(clip.category) for clip in clips])
    return Named(rows.named("unseen_sounds", lambda: _unseen(rows)), classes, np.arange(50), texts)


def _unseen(rows: Rows) -> Floats:
    """Each clip through a head trained without its fold, for a quarter of the steps: near enough
    to the shipped one, which has heard them all."""
    from mmsearch.training.recipe.config import BuiltinConfig
    from mmsearch.training.recipe.export import hear
    from mmsearch.training.recipe.sounds import train_sound_head

    config = BuiltinConfig()
    config = replace(config, sound_steps=config.sound_steps // 4)
    heard = hear(rows.encoder, rows.data, rows._work)
    found = np.empty((len(heard.folds), rows.encoder.dim), np.float32)
    for fold in np.unique(heard.folds):
        _, head = train_sound_head(config, heard, exclude_fold=int(fold))
        found[heard.folds == fold] = head(heard.features[heard.folds == fold]).numpy()
    return found


# -- what is asked -----------------------------------------------------------------------------


def drawn(
    there: Booleans, groups: npt.NDArray[np.int64], others: int, each: int, seed: int
) -> Booleans:
    """(q, n): for each query at most `each` items of what it asks for, and of `others` groups."""
    generator = np.random.default_rng(seed)
    order = generator.random(there.shape)
    kept = np.zeros_like(there)
    every = np.unique(groups)
    for row, wanted in enumerate(there):
        chosen = generator.permutation(every)[:others]
        for members in (wanted, *(~wanted & (groups == group) for group in chosen)):
            at = np.flatnonzero(members)
            kept[row, at[np.argsort(order[row, at])[:each]]] = True
    return kept


def trials(
    name: str,
    rows: Rows,
    asked: tuple[Modality, Floats],
    found: tuple[Modality, Floats],
    there: Booleans,
    kept: Booleans,
) -> Trials:
    """Queries (q, dim) put to the libraries that were drawn of items (n, dim)."""
    kind, items = found
    hubs = np.zeros(len(items), np.float32)
    if (asked[0], kind) == (TEXT, IMAGE):
        some = np.random.default_rng(0).permutation(len(items))[: hubness.SAMPLE]
        hubs = hubness.constants(items, hubness.bank(rows.sentences, items[some]))
        hubs -= hubs.mean()
    return Trials(name, asked[0], kind, asked[1], items, asked[1] @ items.T, hubs, there, kept)


def fixed(rows: Rows, *, fitted: bool) -> list[Trials]:  # noqa: PLR0915 (it is a list)
    """The libraries that the calibrator is fitted to, or those that it is measured on."""
    seed = 0 if fitted else 1
    generator = np.random.default_rng(seed)
    photos = captioned(rows, "dev" if fitted else "test")
    tiny, every_name = tiny_imagenet(rows)
    clips = sounds(rows)
    half = np.flatnonzero(np.arange(len(tiny.known)) % 2 == seed)
    objects = np.isin(tiny.classes, tiny.known[half])
    things, classes = tiny.rows[objects], tiny.classes[objects]
    noises = np.flatnonzero(np.arange(len(clips.known)) % 2 == seed)
    heard = np.isin(clips.classes, noises)
    noise, kinds, calls = clips.rows[heard], clips.classes[heard], clips.names[noises]
    found: list[Trials] = []

    def add(name: str, asked: Modality, queries: Floats, kind: Modality, items: Floats,
            there: Booleans, kept: Booleans) -> None:  # fmt: skip
        found.append(trials(name, rows, (asked, queries), (kind, items), there, kept))

    # names of classes, among photos of other classes
    asked_for = tiny.known[half]  # three ways to ask for each, of a library of its own
    names = rows.texts(
        f"class_names_{seed}",
        [
            pairs.named(template, pairs.class_names(rows.data)[row][0])
            for template in _WAYS
            for row in asked_for
        ],
    )
    is_class = np.tile(asked_for, 3)[:, None] == classes[None]
    for others, each in ((20, 10), (50, 5), (99, 40)):
        add(f"classes, {others + 1} of {each}", TEXT, names, IMAGE, things,
            is_class, drawn(is_class, classes, others, each, seed))  # fmt: skip
    # the same, among photos of Flickr8k
    both = np.concatenate([things, photos.rows])
    there = np.concatenate([is_class, np.zeros((len(names), len(photos.rows)), bool)], axis=1)
    add("classes among scenes", TEXT, names, IMAGE, both, there,
        _or(drawn(is_class, classes, 15, 8, seed), len(photos.rows)))  # fmt: skip

    # words of captions, among photos of which nobody said them
    counts = Counter(word for said in photos.words for word in said - _COMMON)
    n = len(photos.rows)
    words = sorted(
        word for word, count in counts.items() if word in photos.nouns and 10 <= count <= 150
    )
    words = [words[at] for at in sorted(generator.permutation(len(words))[:250])]
    texts = rows.texts(f"words_{'dev' if fitted else 'test'}", words)
    says = np.array([[word in said for said in photos.words] for word in words])
    single = np.arange(n)
    add("words, 1,000 scenes", TEXT, texts, IMAGE, photos.rows, says, np.ones_like(says))
    add("words, 200 scenes", TEXT, texts, IMAGE, photos.rows, says,
        drawn(says, single // 10, 18, 10, seed))  # fmt: skip
    # and names of what is on none of them
    all_said = set().union(*photos.words)
    unsaid = [
        row for row, several in enumerate(pairs.class_names(rows.data))
        if not set(re.findall(r"[a-z]{3,}", " ".join(several).lower())) & all_said
    ][seed::2]  # fmt: skip
    absent = every_name[generator.permutation(unsaid)[:250]]
    nothing = np.zeros((len(absent), n), bool)
    add("names that nothing has", TEXT, np.concatenate([texts, absent]), IMAGE, photos.rows,
        np.concatenate([says, nothing]), np.ones((len(texts) + len(absent), n), bool))  # fmt: skip

    # captions, among photos with and without those of their subject
    one = generator.integers(0, 5, n)
    asked = np.arange(0, n, 1 if fitted else 2)
    captions = photos.captions[np.arange(n), one][asked]
    same = photos.clusters[asked][:, None] == photos.clusters[None]
    own = np.eye(n, dtype=bool)[asked]
    add("captions, 1,000 scenes", TEXT, captions, IMAGE, photos.rows, same, np.ones_like(same))
    add("captions, 120 scenes", TEXT, captions, IMAGE, photos.rows, same,
        drawn(same, photos.clusters, 11, 10, seed) | own)  # fmt: skip
    if photos.chinese is not None:
        add("Chinese captions", TEXT, photos.chinese[asked], IMAGE, photos.rows, same,
            drawn(same, photos.clusters, 29, 10, seed) | own)  # fmt: skip
    if not fitted:
        coco = captioned(rows, "coco")
        m = len(coco.rows)
        mine = np.repeat(np.eye(m, dtype=bool), 5, axis=0)
        add("captions, COCO", TEXT, coco.captions.reshape(5 * m, -1), IMAGE, coco.rows, mine,
            mine | (generator.random(mine.shape) < 0.5))  # fmt: skip

    # names of sounds
    is_noise = noises[:, None] == kinds[None]
    for others, each in ((24, 32), (12, 6)):
        twice = np.tile(is_noise, (4, 1)) if each < 32 else is_noise
        add(f"sounds, {others + 1} of {each}", TEXT, np.tile(calls, (len(twice) // len(calls), 1)),
            AUDIO, noise, twice, drawn(twice, kinds, others, each, seed))  # fmt: skip

    # by example: photos by photos, sounds by sounds
    some = generator.permutation(len(things))[:600]
    alike = classes[some][:, None] == classes[None]
    alike[np.arange(len(some)), some] = False
    kept = drawn(alike, classes, 50, 5, seed)
    kept[np.arange(len(some)), some] = False
    add("photos by a photo", IMAGE, things[some], IMAGE, things, alike, kept)
    some = generator.permutation(len(noise))[:600]
    alike = kinds[some][:, None] == kinds[None]
    alike[np.arange(len(some)), some] = False
    kept = drawn(alike, kinds, 15, 6, seed)
    kept[np.arange(len(some)), some] = False
    add("sounds by a sound", AUDIO, noise[some], AUDIO, noise, alike, kept)

    # photos by a sound, and the other way
    pictured = esc50.pictured(rows.data)
    categories = sorted({clip.category for clip in esc50.clips(rows.data)})
    shows = {categories.index(name): several for name, several in pictured.items()}
    loud = np.flatnonzero(np.isin(kinds, list(shows)))
    loud = generator.permutation(loud)[:200]
    seen = np.stack([np.isin(classes, shows[kinds[at]]) for at in loud])
    add("photos by a sound", AUDIO, noise[loud], IMAGE, things, seen,
        drawn(seen, classes, 60, 5, seed))  # fmt: skip
    silent = np.flatnonzero(seen.any(axis=0))
    silent = generator.permutation(silent)[:200]
    audible = np.array([[classes[at] in shows.get(kind, ()) for kind in kinds]
                        for at in silent])  # fmt: skip
    add("sounds by a photo", IMAGE, things[silent], AUDIO, noise, audible,
        drawn(audible, kinds, 15, 6, seed))  # fmt: skip

    # passages of text, by a caption and by a photo
    passages = photos.captions[np.arange(n), (one + 1) % 5]
    add("texts by a caption", TEXT, captions, TEXT, passages, same,
        drawn(same, photos.clusters, 29, 10, seed) | own)  # fmt: skip
    add("texts by a photo", IMAGE, photos.rows[asked], TEXT, passages, same,
        drawn(same, photos.clusters, 29, 10, seed) | own)  # fmt: skip

    # texts by a sound: the names of all sounds, among captions
    some = generator.permutation(len(noise))[:200]
    names = rows.texts(
        f"sound_texts_{seed}",
        [way.format(esc50.spoken(categories[kind])) for kind in noises for way in SOUND_TEMPLATES],
    )
    said = np.concatenate([names, passages[: n // 3]])
    of = np.concatenate([np.repeat(noises, len(SOUND_TEMPLATES)), -1 - np.arange(n // 3)])
    named = kinds[some][:, None] == of[None]
    add("texts by a sound", AUDIO, noise[some], TEXT, said, named,
        drawn(named, of, 150, 4, seed))  # fmt: skip
    return found


def _or(kept: Booleans, more: int) -> Booleans:
    """The same, with further items that are in every library."""
    return np.concatenate([kept, np.ones((len(kept), more), bool)], axis=1)
