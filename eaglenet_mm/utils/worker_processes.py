"""Work on many files in processes, of which one may crash."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from multiprocessing import (
    get_all_start_methods,
    get_context,
    parent_process,
)
from multiprocessing.connection import Connection, wait
from threading import Thread
from typing import Any, TypeVar

Item = TypeVar('Item')
Result = TypeVar('Result')


def map_in_processes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int,
    on_death: Callable[[int], Result],
) -> Generator[tuple[Item, Result], None, None]:
    """Call a function with each item, in several processes.

    A process that dies costs one item: a ``Pool`` of ``multiprocessing`` would
    wait for its result for ever, an executor lose all items. Closing the
    iterator, or an error such as that of Ctrl-C, ends the processes at once.

    Args:
        function (Callable): Picklable. What it raises ends its process.
        items (Sequence): Picklable arguments.
        workers (int): Number of processes.
        on_death (Callable): Gives the result of an item from the exit code of
            the process that died of it; a signal is a negative number.

    Yields:
        tuple: An item and its result, in the order in which they are done.
    """
    pool = _Processes(function)
    waiting = iter(items)
    busy: dict[Connection, Item] = {}

    def assign(connection: Connection) -> None:
        for item in waiting:
            busy[connection] = item
            with suppress(OSError):  # receiving will tell that it died
                connection.send(item)
            return

    try:
        for _ in range(min(workers, len(items))):
            assign(pool.start())
        while busy:
            for ready in wait(list(busy)):
                connection: Any = ready
                item = busy.pop(connection)
                try:
                    result = connection.recv()
                except (EOFError, OSError):
                    result = on_death(pool.bury(connection))
                    connection = pool.start()
                assign(connection)  # so that it works while the caller does
                yield item, result
    finally:
        pool.end()


class _Processes:
    """Processes that each serve a pipe, by this end of it."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function
        self._processes: dict[Connection, Any] = {}
        # a fork of this process might copy locks that its threads hold
        has_server = 'forkserver' in get_all_start_methods()
        self._context: Any = get_context(
            'forkserver' if has_server else 'spawn'
        )
        if has_server:
            module = getattr(function, 'func', function).__module__
            self._context.set_forkserver_preload([module])

    def start(self) -> Connection:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(self._function, theirs), daemon=True
        )
        process.start()
        theirs.close()  # else its death would not show at our end
        self._processes[ours] = process
        return ours

    def bury(self, connection: Connection) -> int:
        process = self._processes.pop(connection)
        connection.close()
        process.join()
        return process.exitcode

    def end(self) -> None:
        for process in self._processes.values():
            process.terminate()
        for connection in list(self._processes):
            self.bury(connection)


def _serve(function: Callable[[Any], Any], connection: Connection) -> None:
    """Answer until the other end of the pipe is gone."""
    # Ctrl-C reaches all processes of a terminal; the first one ends the rest
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_die_with_parent, daemon=True).start()
    with suppress(EOFError, ConnectionError):
        while True:
            connection.send(function(connection.recv()))


def _die_with_parent() -> None:
    """End this process also in the midst of its work."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
