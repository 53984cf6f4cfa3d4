"""Open the video of an item."""

from typing import Any

from mmcv.transforms import BaseTransform

from eaglenet_mm.datasets.video_readers import (
    VideoReadError,
    check_backend,
    open_video,
)
from eaglenet_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class OpenVideo(BaseTransform):
    """Open the video of an item in the process that will read it.

    Takes ``video`` (path), adds ``video_reader``
    (:class:`~eaglenet_mm.datasets.video_readers.VideoReader`), ``fps``
    (Fraction, mean rate) and ``num_frames_reported`` (int, as the header
    promises). :class:`DecodeFrames` closes the reader.

    Args:
        backend (str): ``'auto'`` takes decord where its frames are right,
            PyAV for other containers and when decord fails. ``'decord'``,
            ``'pyav'`` and ``'opencv'`` take that one. Defaults to 'auto'.
        num_threads (int): Threads of the decoder. Defaults to 1: loader
            workers already fill the processors.

    Raises:
        ValueError: If ``backend`` is unknown.
    """

    def __init__(self, backend: str = 'auto', *, num_threads: int = 1) -> None:
        check_backend(backend)
        self.backend = backend
        self.num_threads = num_threads

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Open the video.

        Args:
            results (dict): With ``video`` and ``video_id``.

        Returns:
            dict: With ``video_reader``, ``fps``, ``num_frames_reported``.

        Raises:
            FileNotFoundError: If there is no such file.
            VideoReadError: If it cannot be opened as a video.
        """
        try:
            reader = open_video(
                results['video'],
                backend=self.backend,
                num_threads=self.num_threads,
            )
        except (FileNotFoundError, VideoReadError) as err:
            raise type(err)(f"Video '{results['video_id']}': {err}") from err
        results['video_reader'] = reader
        results['fps'] = reader.fps
        results['num_frames_reported'] = reader.num_frames_reported
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(backend={self.backend!r})'
