"""Hubness: constants against a slow loop, and what a library keeps of them."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from conftest import colour_row

import mmsearch
from mmsearch import backgrounds, hubness
from mmsearch.catalog import Catalog
from mmsearch.records import Kind
from mmsearch.relevance import SENTENCES
from mmsearch.space import Space
from mmsearch.vectors.matrix import hash_file, open_matrix


def rows(count: int, seed: int) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_constants_against_a_slow_loop(monkeypatch):
    """A share of the mean of the highest scores against the bank, whatever the blocks."""
    monkeypatch.setattr(hubness, "_BLOCK", 7)
    items, bank = rows(30, 0), rows(40, 1)
    expected = []
    for item in items:
        scores = sorted((float(item @ query) for query in bank), reverse=True)
        expected.append(0.2 * sum(scores[:8]) / 8)
    assert hubness.constants(items, bank) == pytest.approx(expected, abs=1e-6)


def test_a_bank_smaller_than_its_neighbourhood():
    """The mean of what there is."""
    items, bank = rows(3, 0), rows(2, 1)
    assert hubness.constants(items, bank) == pytest.approx(0.2 * (items @ bank.T).mean(1), abs=1e-6)


def test_the_bank_is_sentences_and_moved_pictures():
    """Pictures go half the way between the means, and are unit rows again."""
    sentences, pictures = rows(5, 2), rows(4, 3)
    found = hubness.bank(sentences, pictures)
    assert np.array_equal(found[:5], sentences)
    for one, moved in zip(pictures, found[5:], strict=True):
        there = one + (sentences.mean(0) - pictures.mean(0)) / 2
        assert moved == pytest.approx(there / np.linalg.norm(there), abs=1e-6)


def test_a_bank_without_pictures():
    """Nothing but the sentences."""
    sentences = rows(5, 2)
    assert np.array_equal(hubness.bank(sentences, rows(0, 0)), sentences)


def test_identical_items_have_equal_constants():
    """And finite ones."""
    items = np.repeat(rows(1, 4), 5, axis=0)
    found = hubness.constants(items, hubness.bank(rows(3, 5), items))
    assert np.isfinite(found).all()
    assert len(set(found.tolist())) == 1


@pytest.fixture
def kept(library, photos, encoder, tmp_path):
    """A function: index, and what the catalog then keeps, (vector id, constant) by id."""
    np.save(tmp_path / SENTENCES, np.eye(3, dtype=np.float16))
    encoder.folder = tmp_path

    def index() -> list[tuple[int, float]]:
        library.index(photos)
        with Catalog.open(library.folder / "library.db") as catalog:
            query = "SELECT vector_id, hubness FROM backgrounds ORDER BY vector_id"
            return [tuple(row) for row in catalog._connection.exec_driver_sql(query)]

    return index


def oracle(names: list[str]) -> np.ndarray:
    """The constants of pictures of these colours, all of them at once."""
    items = np.stack([colour_row(name) for name in names]).astype(np.float16).astype(np.float32)
    found = hubness.constants(items, hubness.bank(np.eye(3, dtype=np.float32), items))
    return found - found.mean()


def test_every_picture_has_its_constant(kept, photos):
    """Centred over the library's pictures; texts have none."""
    names = ["red", "green", "blue", "yellow"]
    for name in names:
        photos.paint(f"{name}.png", name)
    (photos.folder / "words.txt").write_text("red")
    found = sorted(constant for _, constant in kept())
    assert found == pytest.approx(sorted(oracle(names)), abs=1e-3)


def test_few_new_pictures_leave_the_others_alone(kept, photos, monkeypatch):
    """And many have all constants worked out anew."""
    names = ["red", "green", "blue", "yellow", "cyan", "magenta"]
    for name in names:
        photos.paint(f"{name}.png", name)
    first = kept()
    photos.paint("orange.png", "orange")
    second = kept()
    assert second[:6] == first
    assert len(second) == 7
    monkeypatch.setattr(backgrounds, "GROWN", 0.1)
    photos.paint("white.png", "white")
    third = kept()
    assert third[:6] != first
    assert sorted(constant for _, constant in third) == pytest.approx(
        sorted(oracle([*names, "orange", "white"])), abs=1e-3
    )


def test_no_bank_no_constants(library, photos, encoder):
    """An encoder without sentences to compare with corrects nothing."""
    photos.paint("red.png", "red")
    library.index(photos)
    with Catalog.open(library.folder / "library.db") as catalog:
        ids, without = catalog.pictures(1)
    assert len(ids) == 1
    assert np.array_equal(ids, without)


def hubness_read(folder) -> dict[int, float]:
    """The constants of pictures that a query works with, by vector id."""
    with mmsearch.open_library(folder) as library, library._access.reading() as (_, spaces):
        (one,) = spaces.opened
        group = one.space.groups()[Kind.IMAGE]
        assert one.space.problem is None
        return dict(zip(group.ids.tolist(), group._hubness.tolist(), strict=True))


@pytest.mark.parametrize("moment", ["before the cache", "before the cache is recorded"])
def test_row_1_killed_between_hubness_and_its_cache(
    kept, library, photos, tmp_path, monkeypatch, moment
):
    """Row 1: new constants are committed, the cache still holds the old ones: nobody reads those,
    and the next run, which finds nothing new, writes the cache that an undisturbed one would have.
    """
    names = ["red", "green", "blue", "yellow", "cyan", "magenta"]
    for name in names[:3]:
        photos.paint(f"{name}.png", name)
    first = kept()
    for name in names[3:]:
        photos.paint(f"{name}.png", name)
    killed = tmp_path / "killed"

    def kill() -> None:  # what a kill -9 in this moment leaves on the disk
        if not killed.exists():
            shutil.copytree(library.folder, killed)

    owner, name = (Space, "write_cache") if moment == "before the cache" else (Catalog, "put_cache")
    really = getattr(owner, name)
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, lambda *given, **more: kill() or really(*given, **more))
        undisturbed = dict(kept())
    assert len(undisturbed) == 6
    assert [undisturbed[id] for id, _ in first] != [constant for _, constant in first]
    assert hubness_read(killed) == pytest.approx(undisturbed)
    with mmsearch.open_library(killed, workers=1) as again:
        assert again.check() == []
        asked = [(hit.path, hit.score) for hit in again.query("red", all=True)]
        assert asked == [(hit.path, hit.score) for hit in library.query("red", all=True)]
        report = again.index(photos)
        assert (report.unchanged, report.added) == (6, 0)
        assert again.check() == []
    with Catalog.open(killed / "library.db") as catalog:
        record = catalog.cache(1)
        matrix = open_matrix(str(killed / "cache" / record["file"]))
        assert hash_file(matrix.path) == record["sha256"]
    stored = dict(zip(matrix.rows.ids.tolist(), matrix.rows.hubness.tolist(), strict=True))
    assert stored == pytest.approx(undisturbed)
    assert hubness_read(killed) == pytest.approx(undisturbed)
