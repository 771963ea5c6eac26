"""What the towers are trained on: nothing meant for measuring; drawings of their kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmsearch.training import drawn, pairs

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(
    not DATA.exists(), reason="the training data is not beside the repository"
)


def test_squash_gives_a_square_whatever_came():
    """Any mode and shape becomes 224 x 224 RGB; a square of that size stays as it was."""
    wide = Image.new("L", (500, 100), 7)
    assert (pairs.squash(wide) == np.full((224, 224, 3), 7)).all()
    exact = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    assert (pairs.squash(Image.fromarray(exact)) == exact).all()


def test_plain_knows_a_sentence_in_other_clothes():
    """Case and punctuation do not make another sentence."""
    assert pairs.plain("A dog 's  Ball .") == pairs.plain("a dog's ball")


def test_every_gloss_is_a_term_and_what_it_looks_like():
    """Lines of 'term: gloss', none twice."""
    lines = pairs.glosses()
    assert len(set(lines)) == len(lines)
    for line in lines:
        term, gloss = line.split(": ")
        assert term and len(gloss.split()) >= 2


def test_a_term_gets_the_article_that_fits():
    """Both 'a dog' and 'an astronaut' are what people type."""
    assert pairs.named("a photo of a {}", "astronaut") == "a photo of an astronaut"
    assert pairs.named("a {}", "dog") == "a dog"
    assert pairs.named("{}", "extra") == "extra"


def test_drawings_are_pictures_of_their_kind_in_order():
    """So many of each kind, the same for the same seed, and none like another."""
    first = drawn.drawings(2, ["dog", "house", "water"], seed=3)
    again = drawn.drawings(2, ["dog", "house", "water"], seed=3)
    assert len(first) == 2 * len(drawn.KINDS)
    assert all(picture.shape == (224, 224, 3) for picture in first)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert len({picture.tobytes() for picture in first}) == len(first)


@needs_data
def test_the_splits_of_flickr8k_share_no_photo():
    """Official lists of 6,000, 1,000 and 1,000 photos with five captions each."""
    splits = [pairs.flickr8k(DATA, split) for split in ("train", "dev", "test")]
    assert [len(photos) for photos in splits] == [6000, 1000, 1000]
    assert len({photo.path for photos in splits for photo in photos}) == 8000
    assert {len(photo.captions) for photos in splits for photo in photos} == {5}


@needs_data
def test_no_caption_for_measuring_is_trained_on():
    """Captions of dev and test photos are left out even where they stand in another file."""
    lines = list(pairs.sentences(DATA, "images.en"))
    kept = pairs.unmeasured(DATA, [*lines, "A sentence that nobody wrote below a photo ."])
    assert kept[-1] == "A sentence that nobody wrote below a photo ."
    assert len(lines) - len(kept) + 1 == sum(
        pairs.plain(line) in pairs.measured_captions(DATA) for line in lines
    )
    spoilt = [pairs.flickr8k(DATA, split)[3].captions[2].upper() for split in ("dev", "test")]
    assert pairs.unmeasured(DATA, spoilt) == []


@needs_data
def test_chinese_captions_belong_to_their_photos():
    """Five of each photo, in the order of the photos; none stands below two splits' photos."""
    train, test = (pairs.flickr8k_chinese(DATA, split) for split in ("train", "test"))
    assert {len(captions) for captions in (*train, *test)} == {5}
    first = pairs.flickr8k(DATA, "train")[0].path.name
    text = (DATA / "flickr8k" / "Flickr8k-CN.zhc.txt").read_text(encoding="utf-8")
    assert all(f"{first}#zhc#{i} {caption}\n" in text for i, caption in enumerate(train[0]))


@needs_data
def test_held_out_photos_of_tiny_imagenet_are_not_trained_on():
    """No picture stands on both sides, and both know the same classes."""
    held, trained = (pairs.tiny_imagenet(DATA, held_out=flag) for flag in (True, False))
    assert not {photo.data for photo in held} & {photo.data for photo in trained}
    assert {photo.label for photo in held} == {photo.label for photo in trained}
