"""Reader on OpenCV, for machines with neither decord nor PyAV."""

from collections.abc import Sequence
from fractions import Fraction

import cv2
import numpy as np

from .base import VideoReader, VideoReadError


class OpenCVReader(VideoReader):
    """Grab from the first frame on and convert what is asked for.

    Reading in order is exact, seeking with OpenCV is not.

    Args:
        path (str): The file.

    Raises:
        VideoReadError: If OpenCV cannot open the file.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        capture = self._open()
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.fps = Fraction(rate).limit_denominator(1_000_000)
        reported = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if reported <= 0:  # a header without a length gives rubbish
            reported = 0
            while capture.grab():
                reported += 1
        capture.release()
        self.num_frames = self.num_frames_reported = reported

    def get_batch(self, indices: Sequence[int]) -> np.ndarray:
        """Decode frames; see :meth:`VideoReader.get_batch`."""
        self._check_indices(indices)
        wanted, last = set(indices), max(indices)
        kept: dict[int, np.ndarray] = {}
        capture = self._open()
        try:
            for number in range(last + 1):
                if not capture.grab():
                    raise self._ended(number, last)
                if number in wanted:
                    decoded, image = capture.retrieve()
                    if not decoded:
                        raise VideoReadError(
                            f'{self.path}: OpenCV failed to decode frame '
                            f'{number}. Encode the file again, or set '
                            "backend='auto' in OpenVideo."
                        )
                    kept[number] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        finally:
            capture.release()
        return np.stack([kept[index] for index in indices])

    def close(self) -> None:
        """Do nothing: the file is open only while it is read."""

    def _open(self) -> cv2.VideoCapture:
        """Open the file by FFmpeg alone."""
        capture = cv2.VideoCapture(self.path, cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise VideoReadError(
                f'{self.path}: expected a video, but OpenCV cannot open it. '
                'Download or encode the file again, or leave it out of the '
                'annotation.'
            )
        return capture
