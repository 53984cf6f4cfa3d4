"""Reader on decord, for the files it reads rightly."""

import io
import os
from collections.abc import Sequence
from fractions import Fraction
from importlib.util import find_spec
from typing import Any

import numpy as np

from .base import VideoReader, VideoReadError
from .video_header import read_header

# First bytes of MP4 and MOV files are a length and the name of their first
# box; those of Matroska and WebM are fixed.
_BOXES = {b'ftyp', b'moov', b'mdat', b'wide', b'free', b'skip', b'pnot'}
_EBML = b'\x1a\x45\xdf\xa3'


class DecordReader(VideoReader):
    """Seek to key frames with decord.

    Only for what decord reads rightly: MP4, MOV and Matroska with one stream
    of 8-bit H.264, VP8 or VP9. On AVI (every MSVD clip), MPEG-TS and MPEG-PS
    decord delivers other frames than those asked for, without an error; such
    files are refused.

    Args:
        source (str | bytes): Path of the file, or its content.
        name (str): What messages call it. Defaults to the path.
        num_threads (int): Threads of the decoder, 0 for all cores. Defaults
            to 1.

    Raises:
        ImportError: If decord is missing.
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
        self._refuse_wrong_frames()
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
                f'({_last_line(err)}). Encode the file again, leave it out '
                "of the annotation, or set backend='auto' in OpenVideo."
            ) from err
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

    def _refuse_wrong_frames(self) -> None:
        """Refuse a file of which decord would deliver other frames."""
        if find_spec('av') is not None:
            header: Any = read_header(self.source, name=self.path)
            found = (
                f'{header.container} with {header.num_video_streams} video '
                f'stream(s), {header.codec} {header.pixel_format}'
            )
            right = header.seeking_is_exact
        else:
            found = 'another container'
            right = _is_mov_or_matroska(self.source)
        if not right:
            raise VideoReadError(
                f'{self.path}: decord is right on MP4, MOV and Matroska with '
                f'one stream of 8-bit H.264, VP8 or VP9, but this is {found}, '
                'where it can deliver other frames than those asked for. Set '
                "backend='auto' or 'pyav' in OpenVideo."
            )


def _is_mov_or_matroska(source: str | bytes) -> bool:
    """Tell the container by its first bytes, where PyAV is missing."""
    if isinstance(source, str):
        with open(source, 'rb') as file:
            source = file.read(8)
    # what is too short to tell is left to decord's own error
    return source[:4] == _EBML or source[4:8] in _BOXES or len(source) < 8


def _last_line(error: BaseException) -> str:
    """Shorten decord's messages, which carry a stack trace."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0][-200:] if lines else type(error).__name__
