"""Calls into decoders that may never return."""

import queue
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from .base import VideoTimeoutError

Result = TypeVar('Result')

# How often a call is looked at before it is given up.
_LOOKS = 8


class LimitedCalls:
    """Makes calls in a thread of its own, and waits while they get on.

    A decoder that hangs cannot be interrupted: its thread is left behind, and
    ends with the process at the latest. One thread serves all calls, since
    starting one takes longer than decoding a small frame.

    Args:
        seconds (float): How long a call may stand still; 0 for no limit, and
            no thread.
        path (str): What messages call the video.
        progress (Callable): Says how far a call has come, without waiting.
        give_up (Callable): Called after the limit, to stop what can be
            stopped.

    Attributes:
        gave_up (bool): Whether the thread may still be busy with a call that
            nobody waits for. No other call is made then.
    """

    def __init__(
        self,
        seconds: float,
        path: str,
        progress: Callable[[], int],
        give_up: Callable[[], Any],
    ) -> None:
        self.seconds = seconds
        self.path = path
        self.progress = progress
        self.give_up = give_up
        self.gave_up = False
        self._thread: threading.Thread | None = None

    def __call__(self, function: Callable[[], Result]) -> Result:
        """Make a call.

        Args:
            function (Callable): What to call, without arguments.

        Returns:
            Any: What it returns.

        Raises:
            VideoTimeoutError: If ``progress`` stands still for the limit, or
                did so before.
        """
        if self.gave_up:
            raise VideoTimeoutError(f'{self.path}: reading was given up.')
        if not self.seconds or threading.current_thread() is self._thread:
            return function()
        answer: queue.SimpleQueue = queue.SimpleQueue()
        if self._thread is None:
            self._begin_thread()
        self._calls.put((function, answer))
        try:
            result, error = self._wait(answer)
        except BaseException:
            self.gave_up = True
            self.give_up()
            raise
        if error is not None:
            raise error
        return result

    def end(self) -> None:
        """End the thread, until the next call."""
        if self._thread is not None:
            self._end()
            self._thread = None

    def _begin_thread(self) -> None:
        self._calls: queue.SimpleQueue = queue.SimpleQueue()
        # also ends the thread of a reader that nobody closes
        self._end = weakref.finalize(self, self._calls.put, None)
        self._thread = threading.Thread(
            target=_serve,
            args=(self._calls,),
            daemon=True,
            name='video reader',
        )
        self._thread.start()

    def _wait(self, answer: queue.SimpleQueue) -> tuple[Any, Any]:
        """Wait for the answer while ``progress`` moves."""
        seen, moved = self.progress(), time.monotonic()
        while True:
            try:
                return answer.get(timeout=self.seconds / _LOOKS)
            except queue.Empty:
                pass
            now = self.progress()
            if now != seen:
                seen, moved = now, time.monotonic()
            elif time.monotonic() - moved >= self.seconds:
                raise VideoTimeoutError(
                    f'{self.path}: the decoder stood still for '
                    f'{self.seconds:g} seconds. Copy or encode the file '
                    "again, leave the video out, or raise 'time_limit' of "
                    'OpenVideo.'
                )


def _serve(calls: queue.SimpleQueue) -> None:
    """Answer calls until there is None."""
    while (call := calls.get()) is not None:
        function, answer = call
        try:
            answer.put((function(), None))
        except BaseException as err:  # noqa: BLE001 - raised where it waits
            answer.put((None, err))
        # what is kept here would never be freed
        del call, function, answer
