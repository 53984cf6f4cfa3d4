"""Interface and errors of video readers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

import numpy as np

from eaglenet_mm.datasets.video_readers.timeline import Timeline

#: Maps the number and image of a decoded frame to the image to keep.
EachFrame = Callable[[int, np.ndarray], np.ndarray]

# Frames per batch, in readers without a stream of their own.
_CHUNK = 8


class VideoReadError(RuntimeError):
    """A video cannot be opened or decoded; the message names the file."""


class VideoEndError(VideoReadError):
    """A video ended before a requested frame.

    The reader has lowered ``num_frames`` to the actual number, so the caller
    can sample again.
    """


class VideoTimelineError(VideoReadError):
    """Frames of a video are shown at other times than its packets claim.

    The reader has corrected its ``timeline``, so the caller can sample again.
    """


class VideoTimeoutError(VideoReadError):
    """A decoder did not return within the time limit."""


class VideoSamplingError(VideoReadError, ValueError):
    """No frame of a video can be sampled as the pipeline asks."""


class VideoReader(ABC):
    """Random access to the frames of a file.

    Create a reader in the process that uses it: decoders do not survive a
    fork.

    Args:
        source (str | bytes): Path or content of the file.
        name (str): Name in messages. Default: the path, or the size of the
            content.

    Attributes:
        source (str | bytes): Path or content of the file.
        path (str): Name in messages.
        fps (Fraction): Mean frame rate in frames per second; 0 if unknown.
        num_frames (int): Number of frames, as far as known; lowered when
            decoding finds fewer.
        num_frames_reported (int): Number of frames according to the header,
            as the authors' release counts. Unreliable.
        pixel_aspect (Fraction): Pixel width over pixel height of the returned
            images; known once a frame was read.
        follows_release (bool): Whether to rotate images as in the authors'
            release, by quarter turns only, instead of by the whole display
            matrix. Default: False.
        time_note (str): Anomaly in the length of the video, set with
            ``timeline``; empty if there is none.
        progress (int): Packets and frames handled so far, for watchdogs.
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
        """Timeline: Display times of the frames, here at the mean rate."""
        return Timeline.at_rate(self.fps, self.num_frames)

    @abstractmethod
    def get_batch(
        self, indices: Sequence[int], each: EachFrame | None = None
    ) -> np.ndarray:
        """Decode frames.

        Args:
            indices (Sequence[int]): Frame numbers in display order, counted
                from 0; they may be unsorted and repeated.
            each (Callable, optional): Maps the number and image of each frame
                to the image to keep, so that full-size images are never all
                in memory. If a reader has to start again, it sees a frame
                twice. Default: None.

        Returns:
            np.ndarray: RGB, rotated for display, uint8, shape
            ``(n, h, w, 3)``.

        Raises:
            VideoEndError: If the file has fewer frames.
            VideoTimelineError: If :attr:`timeline` was used and turned out
                wrong.
            VideoReadError: If a frame cannot be decoded.
        """

    def stream(
        self, indices: Sequence[int]
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Decode frames of :attr:`timeline` in one pass.

        Yields:
            tuple[int, np.ndarray]: Number and image, ``(h, w, 3)``, of each
            distinct frame, ascending.

        Raises:
            VideoReadError: As in :meth:`get_batch`, possibly between frames.
        """
        ordered = sorted(set(indices))
        for first in range(0, len(ordered), _CHUNK):
            chunk = ordered[first : first + _CHUNK]
            self._step()
            yield from zip(chunk, self.get_batch(chunk), strict=True)

    def frame_times(self, indices: Sequence[int]) -> list[float]:
        """Return the display times of frames in seconds.

        They are estimated from the mean rate where :attr:`timeline` does not
        know them, and 0 without a rate.
        """
        timeline = self._known_timeline()
        if timeline is not None and max(indices) < len(timeline):
            return [timeline.seconds(index) for index in indices]
        return [
            float(index / self.fps) if self.fps else 0.0 for index in indices
        ]

    def _known_timeline(self) -> Timeline | None:
        return self.timeline if self.fps else None

    @property
    def has_variable_rate(self) -> bool:
        """bool: Whether frame intervals differ, as far as known."""
        return bool(self.fps) and self.timeline.is_variable

    @abstractmethod
    def close(self) -> None:
        """Release the file; the reader cannot be used afterwards."""

    def cancel(self) -> None:
        """Ask a read in another thread to stop soon."""
        self._cancelled = True

    def __enter__(self) -> 'VideoReader':
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _check_indices(self, indices: Sequence[int]) -> None:
        """Refuse numbers that no file can have."""
        if len(indices) == 0 or min(indices) < 0:
            raise ValueError(
                f'{self.path}: expected at least one frame number, none '
                f'of them negative, but got {list(indices)[:8]}.'
            )

    def _step(self) -> None:
        """Count a packet or frame; raise if :meth:`cancel` was called."""
        self.progress += 1
        if self._cancelled:
            raise VideoTimeoutError(f'{self.path}: reading was given up.')

    def _ended(self, delivered: int, wanted: int) -> VideoEndError:
        """Lower ``num_frames`` and return the error to raise."""
        promised, self.num_frames = self.num_frames, delivered
        return VideoEndError(
            f'{self.path}: frame {wanted} was asked for and {promised} frames '
            f'were expected, but only {delivered} can be decoded. Download or '
            'encode the file again, or leave it out.'
        )


def name_of(source: str | bytes) -> str:
    """Return the name of a video for messages."""
    if isinstance(source, str):
        return source
    return f'<video of {len(source)} bytes in memory>'
