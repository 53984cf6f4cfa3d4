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
    transform = OpenVideo(backend='opencv', time_limit=0)
    results = transform(dict(video_id='v', video=str(write_clip())))
    assert isinstance(results['video_reader'].reader, OpenCVReader)
    assert repr(transform) == "OpenVideo(backend='opencv')"


def test_unknown_backend() -> None:
    with pytest.raises(ValueError, match="got 'ffmpeg'"):
        OpenVideo(backend='ffmpeg')


def test_from_elsewhere(write_clip: Callable[..., Path]) -> None:
    path = str(write_clip(num_frames=12, fps=4))
    transform = OpenVideo(backend_args=dict(backend='local'))
    results = transform(dict(video_id='v', video=path))
    reader = results['video_reader']
    assert isinstance(reader.source, bytes)
    assert reader.path == path
    assert reader.get_batch([0, 11]).shape == (2, 48, 64, 3)


def test_what_cannot_be_fetched() -> None:
    transform = OpenVideo(backend_args=dict(backend='http'))
    url = 'http://127.0.0.1:1/x.mp4'
    with pytest.raises(VideoReadError, match=r"'v': http:.*x\.mp4 could not"):
        transform(dict(video_id='v', video=url))


@pytest.mark.parametrize(
    'options', [dict(num_threads=-1), dict(time_limit=-2)]
)
def test_negative_numbers(options: dict) -> None:
    with pytest.raises(ValueError, match='must be at least 0'):
        OpenVideo(**options)


def test_errors_name_id_and_path(tmp_path: Path) -> None:
    path = tmp_path / 'x.mp4'
    item = dict(video_id='video7020', video=str(path))
    with pytest.raises(FileNotFoundError, match=r"'video7020'.*x\.mp4"):
        OpenVideo()(item)
    path.write_bytes(b'')
    with pytest.raises(VideoReadError, match=r"'video7020'.*x\.mp4"):
        OpenVideo()(item)
