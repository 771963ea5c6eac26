"""Files read and decoded in worker processes that may crash, hang or blow up.

A bad file is charged to itself alone: its worker is replaced, the file is tried once more
in a fresh one, and then it is named. `concurrent.futures` loses every queued job when one
worker dies, so the pool is our own: a thread a worker, and a watchdog over all of them.

Jobs and answers are JSON with raw bytes behind, never pickles: a worker that a hostile
file has taken over can send wrong pixels, but nothing that runs here. A file's parts, one
picture or many windows of sound or passages of text, come one by one and before the file's
outcome: neither side ever holds a long sound.

`jobs` has the words, `pool` and `worker` are this side, `reading` is the other, and `frames`
and `claims` are what goes between them. A process that has an open database, threads or a model
is never forked: on Linux `server`, a small process that has none, forks the workers, so that a
new one costs milliseconds; elsewhere each is spawned (`processes`).
"""

from mmsearch.decoding.jobs import SUFFIXES, Job, Limits, Outcome, Piece, Wants
from mmsearch.decoding.pool import DecoderPool

__all__ = ["SUFFIXES", "DecoderPool", "Job", "Limits", "Outcome", "Piece", "Wants"]
