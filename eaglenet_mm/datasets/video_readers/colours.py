"""What a stream says of its colours, and what readers make of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from .orientation import Orientation

# Of ISO/IEC 23091-2, with the names that FFmpeg prints.
_MATRICES = {
    0: 'RGB',
    1: 'BT.709',
    2: 'not stated',
    4: 'FCC',
    5: 'BT.601',
    6: 'BT.601',
    7: 'SMPTE 240M',
    8: 'YCgCo',
    9: 'BT.2020',
    10: 'BT.2020 of constant luminance',
    11: 'SMPTE 2085',
    12: 'derived from the primaries',
    13: 'derived from the primaries, of constant luminance',
    14: 'ICtCp',
    15: 'IPT-C2',
    16: 'YCgCo-Re',
    17: 'YCgCo-Ro',
}
_FULL_RANGE = 2
# What a reader may take colours for, as arguments of PyAV's reformat().
_MISTAKES = {
    f'{matrix}, {name} range': dict(
        src_colorspace=colorspace, src_color_range=number
    )
    for matrix, colorspace in (
        ('BT.601', 'ITU601'),
        ('BT.709', 'ITU709'),
        ('BT.2020', 'BT2020'),
    )
    for name, number in (('limited', 1), ('full', _FULL_RANGE))
}


def describe_colours(frame: Any) -> str:
    """Name the colour matrix and the range of a frame.

    Args:
        frame (av.VideoFrame): Decoded, not converted.

    Returns:
        str: Such as ``'BT.709, full range'``.
    """
    number = int(frame.colorspace)
    matrix = _MATRICES.get(number, f'number {number}')
    full = int(frame.color_range) == _FULL_RANGE
    return f'{matrix}, {"full" if full else "limited"} range'


def taken_for(
    frame: Any, image: np.ndarray, orientation: Orientation, most: float
) -> str:
    """Find the colours that another reader took a frame's for.

    Args:
        frame (av.VideoFrame): Decoded, not converted.
        image (np.ndarray): What the other reader made of it, RGB, turned,
            shape ``(h, w, 3)``.
        orientation (Orientation): How it is turned.
        most (float): Largest mean difference of grey levels at which two
            pictures are the same.

    Returns:
        str: Like :func:`describe_colours`; empty if none explains it.
    """
    differences = {}
    for name, colours in _MISTAKES.items():
        other = frame.reformat(format='rgb24', **colours).to_ndarray()
        other = orientation.apply(other)
        if other.shape != image.shape:
            return ''
        differences[name] = np.abs(other.astype(np.int16) - image).mean()
    best = min(differences, key=lambda name: differences[name])
    return best if differences[best] <= most else ''
