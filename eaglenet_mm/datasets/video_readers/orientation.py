"""Rotation and mirroring of videos for display."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

# FFmpeg's filters for counterclockwise quarter turns
_TURNS: tuple[tuple[tuple[str, ...], ...], ...] = (
    (),
    (('transpose', 'cclock'),),
    (('hflip',), ('vflip',)),
    (('transpose', 'clock'),),
)


@dataclass(frozen=True)
class Orientation:
    """Rotation by quarter turns after optional horizontal mirroring.

    Turns are counterclockwise. The orientation of a file is that of its first
    frame: an H.264 stream states it for some frames only.
    """

    quarter_turns: int = 0
    mirrored: bool = False

    @classmethod
    def of_frame(cls, frame: Any) -> Orientation:
        """Read the display matrix of the first frame of a file.

        The result is the nearest orientation: 10 degrees count as no turn, and
        scale and shift are ignored. Without a matrix, or with a singular one,
        nothing is turned.
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
        """Read the rotation that OpenCV, used by the release, applies.

        OpenCV knows the angle only, so a horizontal mirror is a half turn and
        a vertical one nothing. It applies whole quarter turns only, and only
        those of the container, not of an H.264 stream. The container's matrix
        is the one found on both of the first two frames.
        """
        angles = {_opencv_angle(*_matrix(frame)) for frame in frames}
        if len(angles) != 1:
            return cls()
        [angle] = angles
        return cls(angle // 90 % 4) if angle % 90 == 0 else cls()

    @property
    def swaps_sides(self) -> bool:
        """Whether height and width are swapped."""
        return self.quarter_turns % 2 == 1

    @property
    def filters(self) -> tuple[tuple[str, ...], ...]:
        """Names and arguments of FFmpeg filters."""
        mirror = (('hflip',),) if self.mirrored else ()
        return mirror + _TURNS[self.quarter_turns]

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Orient an image, shape ``(h, w, 3)``, for display; a view."""
        if self.mirrored:
            image = image[:, ::-1]
        return np.rot90(image, self.quarter_turns)


def _matrix(frame: Any) -> tuple[int, int, int, int]:
    """Return the images (x, y) of a step to the right and a step down."""
    data = frame.side_data.get('DISPLAYMATRIX')
    if data is None:
        return 1, 0, 0, 1
    a, b, _, c, d = struct.unpack_from('=5i', bytes(data))
    return a, b, c, d


def _opencv_angle(a: int, b: int, c: int, d: int) -> int:
    """Whole degrees counterclockwise; FFmpeg normalises columns first."""
    widths = math.hypot(a, c), math.hypot(b, d)
    if not all(widths):
        return 0
    return -round(math.degrees(math.atan2(b / widths[1], a / widths[0])))
