"""What every video reader offers, and its errors."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

import numpy as np

from eaglenet_mm.datasets.video_readers.timeline import Timeline

#: What becomes of a frame as it is read: number and picture in, picture out.
EachFrame = Callable[[int, np.ndarray], np.ndarray]

# Frames that readers without a stream of their own read in one go.
_CHUNK = 8


class VideoReadError(RuntimeError):
    """A video cannot be opened or decoded; the message names the file."""


class VideoEndError(VideoReadError):
    """A video ended before a frame that was asked for.

    The reader has lowered its ``num_frames`` to what the file delivers: the
    caller can sample again.
    """


class VideoTimelineError(VideoReadError):
    """Frames of a video are shown at other times than its packets say.

    The reader has put its ``timeline`` right: the caller can sample again.
    """


class VideoTimeoutError(VideoReadError):
    """A decoder did not return within the time limit."""


class VideoSamplingError(VideoReadError, ValueError):
    """No frame of a video can be chosen as the pipeline asks for."""


class VideoReader(ABC):
    """Random access to the frames of one file.

    A reader is made in the process that uses it, and for one item: decoders
    do not survive a fork.

    Args:
        source (str | bytes): Path of the file, or its content.
        name (str): Name in messages. Default: the path, or the size of the
            content.

    Attributes:
        source (str | bytes): As given.
        path (str): Name in messages.
        fps (Fraction): Mean frame rate in frames per second; 0 if the file
            does not say.
        num_frames (int): Frames that the file holds, as far as known before
            decoding. Lowered when decoding finds fewer.
        num_frames_reported (int): Frames that the header promises, which is
            what the authors' release counts with. Not to be trusted.
        pixel_aspect (Fraction): Width of a pixel over its height, in the
            picture as it is delivered; known once a frame was read.
        follows_release (bool): Turn pictures as the authors' release does,
            by quarter turns alone, instead of by the whole display matrix.
            Default: False.
        time_note (str): What is odd about the length of the video, known once
            its ``timeline`` is; empty for nothing.
        progress (int): Packets and frames handled so far, for who waits.
    """

    def __init__(self, source: str | bytes, *, name: str = '') -> None:
        self.source = source
        self.path = name or name_of(source)
        self.fps = Fraction(0)
        self.num_frames = 0
        self.num_frames_reported = 0
        self.pixel_aspect = Fraction(1)
        self.follows_release = False
        self.time_note = ''
        self.progress = 0
        self._cancelled = False

    @property
    def timeline(self) -> Timeline:
        """Timeline: Display times, here by the mean rate alone."""
        return Timeline.at_rate(self.fps, self.num_frames)

    @abstractmethod
    def get_batch(
        self, indices: Sequence[int], each: EachFrame | None = None
    ) -> np.ndarray:
        """Decode frames.

        Args:
            indices (Sequence[int]): Numbers of frames in order of display,
                from 0, in any order, repeats allowed.
            each (Callable, optional): Called with number and picture of each
                frame that is read, gives the one to keep, so that whole
                pictures are never all in memory. Where a reader has doubts
                and begins anew, a frame may come twice. Default: None.

        Returns:
            np.ndarray: RGB, turned as the file asks, uint8, shape
            ``(n, h, w, 3)``.

        Raises:
            VideoEndError: If the file holds fewer frames.
            VideoTimelineError: If :attr:`timeline` was asked for and did not
                hold.
            VideoReadError: If a frame cannot be decoded.
        """

    def stream(
        self, indices: Sequence[int]
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Decode frames of :attr:`timeline`, in one pass.

        Yields:
            tuple[int, np.ndarray]: Number and picture, ``(h, w, 3)``, of each
            of them once, ascending.

        Raises:
            VideoReadError: As :meth:`get_batch`, before or between frames.
        """
        ordered = sorted(set(indices))
        for first in range(0, len(ordered), _CHUNK):
            chunk = ordered[first : first + _CHUNK]
            self._step()
            yield from zip(chunk, self.get_batch(chunk), strict=True)

    def frame_times(self, indices: Sequence[int]) -> list[float]:
        """Return the seconds at which frames are shown.

        By the clock of :attr:`timeline`; by the mean rate where the reader
        does not know better, and 0 where there is none.
        """
        timeline = self.timeline if self.fps else None
        if timeline is not None and max(indices) < len(timeline):
            return [timeline.seconds(index) for index in indices]
        return [
            float(index / self.fps) if self.fps else 0.0 for index in indices
        ]

    @property
    def has_variable_rate(self) -> bool:
        """bool: Whether the steps between frames differ, as far as known."""
        return bool(self.fps) and self.timeline.is_variable

    @abstractmethod
    def close(self) -> None:
        """Release the file; the reader cannot be used afterwards."""

    def cancel(self) -> None:
        """Ask a read that goes on in another thread to stop soon."""
        self._cancelled = True

    def __enter__(self) -> 'VideoReader':
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _check_indices(self, indices: Sequence[int]) -> None:
        """Refuse numbers that cannot be frames of this file."""
        if len(indices) == 0 or min(indices) < 0:
            raise ValueError(
                f'{self.path}: expected at least one frame number, none of '
                f'them negative, but got {list(indices)[:8]}.'
            )

    def _step(self) -> None:
        """Count a packet or frame; stop if :meth:`cancel` was called."""
        self.progress += 1
        if self._cancelled:
            raise VideoTimeoutError(f'{self.path}: reading was given up.')

    def _ended(self, delivered: int, wanted: int) -> VideoEndError:
        """Lower ``num_frames`` and make the error that says so."""
        promised, self.num_frames = self.num_frames, delivered
        return VideoEndError(
            f'{self.path}: frame {wanted} was asked for and {promised} frames '
            f'were expected, but only {delivered} can be decoded. Copy or '
            'encode the file again, or leave it out.'
        )


def name_of(source: str | bytes) -> str:
    """Name a video in messages."""
    if isinstance(source, str):
        return source
    return f'<video of {len(source)} bytes in memory>'
