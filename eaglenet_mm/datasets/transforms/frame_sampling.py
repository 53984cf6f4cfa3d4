"""Choice of the frames of a video to read."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from eaglenet_mm.datasets.video_readers import Timeline, VideoSamplingError
from eaglenet_mm.registry import TRANSFORMS

#: How candidate frames are found.
MODES = ('release', 'clean')

#: How candidates are reduced to ``num_frames``.
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

    The frame rate is truncated to an integer, so sampling runs ahead of the
    clock for rates such as 29.97. The last second is included: ``0..31`` s are
    up to 32 seconds.

    Args:
        video_fps (float | Fraction): Frame rate of the video.
        frame_count (int): Number of frames according to the header.
        start (float, optional): First second. Default: None, which is 0.
        end (float, optional): Last second. Default: None, the end.
        fps (int): Frames per second to take; 0 for all. Default: 1.

    Returns:
        list[int]: Positions, possibly past the end of the video.

    Raises:
        ValueError: If the video has less than one frame per second, or less
            than ``fps``. The release crashes or returns zeros there.
    """
    rate = int(video_fps)
    if rate < 1:
        raise ValueError(
            'Release sampling truncates the frame rate to an integer and '
            'needs at least 1 frame per second, but got '
            f"{float(video_fps):g}. Use SampleFrames(mode='clean'), or encode "
            'the video again.'
        )
    if fps > rate:
        raise ValueError(
            f'Release sampling cannot take {fps} frames per second from a '
            f'video with {rate}. Lower fps of SampleFrames, or use '
            "mode='clean'."
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
        seeks (Sequence[int]): Output of :func:`release_seeks`.
        frame_count (int): Number of frames according to the header; later
            positions are clamped to it.
        decodable (int): Number of frames that can be decoded.

    Returns:
        list[int]: Frame numbers, up to the first that cannot be decoded.
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

    Sampling times lie in ``[start, end)`` and before the end of the video. If
    the first frame appears only after a sampling time but before the next, it
    is used for that time. A frame on display at several times is listed once.

    Args:
        timeline (Timeline): Display times of the frames.
        start (float, optional): Seconds. Default: None, which is 0.
        end (float, optional): Seconds. Default: None, the end.
        fps (float): Frames per second. Default: 1.

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
    # skip to the last sampling time before the first frame
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
    """Convert seconds to the intended fraction: 0.1 is 1/10."""
    return Fraction(value).limit_denominator(1_000_000)


def select_frames(
    frames: Sequence[int], num_frames: int, *, selection: str = 'uniform'
) -> list[int]:
    """Keep at most ``num_frames`` frames.

    Args:
        frames (Sequence[int]): Frame numbers.
        num_frames (int): Maximum number to keep.
        selection (str): ``'uniform'`` keeps the positions
            ``int(linspace(0, n - 1, num_frames))``, ``'head'`` the first,
            ``'tail'`` the last frames. Default: 'uniform'.

    Returns:
        list[int]: The kept frame numbers.
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


@TRANSFORMS.register_module()
class SampleFrames(BaseTransform):
    """Sample frames at a fixed rate, then keep at most ``num_frames``.

    Reads ``video_reader``, ``start``, ``end`` (seconds or None); adds
    ``frame_indices`` (list[int]) and ``frame_sampler`` (this transform, with
    which :class:`DecodeFrames` resamples files whose header was wrong).

    ``mode='release'`` reproduces the authors' release: frame rate truncated to
    an integer, last second included, stop at the first undecodable frame.
    **Differs from the release**, which crashes or continues with all-zero
    frames, by raising if the frame rate is below 1 or below ``fps``, or if no
    frame is in the range. ``mode='clean'`` takes the frame on display at each
    sampling time, see :func:`clean_frames`; correct for variable frame rates.

    Args:
        num_frames (int): Maximum number of frames of an item.
        fps (float): Frames per second; in release mode an integer, where 0
            means every frame. Default: 1.
        mode (str): ``'release'`` or ``'clean'``. Default: 'release'.
        selection (str): ``'uniform'``, ``'head'`` or ``'tail'``; see
            :func:`select_frames`. Default: 'uniform'.

    Raises:
        ValueError: If an argument is invalid.

    Example:
        >>> SampleFrames(num_frames=2).sample(25, 75, decodable=75)
        [0, 50]
    """

    def __init__(
        self,
        num_frames: int,
        fps: float = 1,
        *,
        mode: str = 'release',
        selection: str = 'uniform',
    ) -> None:
        if num_frames < 1:
            raise ValueError(
                f'num_frames must be at least 1, but got {num_frames}. Set '
                'it to the num_frames of the head.'
            )
        if mode not in MODES or selection not in SELECTIONS:
            raise ValueError(
                f'mode must be one of {list(MODES)} and selection one of '
                f'{list(SELECTIONS)}, but got {mode!r} and {selection!r}. '
                'Change the SampleFrames entry of the pipeline.'
            )
        if mode == 'release' and (fps < 0 or int(fps) != fps):
            raise ValueError(
                "fps must be an integer of at least 0 in mode='release', but "
                f"got {fps}. Round it, or use mode='clean'."
            )
        if mode == 'clean' and fps <= 0:
            raise ValueError(
                f"fps must be positive in mode='clean', but got {fps}. Set "
                'it to the number of frames to take per second.'
            )
        self.num_frames = num_frames
        self.fps = fps
        self.mode = mode
        self.selection = selection

    def sample(
        self,
        video_fps: float | Fraction,
        frame_count: int,
        *,
        decodable: int,
        start: float | None = None,
        end: float | None = None,
        timeline: Timeline | None = None,
    ) -> list[int]:
        """Sample frames of a video with the given properties.

        Args:
            video_fps (float | Fraction): Frame rate.
            frame_count (int): Number of frames according to the header.
            decodable (int): Number of frames that can be decoded.
            start (float, optional): First second. Default: None, which is 0.
            end (float, optional): End in seconds. Default: None, the end.
            timeline (Timeline, optional): Display times, for ``mode='clean'``.
                Default: None, constant ``video_fps``.

        Returns:
            list[int]: 1 to ``num_frames`` frame numbers.

        Raises:
            ValueError: If the rate is too low, or no frame is in the range.
        """
        if self.mode == 'release':
            seeks = release_seeks(
                video_fps, frame_count, start=start, end=end, fps=int(self.fps)
            )
            frames = release_frames(
                seeks, frame_count=frame_count, decodable=decodable
            )
        else:
            if timeline is None:
                timeline = Timeline.at_rate(video_fps, decodable)
            frames = clean_frames(timeline, start=start, end=end, fps=self.fps)
        if not frames:
            length = (
                f'at {float(video_fps):g} per second'
                if timeline is None
                else f'shown from {timeline.begin:g} to '
                f'{timeline.duration:g} seconds'
            )
            mend = (
                'Encode it again, or leave it out.'
                if start is None and end is None
                else "Correct its 'start' and 'end', or leave it out."
            )
            raise ValueError(
                f'No frame lies between {start or 0} and {end} seconds of a '
                f'video of {decodable} frames {length}. {mend}'
            )
        return select_frames(frames, self.num_frames, selection=self.selection)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Sample the frames of an item.

        Raises:
            VideoSamplingError: As :meth:`sample`, with the id and the path.
        """
        reader = results['video_reader']
        try:
            results['frame_indices'] = self.sample(
                reader.fps,
                reader.num_frames_reported,
                decodable=reader.num_frames,
                start=results.get('start'),
                end=results.get('end'),
                timeline=reader.timeline if self.mode == 'clean' else None,
            )
        except ValueError as err:
            raise VideoSamplingError(
                f"Video '{results.get('video_id')}' ({reader.path}): {err}"
            ) from err
        results['frame_sampler'] = self
        return results

    def __repr__(self) -> str:
        # part of the key of frame caches: mode='clean' used to choose other
        # frames, before it went by display times
        clock = ", by='clock'" if self.mode == 'clean' else ''
        return (
            f'{type(self).__name__}(num_frames={self.num_frames}, '
            f'fps={self.fps}, mode={self.mode!r}, '
            f'selection={self.selection!r}{clock})'
        )
