"""Fast reader on decord, for the containers it reads rightly."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from .base import VideoReader, VideoReadError


class DecordReader(VideoReader):
    """Seek to key frames with decord.

    Right for MP4, MOV, Matroska and FLV. On AVI, MPEG-TS and MPEG-PS decord
    can deliver other frames than those asked for, without an error; use
    :func:`~eaglenet_mm.datasets.video_readers.open_video` to have the reader
    chosen by the container.

    Args:
        path (str): The file.
        num_threads (int): Threads of the decoder. Defaults to 1.

    Raises:
        ImportError: If decord is missing.
        VideoReadError: If the file is no video, or one decord cannot open.
    """

    def __init__(self, path: str, *, num_threads: int = 1) -> None:
        super().__init__(path)
        try:
            import decord
        except ImportError as err:
            raise ImportError(
                "Reading videos with decord needs the package 'decord'. "
                "Install it with: pip install 'eaglenet_mm[video]', or set "
                "backend='pyav' in OpenVideo."
            ) from err
        # DECORDError derives from Exception alone
        self._failure = (RuntimeError, decord.DECORDError)
        try:
            self._reader = decord.VideoReader(path, num_threads=num_threads)
        except self._failure as err:
            raise VideoReadError(
                f'{path}: expected a video, but decord cannot open it '
                f'({_last_line(err)}). Encode the file again, leave it out '
                "of the annotation, or set backend='auto' in OpenVideo."
            ) from err
        self.fps = Fraction(self._reader.get_avg_fps()).limit_denominator(
            1_000_000
        )
        self.num_frames = self.num_frames_reported = len(self._reader)

    def get_batch(self, indices: Sequence[int]) -> np.ndarray:
        """Decode frames; see :meth:`VideoReader.get_batch`."""
        self._check_indices(indices)
        if max(indices) >= self.num_frames:
            raise self._ended(self.num_frames, max(indices))
        # unsorted access is where decord is least exact
        ordered, inverse = np.unique(np.asarray(indices), return_inverse=True)
        try:
            frames = self._reader.get_batch(ordered.tolist()).asnumpy()
        except self._failure as err:
            raise VideoReadError(
                f'{self.path}: decord failed to decode frames '
                f'{ordered.tolist()[:8]} ({_last_line(err)}). Encode the file '
                "again, or set backend='auto' in OpenVideo."
            ) from err
        return frames[inverse]

    def close(self) -> None:
        """Release the file."""
        self.__dict__.pop('_reader', None)  # twice does no harm


def _last_line(error: BaseException) -> str:
    """Shorten decord's messages, which carry a stack trace."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0][-200:] if lines else type(error).__name__
