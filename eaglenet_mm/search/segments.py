"""How videos are cut into segments: windows of equal length, or shots."""

from __future__ import annotations

import math
from contextlib import closing
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from eaglenet_mm.datasets.transforms.frame_sampling import clean_frames
from eaglenet_mm.datasets.video_readers import (
    VideoReader,
    VideoReadError,
    VideoTimelineError,
)
from eaglenet_mm.datasets.windows import Span, cut_windows
from eaglenet_mm.search.records import parse_seconds

#: Instead of a length: a segment is a shot.
SHOTS = 'shots'
#: A longer shot is cut into windows, in seconds.
LONGEST_SHOT = 30.0
#: Frames a second in which cuts are looked for, and their longer side.
_LOOKS = 8
_PIXELS = 160


def check_segment(segment: float | str, overlap: float) -> float | str:
    """Check how videos are to be cut; gives ``segment`` back.

    Args:
        segment (float | str): Seconds of a window, 0 for whole videos, or
            ``'shots'``.
        overlap (float): Share of a window that the next one repeats.

    Raises:
        ValueError: If a value is not allowed.
    """
    if segment == SHOTS:
        if overlap:
            raise ValueError(
                f'Shots do not overlap, but overlap is {overlap}. Leave it '
                'out, or give segments a length.'
            )
        return segment
    if isinstance(segment, str) or not 0 <= segment < math.inf:
        raise ValueError(
            'segment must be a number of seconds, 0 for whole videos or '
            f"'{SHOTS}', but is {segment!r}."
        )
    if not 0 <= overlap < 1 or (overlap and not segment):
        raise ValueError(
            'overlap is the share of a segment that the next one repeats, '
            'from 0 to below 1, and needs a length of segments, but is '
            f'{overlap} with segment={segment}.'
        )
    return float(segment)


def parse_segment(text: str) -> float | str:
    """Read a length of segments: ``10s``, ``1.5m`` or ``shots``."""
    return SHOTS if text.strip() == SHOTS else parse_seconds(text)


def cut_segments(
    reader: VideoReader, segment: float, *, overlap: float = 0.0
) -> list[Span]:
    """Cut an open video into windows of equal length.

    A rest of less than half a window belongs to the last one; what ends
    before the first frame is left out.
    """
    timeline = reader.timeline
    return cut_windows(
        0.0,
        timeline.duration,
        segment,
        stride=segment * (1 - overlap) if overlap else None,
        shown_from=timeline.begin,
    )


def find_shots(reader: Any) -> list[Span]:
    """Find the shots of an open video by its content.

    Eight frames a second are compared in small; a shot is a second long at
    least. Where a damaged file can be read no further, the rest counts as one
    shot. Shots above ``LONGEST_SHOT`` are cut into windows.
    """
    try:
        edges = _find_edges(reader)
    except VideoTimelineError:  # it is corrected now
        edges = _find_edges(reader)
    edges.append(reader.timeline.duration)
    return [
        window
        for start, end in pairwise(edges)
        if end > start
        for window in cut_windows(start, end, LONGEST_SHOT)
    ]


def _find_edges(reader: Any) -> list[float]:
    """Find when shots begin, as far as the video can be read."""
    from scenedetect import FrameTimecode

    timeline = reader.timeline
    edges = [timeline.begin]
    numbers = clean_frames(timeline, fps=_LOOKS)
    detector = make_detector()
    try:
        with closing(reader.stream(numbers)) as frames:
            for place, (_, frame) in enumerate(frames):
                code = FrameTimecode(place, fps=float(_LOOKS))
                for cut in detector.process_frame(code, _small(frame)):
                    edges.append(timeline.seconds(numbers[cut.frame_num]))
    except VideoTimelineError:
        raise
    except VideoReadError:
        pass  # what cannot be read is told later
    return edges


def make_detector() -> Any:
    """Make what finds cuts; an ImportError names what to install."""
    try:
        from scenedetect import ContentDetector
    except ImportError as err:
        raise ImportError(
            'Finding shots needs PySceneDetect. Install it with: pip install '
            "'eaglenet_mm[shots]'"
        ) from err
    return ContentDetector(min_scene_len=_LOOKS)


def _small(frame: np.ndarray) -> np.ndarray:
    """Shrink an RGB frame and turn it into BGR."""
    scale = _PIXELS / max(frame.shape[:2])
    if scale < 1:
        size = [max(1, round(side * scale)) for side in frame.shape[1::-1]]
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    return frame[..., ::-1]
