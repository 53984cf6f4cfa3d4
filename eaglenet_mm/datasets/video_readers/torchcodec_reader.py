"""Reader on torchcodec, where it is installed."""

from collections.abc import Sequence

import numpy as np

from .base import EachFrame, VideoReader, VideoReadError, each_in_chunks
from .pyav_reader import refuse_wrong_frames
from .timeline import Timeline


class TorchCodecReader(VideoReader):
    """Read with torchcodec, which scans the file before it seeks.

    Only for what it reads rightly, see :meth:`PyAVReader.others_are_exact`: in
    AVI with B-frames torchcodec was found to deliver other frames than those
    asked for, and from MPEG-TS and MPEG-PS none.

    Args:
        source (str | bytes): Path of the file, or its content.
        name (str): What messages call it. Defaults to the path.
        num_threads (int): Threads of the decoder, 0 for all cores. Defaults
            to 1.

    Raises:
        ImportError: If torchcodec, the FFmpeg libraries it loads, or PyAV,
            which reads the header, are missing.
        VideoReadError: If the file is no video, or one that torchcodec
            cannot open or does not read rightly.
    """

    def __init__(
        self, source: str | bytes, *, name: str = '', num_threads: int = 1
    ) -> None:
        super().__init__(source, name=name)
        try:
            from torchcodec.decoders import VideoDecoder
        # without FFmpeg's libraries it raises RuntimeError
        except (ImportError, RuntimeError, OSError) as err:
            raise _lacks_library(err) from err
        facts = refuse_wrong_frames(
            source, self.path, 'torchcodec', self._step
        )
        try:
            self._decoder = VideoDecoder(
                source,
                dimension_order='NHWC',
                num_ffmpeg_threads=num_threads,
                seek_mode='exact',
            )
            self.num_frames = len(self._decoder)
        except (RuntimeError, ValueError, IndexError) as err:
            if 'libtorchcodec' in str(err):  # its last releases load it here
                raise _lacks_library(err) from err
            raise VideoReadError(
                f'{self.path}: expected a video, but torchcodec cannot open '
                f'it ({str(err).strip()[:200]}). Encode the file again, leave '
                "it out, or set backend='auto' in OpenVideo."
            ) from err
        self.fps = facts.header.fps
        self.num_frames_reported = (
            facts.header.num_frames_estimated or self.num_frames
        )
        self._timeline = facts.timeline
        self.pixel_aspect, self.time_note = facts.pixel_aspect, facts.time_note

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
        try:
            return self._decoder.get_frames_at(list(indices)).data.numpy()
        except (RuntimeError, ValueError, IndexError) as err:
            raise VideoReadError(
                f'{self.path}: torchcodec failed to decode frames '
                f'{list(indices)[:8]} ({str(err).strip()[:200]}). Encode the '
                "file again, or set backend='auto' in OpenVideo."
            ) from err

    def close(self) -> None:
        """Release the file."""
        self.__dict__.pop('_decoder', None)  # twice does no harm


def _lacks_library(err: Exception) -> ImportError:
    return ImportError(
        "Reading videos with torchcodec needs the package 'torchcodec' and "
        'the libraries of FFmpeg. Install both, or set '
        f"backend='auto' in OpenVideo. ({str(err).strip()[:200]})"
    )
