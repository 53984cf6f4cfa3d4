"""Opening of the video of an item."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from mmcv.transforms import BaseTransform
from mmengine.fileio import get

from eaglenet_mm.datasets.video_readers import (
    VideoReadError,
    check_backend,
    open_video,
)
from eaglenet_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class OpenVideo(BaseTransform):
    """Open the video of an item in the process that will read it.

    Reads ``video`` (path), adds ``video_reader``
    (:class:`~eaglenet_mm.datasets.video_readers.VideoReader`), ``fps``
    (Fraction, mean rate) and ``num_frames_reported`` (int, according to the
    header). :class:`DecodeFrames` closes the reader.

    Args:
        backend (str): ``'auto'`` takes the best installed reader that suits
            the file, see
            :func:`~eaglenet_mm.datasets.video_readers.open_video`.
            ``'decord'``, ``'pyav'``, ``'opencv'`` and ``'torchcodec'`` force
            one. Default: 'auto'.
        num_threads (int): Decoder threads, 0 for all cores. Default: 1, since
            loader workers already use the cores.
        time_limit (float): Seconds without progress after which the video
            counts as unreadable; 0 for no limit. Default: 120.
        backend_args (dict, optional): Storage backend for MMEngine's
            ``fileio.get``, such as ``dict(backend='http')``. The file is then
            read into memory as a whole. Default: None, the file system.

    Raises:
        ValueError: If ``backend`` is unknown or a number is negative.

    Example:
        >>> OpenVideo(backend='pyav', time_limit=10)
        OpenVideo(backend='pyav')
    """

    def __init__(
        self,
        backend: str = 'auto',
        *,
        num_threads: int = 1,
        time_limit: float = 120,
        backend_args: dict[str, Any] | None = None,
    ) -> None:
        check_backend(backend)
        if num_threads < 0 or time_limit < 0:
            raise ValueError(
                'num_threads and time_limit must be at least 0, but got '
                f'{num_threads} and {time_limit}. Change the OpenVideo entry '
                'of the pipeline.'
            )
        self.backend = backend
        self.num_threads = num_threads
        self.time_limit = time_limit
        self.backend_args = backend_args

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Open the video of an item.

        Raises:
            FileNotFoundError: If the file does not exist.
            VideoReadError: If it cannot be opened as a video.
        """
        path = results['video']
        try:
            reader = open_video(
                path
                if self.backend_args is None
                else get(path, backend_args=self.backend_args),
                backend=self.backend,
                num_threads=self.num_threads,
                time_limit=self.time_limit,
                name=path,
            )
        except (FileNotFoundError, VideoReadError) as err:
            raise type(err)(f"Video '{results['video_id']}': {err}") from err
        except OSError as err:  # from the storage backend
            raise VideoReadError(
                f"Video '{results['video_id']}': {path} could not be fetched "
                f'({type(err).__name__}: {err}). Check its address and '
                "'backend_args' of OpenVideo."
            ) from err
        results['video_reader'] = reader
        results['fps'] = reader.fps
        results['num_frames_reported'] = reader.num_frames_reported
        return results

    def __repr__(self) -> str:
        elsewhere = (
            f', backend_args={self.backend_args}' if self.backend_args else ''
        )
        return f'{type(self).__name__}(backend={self.backend!r}{elsewhere})'


@contextmanager
def closed_on_error(results: dict[str, Any]) -> Iterator[None]:
    """Close the ``video_reader`` of an item if its pipeline raises."""
    try:
        yield
    except BaseException:
        if 'video_reader' in results:
            # the original error is more useful
            with suppress(VideoReadError):
                results.pop('video_reader').close()
        raise
