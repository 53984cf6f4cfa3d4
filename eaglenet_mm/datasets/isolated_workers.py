"""Tasks in worker processes that may hang or die without harm to others."""

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

# Progress reports per time limit.
_LOOKS = 8


@dataclass(frozen=True)
class Outcome:
    """Result of a task, or a part of it.

    ``value`` is the yielded (``'part'``) or returned (``'done'``) value;
    ``detail`` describes a time-out (``'hang'``) or exit code (``'crash'``).
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
    progress: Callable[[], Any] = int,  # always 0; a lambda does not pickle
) -> Generator[Outcome, None, None]:
    """Call a function for each task in a pool of processes.

    Yields the outcomes of tasks in order of completion, after the parts of
    each. A process that dies or times out is replaced; the other tasks
    continue. The function and its values must pickle. If it is a generator, it
    waits until each value is consumed. ``time_limit`` is the seconds a call
    may take without a value or a change of ``progress()``, which is called in
    another thread of the worker; 0 for no limit. Raises RuntimeError, with the
    traceback, if the function raises. Without workers (0), everything runs in
    this process, in order and without a limit, and errors are the function's.
    """
    if num_workers < 0 or not 0 <= time_limit < math.inf:
        raise ValueError(
            'Expected at least 0 workers and a finite time limit of at least '
            f'0 seconds, but got {num_workers} and {time_limit}.'
        )
    if not num_workers:
        yield from _run_here(function, tasks)
        return
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


def _run_here(
    function: Callable[[Any], Any], tasks: Sequence[Any]
) -> Generator[Outcome, None, None]:
    for index, task in enumerate(tasks):
        result = function(task)
        while isinstance(result, Generator):
            try:
                yield Outcome(index, 'part', next(result))
            except StopIteration as end:
                result = end.value
        yield Outcome(index, 'done', result)


class _Worker:
    """A process and its current task."""

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
        """Start the next task; return whether there was one."""
        for index, task in waiting:
            self._index = index
            try:
                self._send(task)
            except ConnectionError:  # died while idle
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
        """Seconds until the deadline, at most an hour."""
        return max(0.0, min(self._deadline - time.monotonic(), 3600.0))

    def outcome(self) -> Outcome | None:
        """The news of the task, or None."""
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
            with suppress(ValueError):  # not a signal, or an unknown one
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
        # otherwise the connection would not close when the process ends
        inner.close()


def _work(
    connection: Connection,
    function: Callable[[Any], Any],
    progress: Callable[[], Any],
    time_limit: float,
) -> None:
    """Serve tasks until the parent closes the connection."""
    # interrupts are handled by the parent
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    lock = threading.Lock()

    def send(kind: str, value: Any = None) -> None:
        with lock:
            connection.send((kind, value))

    def send_parts(parts: Generator[Any, None, Any]) -> Any:
        """Send each value a generator yields; return its return value."""
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
        except Exception:  # noqa: BLE001 - re-raised in the parent
            send('error', traceback.format_exc())
        else:
            send('done', result)


def _tell_progress(
    send: Callable[[str], None], progress: Callable[[], Any], pause: float
) -> None:
    """Report whenever the progress of a call has changed."""
    seen = progress()
    with suppress(ConnectionError):  # the parent is gone
        while True:
            time.sleep(pause)
            now = progress()
            if now != seen:
                seen = now
                send('moves')


def _die_with_parent() -> None:
    """Terminate this process, even in mid-task, when its parent is gone.

    Pipes cannot tell: sibling processes hold copies of their ends.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
