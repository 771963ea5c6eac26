"""A pool of workers: jobs in, answers out."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from mmsearch.decoding.jobs import Job, Limits, Outcome, Piece, Wants
from mmsearch.decoding.processes import ForkServer
from mmsearch.decoding.worker import Worker
from mmsearch.errors import MmsearchError
from mmsearch.records import Reason

_TRIES = 2  # a file that kills its worker this often is quarantined
_WATCH = 0.25  # seconds between looks at the workers' deadlines
_SLOW = 5.0  # seconds without an answer, after which another worker does the rest meanwhile


class DecoderPool:
    """Worker processes that read files: `submit` jobs, take the `next` answer, `close`.

    Answers come in any order, but of each file first its parts, in theirs, then its outcome.
    A file that kills its worker is begun again, and so may its parts be. Keep `waiting`, the
    jobs without an outcome, below `window` for bounded memory. Workers start with the first
    job and end with the pool. One that is slow holds nobody up: another takes its place, and it
    retires when it is done with its file; there are never more than twice as many.
    """

    def __init__(self, workers: int, wants: Wants, limits: Limits) -> None:
        self.window = 32 * workers  # 10 MB of parts each: decoders go on while we encode
        self.waiting = 0
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._answers: queue.Queue[Piece | Outcome | MmsearchError] = queue.Queue(self.window)
        self._server = ForkServer()
        self._new_worker: Callable[[], Worker] = partial(Worker, wants, limits, self._server.start)
        self._workers = [self._new_worker() for _ in range(workers)]
        self._most = 2 * workers
        self._threads: list[threading.Thread] = []
        self._given_up = threading.Event()
        self._closed = threading.Event()

    def submit(self, job: Job) -> None:
        """Queue a job."""
        if not self._threads:
            self._begin(self._watch)
            for worker in self._workers:
                self._begin(self._serve, worker)
        self.waiting += 1
        self._jobs.put(job)

    def next(self) -> Piece | Outcome:
        """Wait for the next answer. Raises MmsearchError when no worker can be started."""
        answer = self._answers.get()
        if not isinstance(answer, Piece):
            self.waiting -= 1
            if not self.waiting:
                self._given_up.clear()
        if isinstance(answer, MmsearchError):
            raise answer
        return answer

    def give_up(self) -> None:
        """Hand back as `given_up` what is queued, and what would send more parts yet."""
        if self.waiting:
            self._given_up.set()

    def close(self) -> None:
        """End every worker, whatever it is doing."""
        self._closed.set()
        for thread in self._threads:  # the first one adds others no more when it has ended
            while thread.is_alive():
                self._jobs.put(None)
                for worker in list(self._workers):
                    worker.kill()  # again and again: one may just have been started
                thread.join(0.05)
        for worker in self._workers:
            worker.end()
        self._server.end()

    def _begin(self, target: Callable[..., None], *arguments: Worker) -> None:
        self._threads.append(threading.Thread(target=target, args=arguments, daemon=True))
        self._threads[-1].start()

    def _serve(self, worker: Worker) -> None:
        while (job := self._jobs.get()) is not None and not self._closed.is_set():
            try:
                self._deliver(self._ask(worker, job))
            except MmsearchError as error:
                self._deliver(error)
            if worker.retires:
                worker.end()
                self._workers.remove(worker)
                return

    def _ask(self, worker: Worker, job: Job) -> Outcome:
        outcome = Outcome(job, given_up=True)
        for _ in range(_TRIES):
            if self._given_up.is_set() or self._closed.is_set():
                return Outcome(job, given_up=True)
            outcome = worker.ask(job, self._deliver)
            if outcome.reason not in (Reason.CRASHED, Reason.TIMED_OUT):
                break
        return outcome

    def _deliver(self, answer: Piece | Outcome | MmsearchError) -> bool:
        """Put an answer where `next` finds it, in time; False: no more parts are wanted."""
        while not self._closed.is_set():
            with suppress(queue.Full):
                self._answers.put(answer, timeout=_WATCH)
                return not self._given_up.is_set()
        return False

    def _watch(self) -> None:
        while not self._closed.wait(_WATCH):
            for worker in list(self._workers):
                worker.kill_if_overdue()
                slow = not worker.retires and worker.is_silent_for(_SLOW)
                if slow and len(self._workers) < self._most:
                    worker.retires = True
                    self._workers.append(self._new_worker())
                    self._begin(self._serve, self._workers[-1])
