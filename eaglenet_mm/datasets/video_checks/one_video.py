"""Check of one video: read it as in training, then decode all of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any

from eaglenet_mm.datasets.shared_records import identify
from eaglenet_mm.datasets.transforms.open_video import closed_on_error
from eaglenet_mm.datasets.video_readers import (
    PyAVReader,
    Timeline,
    VideoReadError,
    VideoSamplingError,
)
from eaglenet_mm.datasets.video_readers.orientation import Orientation

#: Outcomes of reading a video; all but ``'ok'`` would stop training.
STATUSES = {
    'ok': 'read without an error',
    'missing': 'the file does not exist',
    'unreadable': 'it cannot be opened or decoded',
    'no frames': 'it opens, but has no decodable frame',
    'not sampled': 'no frame can be sampled as the pipeline asks',
    'hang': 'reading it does not end',
    'crash': 'reading it kills the process',
    'failure': 'a transform of the pipeline fails on it',
}
# A frame count estimated from a rounded duration may be off by one.
_ESTIMATE_SLACK = 1


@dataclass
class VideoCheck:
    """Result of checking one video.

    Args:
        video_id, video, start, end: The item that was checked.
        status (str): One of :data:`STATUSES`.
        error (str): Error message, empty for ``'ok'``.
        notes (list[str]): Anomalies that do not stop training:
            ``'truncated'`` (fewer frames than the header says),
            ``'more frames than promised'``, ``'rotated'``, ``'mirrored'``,
            ``'variable frame rate'``, ``'cut by an error'`` (full decoding
            stops early), ``'not decoded to its end'`` (time limit).
        frames_read, frames_promised, frames_decoded (int): Number of frames
            from the pipeline, by the header (0 if unknown), and decodable.
        fps, duration (float): Mean frame rate, and seconds by the header; 0 if
            unknown.
        width, height (int): Stored size in pixels.
        rotation (int): Counterclockwise, in degrees, a multiple of 90.
        container, codec (str): FFmpeg's names.
        file (tuple[int, int]): Size in bytes and modification time in
            nanoseconds, to recognise the file.
    """

    video_id: str
    video: str
    start: float | None = None
    end: float | None = None
    status: str = 'ok'
    error: str = ''
    notes: list[str] = field(default_factory=list)
    frames_read: int = 0
    frames_promised: int = 0
    frames_decoded: int = 0
    fps: float = 0.0
    duration: float = 0.0
    width: int = 0
    height: int = 0
    rotation: int = 0
    container: str = ''
    codec: str = ''
    file: tuple[int, int] = (-1, -1)

    @classmethod
    def of_item(cls, item: dict[str, Any]) -> VideoCheck:
        """Start the check of an item of a dataset."""
        return cls(
            item['video_id'],
            item['video'],
            item.get('start'),
            item.get('end'),
            file=identify(item['video']),
        )

    def is_of(self, item: dict[str, Any]) -> bool:
        """Whether this check is of the same part of the same file."""
        now = VideoCheck.of_item(item)
        return all(
            getattr(self, name) == getattr(now, name)
            for name in ('video', 'start', 'end', 'file')
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a dict for JSON."""
        return {**asdict(self), 'file': list(self.file)}


def check_video(
    item: dict[str, Any],
    transforms: Sequence[Callable],
    *,
    seconds: float = float('inf'),
) -> VideoCheck:
    """Read a video as in training, then decode all of it.

    A decoder that hangs or crashes affects this process, see
    :func:`check_videos`.

    Args:
        item (dict): Item of the dataset, before the pipeline.
        transforms (Sequence[Callable]): The pipeline up to its frames.
        seconds (float): Time limit from the start, after which full decoding
            is cut short. Default: no limit.

    Returns:
        VideoCheck: The result.
    """
    deadline = time.monotonic() + seconds
    check = VideoCheck.of_item(item)
    try:
        with closed_on_error(item):
            for transform in transforms:
                item = transform(item)
        check.frames_read = len(item['frames'])
    except FileNotFoundError as err:
        check.status, check.error = 'missing', str(err)
        return check
    except VideoSamplingError as err:
        check.status, check.error = 'not sampled', str(err)
    except VideoReadError as err:
        check.status, check.error = 'unreadable', str(err)
    except Exception as err:  # noqa: BLE001 - would end training too
        check.status = 'failure'
        check.error = f'{check.video}: {type(err).__name__}: {err}'
    try:
        _look_at_all(check, deadline)
    # an odd file must not end the check of the others
    except Exception as err:  # noqa: BLE001
        if check.status == 'ok':
            check.notes.append('cut by an error')
            check.error = str(err)
            if not isinstance(err, VideoReadError):
                check.error = (
                    f"{check.video}: decoding all of it with backend 'pyav' "
                    f'failed ({type(err).__name__}: {err}).'
                )
    if check.status != 'ok' and check.container and not check.frames_decoded:
        check.status = 'no frames'
    return check


def _look_at_all(check: VideoCheck, deadline: float) -> None:
    """Decode every frame and note anomalies."""
    if not os.path.isfile(check.video):
        return
    times: list[int] = []
    orientation = Orientation()
    with closing(PyAVReader(check.video)) as reader:
        header = reader.header
        check.container, check.codec = header.container, header.codec
        check.fps, check.duration = float(header.fps), header.duration
        check.frames_promised = header.num_frames_estimated
        frame: Any = None
        try:
            for frame in reader.decode():
                check.frames_decoded += 1
                if check.frames_decoded == 1:
                    check.width, check.height = frame.width, frame.height
                    orientation = Orientation.of_frame(frame)
                if frame.pts is not None:
                    times.append(frame.pts)
                if time.monotonic() > deadline:
                    check.notes.append('not decoded to its end')
                    return
        finally:
            check.rotation = 90 * orientation.quarter_turns
            if check.rotation:
                check.notes.append('rotated')
            if orientation.mirrored:
                check.notes.append('mirrored')
            # containers without display times give decoding times
            base = Fraction(frame.time_base if times else 1)
            if Timeline(sorted(times), base, 0).is_variable:
                check.notes.append('variable frame rate')
            if 'not decoded to its end' not in check.notes:
                slack = 0 if header.num_frames else _ESTIMATE_SLACK
                short = check.frames_promised - check.frames_decoded
                if check.frames_promised and short > slack:
                    check.notes.append('truncated')
                elif check.frames_promised and -short > slack:
                    check.notes.append('more frames than promised')
