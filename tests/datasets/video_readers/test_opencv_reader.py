from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from eaglenet_mm.datasets import VideoReadError
from eaglenet_mm.datasets.video_readers import (
    OpenCVReader,
    PyAVReader,
    opencv_reader,
)
from tests.datasets.video_readers import made_videos as make


def test_counts_where_the_header_does_not(video_dir: Path) -> None:
    path = str(video_dir / 'formats/no_duration.webm')
    with OpenCVReader(path) as reader:
        assert reader.num_frames == 74


def test_times_by_the_rate_before_frames_are_read(
    write_clip: Callable[..., Path],
) -> None:
    with OpenCVReader(str(write_clip())) as reader:
        assert reader.frame_times([0, 5, 29]) == [0.0, 0.5, 2.9]


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


def test_a_refusal_names_the_colours(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # few blocks of the picture have a colour
    monkeypatch.setattr(opencv_reader, '_SAME_PICTURE', 0.2)
    video = make.write_constant(
        tmp_path / 'a.mp4', 4, colorspace=1, color_range=1
    )
    path = str(video.path)
    with av.open(path) as container:
        frame = list(container.decode(video=0))[2]
    image = frame.reformat(
        format='rgb24', src_colorspace='ITU601', src_color_range=1
    ).to_ndarray()
    with OpenCVReader(path) as reader:
        assert make.read_numbers(reader.get_batch([2])) == [2]
        with pytest.raises(VideoReadError, match=r'states BT\.709, limited'):
            reader._compare(2, image)
        # another picture, whichever colours
        with pytest.raises(VideoReadError, match='returns another frame 2'):
            reader._compare(2, np.roll(image, 30, axis=1))
        with pytest.raises(VideoReadError, match=r'shape \(32, 48, 3\)'):
            reader._compare(2, image[::2, ::2])


@pytest.mark.parametrize('name', ['left-right', 'transposed'])
def test_a_refusal_names_mirrors(tmp_path: Path, name: str) -> None:
    video = make.turned(
        make.write_constant(tmp_path / 'a.mp4', 4), make.MATRICES[name]
    )
    with (
        OpenCVReader(str(video.path)) as reader,
        pytest.raises(VideoReadError, match='rotate or mirror'),
    ):
        reader.get_batch([2])


@pytest.mark.parametrize('reader_type', [OpenCVReader, PyAVReader])
def test_colours_that_cannot_be_converted(
    tmp_path: Path, reader_type: type
) -> None:
    """OpenCV delivers black frames of them, without an error."""
    video = make.with_h264_metadata(
        tmp_path / 'a.mp4', 'matrix_coefficients=8', count=4
    )
    with (
        reader_type(str(video.path)) as reader,
        pytest.raises(VideoReadError, match='YCgCo, limited range'),
    ):
        reader.get_batch([1])
