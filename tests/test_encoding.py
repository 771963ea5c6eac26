"""The encoder's thread: parcels in order, files taken meanwhile, errors where they are awaited."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from conftest import FakeEncoder

import mmsearch
from mmsearch import encoding as encodings
from mmsearch.encoding import COMMIT_SECONDS, Commits, Encoding, usable
from mmsearch.records import Modality, Report

_LONG = 60.0  # seconds: never waited for where the test passes


class Held(FakeEncoder):
    """An encoder that waits until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.met = True

    def encode(self, modality, batch):
        self.met &= self.go.wait(_LONG)
        return super().encode(modality, batch)


def test_parcels_come_back_in_order_and_whole():
    """Each with its tag and its rows, a call a kind; sending waits for nothing."""
    encoder, encoding = Held(), Encoding[str](256)
    texts = [["red"], ["green", "blue"], []]
    for number, some in enumerate(texts):
        calls = [(encoder, Modality.TEXT, some)] if some else []
        encoding.send(f"parcel {number}", calls)
    assert (len(encoding), encoding.tags) == (3, ["parcel 0", "parcel 1", "parcel 2"])
    assert encoding.waited == 0
    encoder.go.set()
    for number, some in enumerate(texts):
        tag, rows = encoding.take()
        assert tag == f"parcel {number}"
        expected = FakeEncoder().encode(Modality.TEXT, some)
        assert np.array_equal(np.concatenate([np.empty((0, 3)), *rows]), expected)
    encoding.close()
    report = Report()
    encoding.tell(report, seconds=2.0, loading=1.5)
    assert report.per_second == {"text": 1.5}
    assert report.waited == encoding.waited - 1.5


def test_an_error_is_raised_where_its_parcel_is_taken():
    """What came before it is there; closing waits for nothing more."""
    encoder, encoding = FakeEncoder(), Encoding[int](256)
    encoding.send(1, [(encoder, Modality.TEXT, ["red"])])
    encoding.send(2, [(encoder, "smell", ["red"]), (encoder, Modality.TEXT, [None])])
    assert encoding.take()[0] == 1
    with pytest.raises(AttributeError):
        encoding.take()
    encoding.close()


@pytest.mark.parametrize("batch, size", [(1, 1), (2, 2), (40, 32), (64, 32), (256, 32)])
def test_a_parcel_is_no_larger_than_a_batch(batch, size):
    """And of a large batch at most half, so that another may be under way while it is written."""
    encoding = Encoding[int](batch)
    assert encoding.size(FakeEncoder(), Modality.IMAGE) == size
    encoding.close()


def test_usable_rows():
    """Of length 1, and finite."""
    rows = np.array([[1, 0, 0], [0.6, 0.8, 0], [0, 0, 0], [np.nan, 1, 0], [np.inf, 0, 0]])
    assert usable(rows.astype(np.float32)).tolist() == [True, True, False, False, False]


def test_which_of_the_two_was_the_limit():
    """What the run waited for longer; nothing where nothing was encoded."""
    assert Report().limit is None
    report = Report(vectors={Modality.IMAGE: 5}, seconds=2.0, waited=0.3)
    assert (report.limit, report.as_dict()["per_second"]) == ("encoder", {"image": 2.5})
    report.waited = -0.3
    assert report.as_dict()["limit"] == "loader"


def test_files_are_taken_while_the_encoder_computes(tmp_path, photos, encoder, monkeypatch):
    """The first parcel is let go only when pieces of the second have come."""
    held = Held()
    for module in ("library", "spaces"):
        monkeypatch.setattr(f"mmsearch.{module}.open_encoder", lambda name: held)
    send = Encoding.send

    def sent(self, tag, calls):
        send(self, tag, calls)
        if len(self) == 2:
            held.go.set()

    monkeypatch.setattr(Encoding, "send", sent)
    monkeypatch.setattr("mmsearch.encoding.COMMIT_SECONDS", 10 * _LONG)  # on a slow machine, too
    for number in range(70):
        photos.paint(f"{number}.png", (number, 200, 3 * number))
    with mmsearch.open_library(tmp_path / "index", workers=1) as library:
        assert library.index(photos).encoded == 70
    assert held.met


def test_a_commit_is_due_with_a_batch_or_late(monkeypatch):
    """Late is what has waited for more than so many seconds since the last one."""
    now = [100.0]
    monkeypatch.setattr(encodings.time, "monotonic", lambda: now[0])
    commits = Commits(3)
    assert [commits.are_due(waiting) for waiting in (0, 2, 3)] == [False, False, True]
    now[0] += COMMIT_SECONDS
    assert (commits.are_late(), commits.are_due(2)) == (False, False)
    now[0] += 0.5
    assert (commits.are_late(), commits.are_due(2), commits.are_due(0)) == (True, True, False)
