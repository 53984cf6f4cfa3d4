"""Reader on decord, for the files it reads rightly."""

import io
import os
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from .base import EachFrame, VideoReader, VideoReadError, each_in_chunks
from .pyav_reader import refuse_wrong_frames
from .timeline import Timeline


class DecordReader(VideoReader):
    """Seek to key frames with decord.

    Only for what decord reads rightly, see
    :meth:`PyAVReader.others_are_exact`; other files (every MSVD clip is one)
    are refused, since decord would deliver other frames than those asked for,
    without an error.

    Args:
        source (str | bytes): Path of the file, or its content.
        name (str): What messages call it. Defaults to the path.
        num_threads (int): Threads of the decoder, 0 for all cores. Defaults
            to 1.

    Raises:
        ImportError: If decord, or PyAV, which looks at the file, is missing.
        VideoReadError: If the file is no video, or one that decord cannot
            open or does not read rightly.
    """

    def __init__(
        self, source: str | bytes, *, name: str = '', num_threads: int = 1
    ) -> None:
        super().__init__(source, name=name)
        try:
            import decord
        except ImportError as err:
            raise ImportError(
                "Reading videos with decord needs the package 'decord'. "
                "Install it with: pip install decord, or set backend='pyav' "
                'in OpenVideo.'
            ) from err
        # DECORDError derives from Exception alone
        self._failure = (RuntimeError, decord.DECORDError)
        facts = refuse_wrong_frames(source, self.path, 'decord', self._step)
        self._timeline = facts.timeline
        self.pixel_aspect, self.time_note = facts.pixel_aspect, facts.time_note
        # a name with a colon would be taken for an address
        opened = (
            os.path.abspath(source)
            if isinstance(source, str)
            else io.BytesIO(source)
        )
        try:
            self._reader = decord.VideoReader(opened, num_threads=num_threads)
            self.fps = Fraction(self._reader.get_avg_fps()).limit_denominator(
                1_000_000
            )
        except self._failure as err:
            raise VideoReadError(
                f'{self.path}: expected a video, but decord cannot open it '
                f'({_last_line(err)}). Encode the file again, leave it '
                "out, or set backend='auto' in OpenVideo."
            ) from err
        self.num_frames = self.num_frames_reported = len(self._reader)

    @property
    def timeline(self) -> Timeline:
        """Timeline: When frames are shown, by PyAV."""
        return self._timeline

    def get_batch(
        self, indices: Sequence[int], each: EachFrame | None = None
    ) -> np.ndarray:
        """Decode frames; see :meth:`VideoReader.get_batch`."""
        self._check_indices(indices)
        if each is not None:
            return each_in_chunks(self, indices, each)
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
