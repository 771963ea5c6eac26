"""What each update of a run sees: which pairs, which of their captions, and in which view.

Every draw comes from (seed, epoch, file), never from what was drawn before: an interrupted run
that goes on at update n, or one that is spread over several processes, sees the same.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.datasets.pairs import Pair
from mmsearch.errors import LoadError, TrainingError
from mmsearch.loaders import load_image
from mmsearch.loaders.sounds import windows
from mmsearch.records import AudioInput, ImageInput, Modality, Reason
from mmsearch.training import augment

if TYPE_CHECKING:
    from mmsearch.training.config import TrainConfig

_MEGAPIXELS = 64.0  # decoded pixels of one picture, as in indexing
_WINDOWS = 12  # of a long sound, those that training draws from
_MARGIN = 8 / 7  # pictures are decoded larger than the model wants them, to be cropped


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a model wants its pictures and its sounds; None: it has no such tower."""

    image: ImageInput | None
    audio: AudioInput | None


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of a batch. Samples of equal `id` belong together: none is the other's negative."""

    row: int  # of the pairs
    modality: Modality
    caption: str
    id: int


def decode(pair: Pair, data: bytes, wanted: Wanted) -> Any:
    """A picture as the model wants it, or the first window of a sound. Raises LoadError."""
    if pair.modality is Modality.IMAGE and wanted.image:
        return load_image(data, wanted.image, max_megapixels=_MEGAPIXELS).pixels
    if pair.modality is Modality.AUDIO and wanted.audio:
        first, *_ = _stretches(data, wanted.audio)
        return first
    raise LoadError(Reason.UNSUPPORTED, f"the model has no tower for {pair.modality}")


def load(pair: Pair, wanted: Wanted) -> Any:
    """`decode` of a file that was read before. Raises TrainingError when it cannot be any more."""
    try:
        return decode(pair, pair.read(), wanted)
    except LoadError as error:
        raise _changed(pair, error) from error


def _changed(pair: Pair, error: LoadError) -> TrainingError:
    return TrainingError(f"{pair.name} could be read when the run began, not any more: {error}")


def _stretches(data: bytes, want: AudioInput) -> list[augment.Wave]:
    """The first windows of a sound; all of it is read, for damage may show at the end only."""
    with tempfile.TemporaryFile() as file:  # libsndfile wants a real one
        file.write(data)
        file.seek(0)
        found: list[augment.Wave] = []
        for window in windows(file, want):
            if len(found) < _WINDOWS:
                found.append(window.samples)
    return found


class Batches:
    """The updates of a run, one after the other; files are read ahead in threads.

    `share` is (process, of how many): this process's part of every batch. With `cached`, no file
    is read, for the features of all rows are at hand.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        config: TrainConfig,
        wanted: Wanted,
        share: tuple[int, int] = (0, 1),
        cached: bool = False,
    ) -> None:
        self.pairs, self.config, self.wanted = pairs, config, wanted
        self.share, self.cached = share, cached
        self._sounds = [pair for pair in pairs if pair.modality is Modality.AUDIO]
        self.size = min(config.batch * config.accumulate, len(pairs))  # pairs an update
        self.epoch = len(pairs) // self.size  # updates an epoch; the rest waits for the next one
        self.updates = self.epoch * config.epochs

    def samples(self, update: int) -> list[Sample]:
        """The pairs of an update, of all processes together."""
        epoch, slot = divmod(update, self.epoch)
        order = np.random.default_rng([self.config.seed, epoch]).permutation(len(self.pairs))
        found: list[Sample] = []
        ids: dict[str, int] = {}
        for row in map(int, order[slot * self.size : (slot + 1) * self.size]):
            captions, generator = self.pairs[row].captions, self._generator(update, row, 0)
            caption = captions[generator.integers(len(captions))]
            number = ids.setdefault(caption, row)  # files that say the same belong together
            if self.config.augment:
                caption = augment.drop_words(caption, self.config.word_dropout, generator)
            found.append(Sample(row, self.pairs[row].modality, caption, number))
        return found

    def own(self, update: int) -> list[Sample]:
        """This process's part of an update."""
        process, count = self.share
        whole = self.samples(update)
        return whole[process * len(whole) // count : (process + 1) * len(whole) // count]

    def views(self, start: int) -> Iterator[tuple[int, list[Sample], list[Any]]]:
        """(update, samples, their pictures and sounds) from an update to the last.

        Raises TrainingError for a file that is no longer what it was.
        """
        with ThreadPoolExecutor(self.config.workers) as pool:

            def ahead(update: int) -> tuple[list[Sample], list[Future[Any]]]:
                samples = self.own(update) if update < self.updates else []
                rows = [] if self.cached else [sample.row for sample in samples]
                return samples, [pool.submit(self._view, update, row) for row in rows]

            upcoming = ahead(start)
            for update in range(start, self.updates):
                (samples, views), upcoming = upcoming, ahead(update + 1)
                yield update, samples, [view.result() for view in views]

    def _view(self, update: int, row: int) -> Any:
        pair = self.pairs[row]
        if not self.config.augment:
            return load(pair, self.wanted)
        generator = self._generator(update, row, 1)
        try:
            if pair.modality is Modality.IMAGE:
                return self._picture(pair.read(), generator)
            return self._sound(pair.read(), generator)
        except LoadError as error:
            raise _changed(pair, error) from error

    def _picture(self, data: bytes, generator: augment.Random) -> augment.Pixels:
        config, want = self.config, self.wanted.image
        assert want is not None
        larger = ImageInput(round(want.size * _MARGIN), want.fit, want.resample)
        pixels = load_image(data, larger, max_megapixels=_MEGAPIXELS).pixels
        return augment.picture(pixels, want.size, config.crop, config.colour, generator)

    def _sound(self, data: bytes, generator: augment.Random) -> augment.Wave:
        config = self.config
        wave = self._window(data, generator)
        other = None
        if generator.random() < config.mix:
            other = self._window(
                self._sounds[generator.integers(len(self._sounds))].read(), generator
            )
        wave = augment.sound(wave, other, config.gain, generator)
        return augment.masked(wave, config.masks, generator)

    def _window(self, data: bytes, generator: augment.Random) -> augment.Wave:
        assert self.wanted.audio is not None
        found = _stretches(data, self.wanted.audio)
        return found[generator.integers(len(found))]

    def _generator(self, update: int, row: int, kind: int) -> augment.Random:
        return np.random.default_rng([self.config.seed, update // self.epoch, row, kind])
