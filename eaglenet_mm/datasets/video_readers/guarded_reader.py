"""Time limit and uniform errors around any video reader."""

import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from eaglenet_mm.datasets.video_readers.base import (
    EachFrame,
    VideoReader,
    VideoReadError,
    VideoTimeoutError,
)
from eaglenet_mm.datasets.video_readers.timeline import Timeline

Result = TypeVar('Result')

# Number of progress checks per time limit.
_LOOKS = 8


def _of_reader(name: str) -> Any:
    """Make a property that forwards to the reader."""
    return property(
        lambda guard: getattr(guard.reader, name),
        lambda guard, value: setattr(guard.reader, name, value),
    )


class GuardedReader(VideoReader):
    """Wrapper that adds a time limit and uniform errors to a reader.

    Any error, also on opening, becomes a :class:`VideoReadError` with the
    file, the backend and the reason, so one broken file costs one video. A
    call is abandoned when ``progress`` has not changed for ``time_limit``
    seconds (0 for no limit); slow but progressing calls continue. Created by
    :func:`~eaglenet_mm.datasets.video_readers.open_video`.

    Attributes:
        reader (VideoReader): The wrapped reader.
        backend (str): Name of the backend, for messages.

    Raises:
        ImportError: If the package of the backend is missing.
        VideoReadError: If the file cannot be opened as a video.
    """

    source = _of_reader('source')
    path = _of_reader('path')
    fps = _of_reader('fps')
    num_frames = _of_reader('num_frames')
    num_frames_reported = _of_reader('num_frames_reported')
    pixel_aspect = _of_reader('pixel_aspect')
    follows_release = _of_reader('follows_release')
    time_note = _of_reader('time_note')
    progress = _of_reader('progress')

    def __init__(
        self,
        reader_class: type[VideoReader],
        source: str | bytes,
        *,
        name: str,
        backend: str,
        time_limit: float = 0,
        **options: Any,
    ) -> None:
        self.backend = backend
        # exists before it is opened, so that opening can be watched
        reader = self.reader = reader_class.__new__(reader_class)
        self._name = name
        self._calls = _LimitedCalls(
            time_limit,
            name,
            progress=lambda: getattr(reader, 'progress', 0),
            give_up=reader.cancel,
        )
        global _opened_last
        _opened_last = weakref.ref(reader)
        try:
            self._call(
                lambda: reader_class.__init__(
                    reader, source, name=name, **options
                )
            )
        except BaseException:
            self._calls.end()
            raise

    @property
    def timeline(self) -> Timeline:
        """Timeline: See :class:`VideoReader`."""
        return self._call(lambda: self.reader.timeline)

    @property
    def has_variable_rate(self) -> bool:
        """bool: See :class:`VideoReader`."""
        return self._call(lambda: self.reader.has_variable_rate)

    def get_batch(
        self, indices: Sequence[int], each: EachFrame | None = None
    ) -> np.ndarray:
        """Decode frames; see :meth:`VideoReader.get_batch`.

        Errors of ``each`` pass through: they are not the file's fault.
        """
        self._check_indices(indices)
        if each is None:
            return self._call(lambda: self.reader.get_batch(indices))
        failures: list[Exception] = []

        def watched(number: int, frame: np.ndarray) -> np.ndarray:
            try:
                return each(number, frame)
            except Exception as err:
                failures.append(err)
                raise

        try:
            return self._call(lambda: self.reader.get_batch(indices, watched))
        except Exception:
            if not failures:
                raise
        raise failures[-1]

    def stream(
        self, indices: Sequence[int]
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Decode frames in one pass; see :meth:`VideoReader.stream`."""
        self._check_indices(indices)
        frames: Any = self._call(lambda: self.reader.stream(indices))
        try:
            while (
                frame := self._call(lambda: next(frames, None))
            ) is not None:
                yield frame
        finally:
            if not self._calls.gave_up:
                self._call(frames.close)

    def frame_times(self, indices: Sequence[int]) -> list[float]:
        """Return display times; see :meth:`VideoReader.frame_times`."""
        return self._call(lambda: self.reader.frame_times(indices))

    def close(self) -> None:
        """Release the file, unless a stuck decoder still uses it."""
        try:
            if not self._calls.gave_up:
                self._call(self.reader.close)
        finally:
            self._calls.end()

    def cancel(self) -> None:
        """Ask a read in another thread to stop soon."""
        self.reader.cancel()

    def _call(self, function: Callable[[], Result]) -> Result:
        """Call the reader within the time limit and unify its errors."""
        try:
            return self._calls(function)
        except (VideoReadError, ImportError):
            raise
        except Exception as err:
            raise VideoReadError(
                f"{self._name}: reading it with backend '{self.backend}' "
                f'failed ({type(err).__name__}: {str(err).strip()[:200]}). '
                'Download or encode the file again, or leave the video out.'
            ) from err


_opened_last: weakref.ref[VideoReader] | None = None


def reading_progress() -> tuple[int, int]:
    """Return the id and ``progress`` of the reader opened last here.

    Either changes while decoding makes progress.
    """
    reader = _opened_last and _opened_last()
    return id(reader), getattr(reader, 'progress', 0)


class _LimitedCalls:
    """Calls in a dedicated thread, abandoned when progress stops.

    A decoder that hangs cannot be interrupted: its thread is left behind until
    the process ends. One thread serves all calls, since starting one takes
    longer than decoding a small frame. After ``gave_up``, the thread may still
    be busy and no further call is made.
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
        """Make a call; VideoTimeoutError if ``progress`` stops changing."""
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
        """End the thread; a later call would start a new one."""
        if self._thread is not None:
            self._end()
            self._thread = None

    def _begin_thread(self) -> None:
        self._calls: queue.SimpleQueue = queue.SimpleQueue()
        # also ends the thread of a reader that is never closed
        self._end = weakref.finalize(self, self._calls.put, None)
        self._thread = threading.Thread(
            target=_serve,
            args=(self._calls,),
            daemon=True,
            name='video reader',
        )
        self._thread.start()

    def _wait(self, answer: queue.SimpleQueue) -> tuple[Any, Any]:
        """Wait for the answer as long as ``progress`` changes."""
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
                    f'{self.seconds:g} seconds. Download or encode the file '
                    "again, leave the video out, or raise 'time_limit' of "
                    'OpenVideo.'
                )


def _serve(calls: queue.SimpleQueue) -> None:
    """Answer calls until None arrives."""
    while (call := calls.get()) is not None:
        function, answer = call
        try:
            answer.put((function(), None))
        except BaseException as err:  # noqa: BLE001 - raised by the caller
            answer.put((None, err))
        # references kept here would live until the next call
        del call, function, answer
