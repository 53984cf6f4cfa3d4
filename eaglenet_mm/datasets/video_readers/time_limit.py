"""A reader that gives up where the decoder does not return."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from .base import EachFrame, VideoReader, VideoTimeoutError
from .timeline import Timeline

Result = TypeVar('Result')


def call_within(
    function: Callable[[], Result],
    seconds: float,
    path: str,
    give_up: Callable[[], Any] = lambda: None,
) -> Result:
    """Call a function that decodes, for a limited time.

    The call runs in a thread, since a decoder that hangs cannot be
    interrupted; it is left behind, and ends with the process at the latest.

    Args:
        function (Callable): What to call, without arguments.
        seconds (float): Time limit; 0 for none.
        path (str): What the message calls the video.
        give_up (Callable): Called after the limit, to stop what can be
            stopped.

    Returns:
        Any: What the function returns.

    Raises:
        VideoTimeoutError: If it does not return in time.
    """
    if not seconds:
        return function()
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as err:  # noqa: BLE001 - raised where it waits
            errors.append(err)

    thread = threading.Thread(target=run, daemon=True, name='video reader')
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        give_up()
        raise VideoTimeoutError(
            f'{path}: the decoder did not return within {seconds:g} seconds. '
            'Copy or encode the file again, leave it out of the annotation, '
            "or raise 'time_limit' of OpenVideo."
        )
    if errors:
        raise errors[0]
    return results[0]


class TimeLimitedReader(VideoReader):
    """Another reader, of which each read has a time limit.

    Args:
        reader (VideoReader): The reader.
        time_limit (float): Seconds for one :meth:`get_batch`.
    """

    def __init__(self, reader: VideoReader, time_limit: float) -> None:
        super().__init__(reader.source, name=reader.path)
        self.reader = reader
        self.time_limit = time_limit
        self._hangs = False
        self._update()

    @property
    def timeline(self) -> Timeline:
        return self.reader.timeline

    @property
    def has_variable_rate(self) -> bool:
        return self.reader.has_variable_rate

    def get_batch(
        self, indices: Sequence[int], each: EachFrame | None = None
    ) -> np.ndarray:
        """Decode frames; see :meth:`VideoReader.get_batch`.

        Raises:
            VideoTimeoutError: If the decoder does not return in time.
        """
        self.reader.follows_release = self.follows_release
        try:
            return call_within(
                lambda: self.reader.get_batch(indices, each),
                self.time_limit,
                self.path,
                self.reader.cancel,
            )
        except VideoTimeoutError:
            self._hangs = True
            raise
        finally:
            self._update()

    def frame_times(self, indices: Sequence[int]) -> list[float]:
        """Say when frames are shown; see :meth:`VideoReader.frame_times`."""
        return self.reader.frame_times(indices)

    def close(self) -> None:
        """Release the file, unless a decoder is still busy with it."""
        if not self._hangs:
            self.reader.close()

    def _update(self) -> None:
        self.fps = self.reader.fps
        self.num_frames = self.reader.num_frames
        self.num_frames_reported = self.reader.num_frames_reported
        self.pixel_aspect = self.reader.pixel_aspect
        self.time_note = self.reader.time_note
