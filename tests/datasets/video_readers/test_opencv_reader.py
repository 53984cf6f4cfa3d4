from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import cv2
import pytest

from eaglenet_mm.datasets import VideoReadError
from eaglenet_mm.datasets.video_readers import OpenCVReader


def test_counts_where_the_header_does_not(video_dir: Path) -> None:
    path = str(video_dir / 'formats/no_duration.webm')
    with OpenCVReader(path) as reader:
        assert reader.num_frames == 74


def test_a_frame_that_fails(
    write_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(write_clip())
    with OpenCVReader(path) as reader:
        capture = cv2.VideoCapture(path)

        class Failing:
            grab = capture.grab
            release = capture.release

            get = capture.get

            def retrieve(self) -> tuple[bool, None]:
                return False, None

        monkeypatch.setattr(reader, '_open', lambda: nullcontext(Failing()))
        with pytest.raises(VideoReadError, match='failed to decode frame 2'):
            reader.get_batch([2])
