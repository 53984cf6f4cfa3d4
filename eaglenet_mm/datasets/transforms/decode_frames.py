"""Read the chosen frames."""

import logging
from typing import Any

from mmcv.transforms import BaseTransform
from mmengine.logging import print_log

from eaglenet_mm.datasets.video_readers import VideoEndError, VideoReadError
from eaglenet_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class DecodeFrames(BaseTransform):
    """Read the chosen frames and close the video.

    Takes ``video_reader``, ``frame_indices``, ``frame_sampler``; adds
    ``frames`` (RGB, uint8, shape ``(n, h, w, 3)``), ``frame_times`` (seconds)
    and ``num_frames_found`` (int); removes the reader and the sampler. A file
    that holds fewer frames than its header promises is sampled again by what
    it holds, with a warning in the log.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Read the frames of an item.

        Args:
            results (dict): Of :class:`SampleFrames`.

        Returns:
            dict: With ``frames``, ``frame_times`` and ``num_frames_found``.

        Raises:
            VideoReadError: If a frame cannot be decoded, or none can.
        """
        reader = results.pop('video_reader')
        sampler = results.pop('frame_sampler', None)
        with reader:
            try:
                frames = self._read(reader, sampler, results)
            except VideoReadError as err:
                raise VideoReadError(
                    f"Video '{results.get('video_id')}': {err}"
                ) from err
        results['frames'] = frames
        results['frame_times'] = reader.frame_times(results['frame_indices'])
        results['num_frames_found'] = len(frames)
        return results

    @staticmethod
    def _read(reader: Any, sampler: Any, results: dict[str, Any]) -> Any:
        """Read the frames, sampled anew if the file ends before its header."""
        try:
            return reader.get_batch(results['frame_indices'])
        except VideoEndError as err:
            if sampler is None or reader.num_frames == 0:
                raise
            print_log(
                f"Video '{results.get('video_id')}' is sampled by the frames "
                f'it holds: {err}',
                logger='current',
                level=logging.WARNING,
            )
        again = sampler.transform({**results, 'video_reader': reader})
        results['frame_indices'] = again['frame_indices']
        return reader.get_batch(results['frame_indices'])

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
