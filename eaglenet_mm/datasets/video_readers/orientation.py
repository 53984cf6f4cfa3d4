"""Which way up a video is shown."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

# FFmpeg's filters for quarter turns against the clock
_TURNS: tuple[tuple[tuple[str, ...], ...], ...] = (
    (),
    (('transpose', 'cclock'),),
    (('hflip',), ('vflip',)),
    (('transpose', 'clock'),),
)


@dataclass(frozen=True)
class Orientation:
    """Quarter turns and mirrors, of which all eight can be composed.

    Mirrored left to right first, then turned against the clock. One holds for
    a whole file, that of its first frame: an H.264 stream states it for some
    frames only.
    """

    quarter_turns: int = 0
    mirrored: bool = False

    @classmethod
    def of_frame(cls, frame: Any) -> Orientation:
        """Read the whole display matrix of the first frame of a file.

        The one nearest to it: a turn by 10 degrees is none, scale and shift do
        not count. None without a matrix, or with one that leaves no picture.
        """
        a, b, c, d = _matrix(frame)
        determinant = a * d - b * c
        if not determinant:
            return cls()
        if determinant < 0:
            a, b = -a, -b
        angle = math.atan2(c - b, a + d)
        return cls(round(2 * angle / math.pi) % 4, determinant < 0)

    @classmethod
    def of_release(cls, *frames: Any) -> Orientation:
        """Read how OpenCV, with which the release reads, turns a file.

        It knows the angle alone, so that a mirror left-right is a half turn
        and one of top and bottom is none; it turns by whole quarters only,
        and heeds the container's matrix, not one within an H.264 stream: that
        of the container is on both of the first two frames.
        """
        angles = {_opencv_angle(*_matrix(frame)) for frame in frames}
        if len(angles) != 1:
            return cls()
        [angle] = angles
        return cls(angle // 90 % 4) if angle % 90 == 0 else cls()

    @property
    def swaps_sides(self) -> bool:
        """Whether height and width change places."""
        return self.quarter_turns % 2 == 1

    @property
    def filters(self) -> tuple[tuple[str, ...], ...]:
        """Names and arguments of FFmpeg's filters."""
        mirror = (('hflip',),) if self.mirrored else ()
        return mirror + _TURNS[self.quarter_turns]

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Turn a picture, shape ``(h, w, 3)``, as it is shown; a view."""
        if self.mirrored:
            image = image[:, ::-1]
        return np.rot90(image, self.quarter_turns)


def _matrix(frame: Any) -> tuple[int, int, int, int]:
    """Return where a step to the right goes (x, y), and one down."""
    data = frame.side_data.get('DISPLAYMATRIX')
    if data is None:
        return 1, 0, 0, 1
    a, b, _, c, d = struct.unpack_from('=5i', bytes(data))
    return a, b, c, d


def _opencv_angle(a: int, b: int, c: int, d: int) -> int:
    """Return whole degrees against the clock; FFmpeg scales columns apart."""
    widths = math.hypot(a, c), math.hypot(b, d)
    if not all(widths):
        return 0
    return -round(math.degrees(math.atan2(b / widths[1], a / widths[0])))
