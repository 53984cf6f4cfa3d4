"""Run tasks in processes that may hang or die without taking others along."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Literal

# How often a call is looked at before it is ended.
_LOOKS = 8


@dataclass(frozen=True)
class Outcome:
    """What became of one task.

    ``kind`` is ``'part'`` (of a task that goes on), ``'done'``, ``'hang'``
    (stood still) or ``'crash'`` (its process died); ``value`` is what the
    function yielded or returned; ``detail`` says a time limit or an exit code
    in words.
    """

    index: int
    kind: Literal['part', 'done', 'hang', 'crash']
    value: Any = None
    detail: str = ''


def run_isolated(
    function: Callable[[Any], Any],
    tasks: Sequence[Any],
    *,
    num_workers: int,
    time_limit: float,
    progress: Callable[[], Any] = lambda: None,
) -> Generator[Outcome, None, None]:
    """Call a function for each task, each in one of a few processes.

    A process that dies or exceeds the limit is replaced; its task is
    reported, the others go on. The function may be a generator: what it
    yields is passed on at once, and while nobody takes it, it waits.

    Args:
        function (Callable): What to call; it and its values are pickled.
        tasks (Sequence): Arguments, one for each call.
        num_workers (int): Processes.
        time_limit (float): Seconds that a call may stand still: without a
            value, and without a change of ``progress``; 0 for none.
        progress (Callable): Says, in such a process, how far a call has come,
            from another thread. Default: says nothing.

    Yields:
        Outcome: Parts of each task in their order, then one that ends it,
        tasks in the order they end.

    Raises:
        ValueError: If there are no workers.
        RuntimeError: If the function raises, with its traceback.
    """
    if num_workers < 1 or not 0 <= time_limit < math.inf:
        raise ValueError(
            'Expected at least 1 worker and a finite time limit of at least '
            f'0 seconds, but got {num_workers} and {time_limit}.'
        )
    waiting = iter(enumerate(tasks))
    workers = [
        _Worker(function, time_limit, progress)
        for _ in range(min(num_workers, len(tasks)))
    ]
    try:
        busy = [worker for worker in workers if worker.start(waiting)]
        while busy:
            wait(
                [worker.connection for worker in busy],
                min(worker.seconds_left() for worker in busy),
            )
            for worker in list(busy):
                outcome = worker.outcome()
                if outcome is None:
                    continue
                yield outcome
                if outcome.kind != 'part' and not worker.start(waiting):
                    busy.remove(worker)
    finally:
        for worker in workers:
            worker.stop()


class _Worker:
    """A process and the task it is busy with."""

    def __init__(
        self,
        function: Callable[[Any], Any],
        time_limit: float,
        progress: Callable[[], Any],
    ) -> None:
        self._function = function
        self._time_limit = time_limit
        self._progress = progress
        self._process: Any = None
        self.connection: Any = None
        self._index = -1
        self._deadline = float('inf')

    def start(self, waiting: Iterator[tuple[int, Any]]) -> bool:
        """Begin the next task; return whether there was one."""
        for index, task in waiting:
            self._index = index
            try:
                self._send(task)
            except ConnectionError:  # died with nothing to do
                self.stop()
                self._send(task)
            return True
        return False

    def _send(self, task: Any) -> None:
        if self._process is None:
            self._begin_process()
        self._renew_limit()
        self.connection.send(task)

    def _renew_limit(self) -> None:
        if self._time_limit:
            self._deadline = time.monotonic() + self._time_limit

    def seconds_left(self) -> float:
        """Seconds to wait at most, an hour where there is no limit."""
        return max(0.0, min(self._deadline - time.monotonic(), 3600.0))

    def outcome(self) -> Outcome | None:
        """What has come of the task, or None if nothing new has."""
        try:
            if self.connection.poll():
                kind, value = self.connection.recv()
                if kind == 'error':
                    raise RuntimeError(value)
                self._renew_limit()
                if kind == 'moves':
                    return None
                return Outcome(self._index, kind, value)
        except (EOFError, ConnectionError):
            self._process.join()
            code = self._process.exitcode
            reason = f'exit code {code}'
            with suppress(ValueError):  # no signal, or one without a name
                reason = signal.Signals(-code).name
            self.stop()
            detail = f'its process died ({reason})'
            return Outcome(self._index, 'crash', detail=detail)
        if time.monotonic() < self._deadline:
            return None
        self.stop()
        return Outcome(
            self._index,
            'hang',
            detail=f'stood still for {self._time_limit:g} seconds',
        )

    def stop(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            self.connection.close()
            self._process.kill()
            self._process.join()
            self._process = None

    def _begin_process(self) -> None:
        self.connection, inner = multiprocessing.Pipe()
        self._process = multiprocessing.Process(
            target=_work,
            args=(inner, self._function, self._progress, self._time_limit),
            daemon=True,
        )
        self._process.start()
        # or the end of the process would not end the connection
        inner.close()


def _work(
    connection: Connection,
    function: Callable[[Any], Any],
    progress: Callable[[], Any],
    time_limit: float,
) -> None:
    """Serve tasks until the other side is gone."""
    # an interrupt is for the process that started this one
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    lock = threading.Lock()

    def send(kind: str, value: Any = None) -> None:
        with lock:
            connection.send((kind, value))

    def send_parts(parts: Generator[Any, None, Any]) -> Any:
        """Send what a generator yields, keep none, and give its return."""
        while True:
            try:
                send('part', next(parts))
            except StopIteration as end:
                return end.value

    if time_limit:
        threading.Thread(
            target=_tell_progress,
            args=(send, progress, time_limit / _LOOKS),
            daemon=True,
        ).start()
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            result = function(task)
            if isinstance(result, Generator):
                result = send_parts(result)
        except Exception:  # noqa: BLE001 - raised on the other side
            send('error', traceback.format_exc())
        else:
            send('done', result)


def _tell_progress(
    send: Callable[[str], None], progress: Callable[[], Any], pause: float
) -> None:
    """Say that a call moves, as long as it does."""
    seen = progress()
    with suppress(ConnectionError):  # nobody listens any more
        while True:
            time.sleep(pause)
            now = progress()
            if now != seen:
                seen = now
                send('moves')


def _die_with_parent() -> None:
    """End this process, in the midst of its work, when its parent is gone.

    Pipes do not tell: the other processes hold copies of their ends.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
