"""Choice of the reader for a file."""

import os
import stat
from importlib.util import find_spec

from eaglenet_mm.datasets.video_readers.base import (
    VideoReader,
    VideoReadError,
    name_of,
)
from eaglenet_mm.datasets.video_readers.guarded_reader import GuardedReader
from eaglenet_mm.datasets.video_readers.opencv_reader import OpenCVReader
from eaglenet_mm.datasets.video_readers.pyav_reader import PyAVReader
from eaglenet_mm.datasets.video_readers.seeking_readers import (
    DecordReader,
    TorchCodecReader,
)
from eaglenet_mm.utils.near_match import near_match_hint

#: Allowed values of ``backend``.
BACKENDS = ('auto', 'decord', 'pyav', 'opencv', 'torchcodec')

_READERS: dict[str, type[VideoReader]] = {
    'decord': DecordReader,
    'pyav': PyAVReader,
    'opencv': OpenCVReader,
    'torchcodec': TorchCodecReader,
}


def open_video(
    source: str | bytes,
    *,
    backend: str = 'auto',
    num_threads: int = 1,
    time_limit: float = 0,
    name: str = '',
) -> GuardedReader:
    """Open a video with a suitable reader.

    ``'auto'`` is PyAV, which is exact for every container and was the fastest
    in measurements (see ``docs/reading_videos.md``), or OpenCV where PyAV is
    not installed.

    Args:
        source (str | bytes): Path or content of the file.
        backend (str): ``'auto'``, ``'decord'``, ``'pyav'``, ``'opencv'`` or
            ``'torchcodec'``. Default: 'auto'.
        num_threads (int): Decoder threads, 0 for all cores; ignored by
            OpenCV. Default: 1.
        time_limit (float): Seconds without progress after which opening or
            reading fails. Default: 0, no limit.
        name (str): Name in messages, for a video given by its content.

    Returns:
        GuardedReader: The open reader.

    Raises:
        FileNotFoundError: If the file does not exist.
        FileNotFoundError: If there is no such file.
        ValueError: If the backend is unknown.
        ImportError: If the package of the backend is missing.
        VideoReadError: If the file cannot be opened as a video.
        VideoTimeoutError: If opening makes no progress.
    """
    check_backend(backend)
    if isinstance(source, str):
        _check_file(source)
    chosen = backend
    if backend == 'auto':
        chosen = 'pyav' if find_spec('av') is not None else 'opencv'
    options = dict(num_threads=num_threads) if chosen != 'opencv' else {}
    return GuardedReader(
        _READERS[chosen],
        source,
        name=name or name_of(source),
        backend=chosen,
        time_limit=time_limit,
        **options,
    )


def check_backend(backend: str) -> None:
    """Refuse a backend that is not in :data:`BACKENDS`."""
    if backend not in BACKENDS:
        raise ValueError(
            f'Video backend must be one of {list(BACKENDS)}, but got '
            f"{backend!r}. Change 'backend' of OpenVideo."
        )


def _check_file(path: str) -> None:
    """Check a path before a decoder sees it, with better errors."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError) as err:
        if os.path.islink(path):
            raise FileNotFoundError(
                f"Video file '{path}' is a link to '{os.readlink(path)}', "
                'which does not exist. Fix the link, or put the file there.'
            ) from err
        raise FileNotFoundError(
            f"Video file '{path}' does not exist."
            + (
                near_match_hint(path)
                or ' Correct the path, or put the file there.'
            )
        ) from err
    # ValueError: NUL character in the name; OSError: a loop of links
    except (OSError, ValueError) as err:
        raise VideoReadError(
            f'{path!r}: the file cannot be reached ({err}). Correct the '
            'path, or the permissions and links of the folders.'
        ) from err
    if not stat.S_ISREG(mode):
        kind = 'a folder' if stat.S_ISDIR(mode) else 'not a regular file'
        raise VideoReadError(
            f'{path}: expected a video file, but it is {kind}. Correct the '
            'path, or leave it out.'
        )
    if not os.access(path, os.R_OK):
        raise VideoReadError(
            f'{path}: no permission to read the file. Make it readable '
            '(chmod u+r), or leave it out.'
        )
