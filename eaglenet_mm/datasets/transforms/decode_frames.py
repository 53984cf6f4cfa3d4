"""Decoding of the sampled frames."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.logging import print_log

from eaglenet_mm.datasets.video_readers import (
    VideoEndError,
    VideoReader,
    VideoReadError,
    VideoTimelineError,
)
from eaglenet_mm.registry import SCOPE, TRANSFORMS


@TRANSFORMS.register_module()
class DecodeFrames(BaseTransform):
    """Decode the sampled frames and close the video.

    Reads ``video_reader``, ``frame_indices``, ``frame_sampler``; adds
    ``frames`` (RGB, uint8, shape ``(n, h, w, 3)``), ``frame_times`` (seconds
    from the start of the presentation), ``pixel_aspect`` (pixel width over
    pixel height) and ``num_frames_found`` (int); removes the reader and the
    sampler. A file with fewer frames than its header claims is sampled again
    from its actual frames, with a warning.

    With ``mode='release'`` of the sampler, frames are rotated as in the
    authors' release: by quarter turns only, so mirroring is not undone.

    Args:
        resize (dict, optional): Transform of ``frames`` applied to each frame
            as it is decoded, such as ``dict(type='ResizeCenterCrop',
            size=224)``, so that full-size frames are never all in memory.
            Default: None.

    Example:
        >>> DecodeFrames(resize=dict(type='ResizeCenterCrop', size=224))
        DecodeFrames(resize=ResizeCenterCrop(size=224))
    """

    def __init__(self, resize: dict[str, Any] | None = None) -> None:
        self.resize = None
        if resize is not None:
            self.resize = TRANSFORMS.build({'_scope_': SCOPE, **resize})
        self._told: set[str] = set()

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Decode the frames of an item; see :meth:`decode`."""
        return self.decode(results)

    def decode(
        self,
        results: dict[str, Any],
        on_frame: Callable[[int, np.ndarray], None] | None = None,
    ) -> dict[str, Any]:
        """Decode the frames of an item.

        Args:
            results (dict): Output of :class:`SampleFrames`.
            on_frame (Callable, optional): Called with the number and the image
                of each frame before resizing, possibly twice. Default: None.

        Raises:
            VideoReadError: If a frame, or all of them, cannot be decoded.
        """
        reader = results.pop('video_reader')
        sampler = results.pop('frame_sampler', None)
        reader.follows_release = getattr(sampler, 'mode', '') == 'release'

        def each(number: int, frame: np.ndarray) -> np.ndarray:
            if on_frame is not None:
                on_frame(number, frame)
            return self.finish(frame, reader)

        def read(indices: Sequence[int]) -> np.ndarray:
            if on_frame is None and self.resize is None:
                return reader.get_batch(indices)
            return reader.get_batch(indices, each)

        with reader:
            try:
                frames = self._read(reader, sampler, results, read)
            except VideoReadError as err:
                raise VideoReadError(
                    f"Video '{results.get('video_id')}': {err}"
                ) from err
            self._tell_odd_rate(reader, results)
            results['frame_times'] = clock_times(reader, results)
            results['pixel_aspect'] = reader.pixel_aspect
        results['frames'] = frames
        results['num_frames_found'] = len(frames)
        return results

    def finish(self, frame: np.ndarray, reader: VideoReader) -> np.ndarray:
        """Resize a frame of a reader, shape ``(h, w, 3)``, if configured."""
        if self.resize is None:
            return frame
        results = dict(frames=frame[None], pixel_aspect=reader.pixel_aspect)
        return self.resize(results)['frames'][0]

    @staticmethod
    def _read(
        reader: VideoReader,
        sampler: Any,
        results: dict[str, Any],
        read: Callable[[Sequence[int]], np.ndarray],
    ) -> np.ndarray:
        """Decode the frames, resampled if the header was wrong."""
        try:
            return read(results['frame_indices'])
        except (VideoEndError, VideoTimelineError) as err:
            if sampler is None or reader.num_frames == 0:
                raise
            if isinstance(err, VideoEndError):
                print_log(
                    f"Video '{results.get('video_id')}' is sampled from its "
                    f'actual frames: {err}',
                    logger='current',
                    level=logging.WARNING,
                )
        again = sampler.transform({**results, 'video_reader': reader})
        results['frame_indices'] = again['frame_indices']
        return read(results['frame_indices'])

    def _tell_odd_rate(
        self, reader: VideoReader, results: dict[str, Any]
    ) -> None:
        """Warn once per file where frame numbers do not match the clock."""
        if (
            not reader.follows_release
            or not reader.has_variable_rate
            or reader.path in self._told
        ):
            return
        self._told.add(reader.path)
        print_log(
            f"Video '{results.get('video_id')}' ({reader.path}) has a "
            "variable frame rate. SampleFrames(mode='release') assumes its "
            f'mean rate, {float(reader.fps):.4g} frames per second, so the '
            "sampled frames are not one second apart, and 'start' and 'end' "
            "are not actual seconds. mode='clean' uses the actual times.",
            logger='current',
            level=logging.WARNING,
        )

    def __repr__(self) -> str:
        resize = '' if self.resize is None else f'resize={self.resize!r}'
        return f'{type(self).__name__}({resize})'


def clock_times(reader: VideoReader, results: dict[str, Any]) -> list[float]:
    """Return the display time of each frame of an item, in seconds.

    In clean mode, a frame already on display at ``start`` counts as shown from
    ``start`` on.
    """
    times = reader.frame_times(results['frame_indices'])
    start = results.get('start')
    if start is None or reader.follows_release:
        return times
    return [max(time, float(start)) for time in times]
