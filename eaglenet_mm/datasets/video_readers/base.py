"""What every video reader offers, and its errors."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from fractions import Fraction
from types import TracebackType

import numpy as np


class VideoReadError(RuntimeError):
    """A video cannot be opened or decoded; the message names the file."""


class VideoEndError(VideoReadError):
    """A video ended before a frame that was asked for.

    The reader that raises it has already lowered its ``num_frames`` to what
    the file delivers, so the caller can sample again.
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
        name (str): What messages call it. Defaults to the path, or to the
            size of the content.

    Attributes:
        source (str | bytes): As given.
        path (str): What messages call it.
        fps (Fraction): Mean frame rate in frames per second; 0 if the file
            does not say.
        num_frames (int): Frames that the file holds, as far as known before
            decoding. Lowered when decoding finds fewer.
        num_frames_reported (int): Frames that the header promises, which is
            what the authors' release counts with. Not to be trusted.
    """

    def __init__(self, source: str | bytes, *, name: str = '') -> None:
        self.source = source
        self.path = name or (
            source
            if isinstance(source, str)
            else f'<video of {len(source)} bytes in memory>'
        )
        self.fps = Fraction(0)
        self.num_frames = 0
        self.num_frames_reported = 0
        self._cancelled = False

    @abstractmethod
    def get_batch(self, indices: Sequence[int]) -> np.ndarray:
        """Decode frames.

        Args:
            indices (Sequence[int]): Numbers of frames in order of display,
                from 0, in any order, repeats allowed.

        Returns:
            np.ndarray: RGB, turned as the file asks, uint8, shape
            ``(n, h, w, 3)``.

        Raises:
            VideoEndError: If the file holds fewer frames.
            VideoReadError: If a frame cannot be decoded.
        """

    def frame_times(self, indices: Sequence[int]) -> list[float]:
        """Say when frames are shown.

        Args:
            indices (Sequence[int]): Numbers of frames.

        Returns:
            list[float]: Seconds; by the mean rate where the reader does not
            know better, and 0 where there is none.
        """
        return [
            float(index / self.fps) if self.fps else 0.0 for index in indices
        ]

    @abstractmethod
    def close(self) -> None:
        """Release the file; the reader cannot be used afterwards."""

    def cancel(self) -> None:
        """Ask a read that goes on in another thread to stop soon."""
        self._cancelled = True

    def __enter__(self) -> 'VideoReader':
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _check_indices(self, indices: Sequence[int]) -> None:
        """Refuse numbers that cannot be frames of this file."""
        if len(indices) == 0 or min(indices) < 0:
            raise ValueError(
                f'{self.path}: expected at least one frame number, none of '
                f'them negative, but got {list(indices)[:8]}.'
            )

    def _check_cancelled(self) -> None:
        """Stop between two frames if :meth:`cancel` was called."""
        if self._cancelled:
            raise VideoTimeoutError(f'{self.path}: reading was given up.')

    def _ended(self, delivered: int, wanted: int) -> VideoEndError:
        """Lower ``num_frames`` and make the error that says so."""
        promised, self.num_frames = self.num_frames, delivered
        return VideoEndError(
            f'{self.path}: frame {wanted} was asked for and {promised} frames '
            f'were expected, but only {delivered} can be decoded. Copy or '
            'encode the file again, or leave it out of the annotation.'
        )
