from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from eaglenet_mm.datasets import OpenVideo, VideoReadError
from eaglenet_mm.datasets.video_readers import OpenCVReader, VideoReader


def test_opens(write_clip: Callable[..., Path]) -> None:
    path = str(write_clip(num_frames=12, fps=4))
    results = OpenVideo()(dict(video_id='v', video=path))
    assert isinstance(results['video_reader'], VideoReader)
    assert results['fps'] == 4
    assert results['num_frames_reported'] == 12


def test_backend(write_clip: Callable[..., Path]) -> None:
    transform = OpenVideo(backend='opencv')
    results = transform(dict(video_id='v', video=str(write_clip())))
    assert isinstance(results['video_reader'], OpenCVReader)
    assert repr(transform) == "OpenVideo(backend='opencv')"


def test_unknown_backend() -> None:
    with pytest.raises(ValueError, match="got 'ffmpeg'"):
        OpenVideo(backend='ffmpeg')


def test_errors_name_id_and_path(tmp_path: Path) -> None:
    path = tmp_path / 'x.mp4'
    item = dict(video_id='video7020', video=str(path))
    with pytest.raises(FileNotFoundError, match=r"'video7020'.*x\.mp4"):
        OpenVideo()(item)
    path.write_bytes(b'')
    with pytest.raises(VideoReadError, match=r"'video7020'.*x\.mp4"):
        OpenVideo()(item)
