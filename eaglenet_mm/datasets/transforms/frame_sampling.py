"""Which frames of a video are read, and which of these are kept."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from eaglenet_mm.datasets.video_readers import Timeline

#: How the frames read are reduced to ``num_frames``.
SELECTIONS = ('uniform', 'head', 'tail')


def release_seeks(
    video_fps: float | Fraction,
    frame_count: int,
    *,
    start: float | None = None,
    end: float | None = None,
    fps: int = 1,
) -> list[int]:
    """List the positions that the authors' release seeks to.

    The frame rate is cut to an integer, so sampling runs ahead of the clock
    for rates such as 29.97. The last second is included: ``0..31`` s are up
    to 32 seconds.

    Args:
        video_fps (float | Fraction): Frame rate of the video.
        frame_count (int): Frames that the header promises.
        start (float, optional): First second. Defaults to 0.
        end (float, optional): Last second. Defaults to the end.
        fps (int): Frames a second; 0 means all of them. Defaults to 1.

    Returns:
        list[int]: Positions, beyond the end of the video too.

    Raises:
        ValueError: If the video has less than one frame a second, or less
            than ``fps``; the release stops or gives an all-zero video there.
    """
    rate = int(video_fps)
    if rate < 1:
        raise ValueError(
            'Release sampling cuts the frame rate to an integer and needs at '
            f'least 1 frame a second, but got {float(video_fps):g}. Use '
            "SampleFrames(mode='clean'), or encode the video again."
        )
    if fps > rate:
        raise ValueError(
            f'Release sampling cannot take {fps} frames a second of a video '
            f"with {rate}. Lower fps of SampleFrames, or use mode='clean'."
        )
    num_seconds = math.ceil(frame_count / rate)
    first = 0 if start is None else start
    last = num_seconds if end is None else min(end, num_seconds)
    offsets = range(0, rate, rate // fps)[:fps] if fps else range(rate)
    return [
        int((first + second) * rate) + offset
        for second in range(math.floor(last - first) + 1)
        for offset in offsets
    ]


def release_frames(
    seeks: Sequence[int], *, frame_count: int, decodable: int
) -> list[int]:
    """Find the frames that the release reads at these positions.

    Args:
        seeks (Sequence[int]): Of :func:`release_seeks`.
        frame_count (int): Frames that the header promises; a position
            beyond it is moved back to it.
        decodable (int): Frames that can be read.

    Returns:
        list[int]: Frame numbers up to the first that cannot be read.
    """
    frames = []
    for seek in seeks:
        frame = min(seek, frame_count)
        if frame >= decodable:
            break
        frames.append(frame)
    return frames


def clean_frames(
    timeline: Timeline,
    *,
    start: float | None = None,
    end: float | None = None,
    fps: float = 1,
) -> list[int]:
    """List the frames on display at ``start + k / fps`` seconds.

    Points in time lie in ``[start, end)`` and before the end of the video.
    Where nothing is on display yet, and the video begins before the next
    point, its first frame is taken. A frame that is on display at several
    points is listed once.

    Args:
        timeline (Timeline): When the frames are shown.
        start (float, optional): Seconds. Defaults to 0.
        end (float, optional): Seconds. Defaults to the end.
        fps (float): Frames a second. Defaults to 1.

    Returns:
        list[int]: Frame numbers, increasing.

    Example:
        >>> clean_frames(Timeline([0, 2, 50], Fraction(1, 10), 60))
        [0, 1, 2]
    """
    if not len(timeline):
        return []
    step = 1 / Fraction(fps)
    begin = _seconds(start or 0)
    limit = timeline.end * timeline.time_base
    if end is not None:
        limit = min(limit, _seconds(end))
    first = timeline.ticks[0] * timeline.time_base
    # the point before the video begins: none before it shows anything
    skipped = max(0, math.ceil((first - begin) / step) - 1)
    frames: dict[int, None] = {}
    for k in range(skipped, math.ceil((limit - begin) / step)):
        point = begin + k * step
        shown = timeline.shown_at(point)
        if shown is None and first < min(point + step, limit):
            shown = 0
        if shown is not None:
            frames[shown] = None
    return list(frames)


def _seconds(value: float) -> Fraction:
    """Turn seconds into the fraction that was meant: 0.1 is 1/10."""
    return Fraction(value).limit_denominator(1_000_000)


def select_frames(
    frames: Sequence[int], num_frames: int, *, selection: str = 'uniform'
) -> list[int]:
    """Keep at most ``num_frames``.

    Args:
        frames (Sequence[int]): Frame numbers.
        num_frames (int): How many to keep.
        selection (str): ``'uniform'`` keeps the places
            ``int(linspace(0, n - 1, num_frames))``, ``'head'`` the first,
            ``'tail'`` the last. Defaults to 'uniform'.

    Returns:
        list[int]: The frames kept, all of them if there are few enough.
    """
    count = len(frames)
    if count <= num_frames:
        return list(frames)
    if selection == 'head':
        return list(frames[:num_frames])
    if selection == 'tail':
        return list(frames[count - num_frames :])
    places = np.linspace(0, count - 1, num_frames, dtype=int)
    return [frames[place] for place in places]
