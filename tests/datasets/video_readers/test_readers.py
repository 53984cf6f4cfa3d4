"""What every backend must deliver, on written and on real clips."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from eaglenet_mm.datasets import VideoReadError
from eaglenet_mm.datasets.video_readers import BACKENDS, open_video
from tests.datasets.video_readers.backends import READERS, usable


@pytest.mark.parametrize('reader_type', READERS)
def test_frames_in_any_order(
    write_clip: Callable[..., Path],
    frame_numbers: Callable,
    reader_type: type,
) -> None:
    path = write_clip(num_frames=40, options={'g': '7', 'bf': '2'})
    with reader_type(str(path)) as reader:
        assert reader.num_frames == reader.num_frames_reported == 40
        assert reader.fps == 10
        for wanted in ([0, 13, 39], [39, 0, 13, 13], [21]):
            frames = reader.get_batch(wanted)
            assert frames.shape == (len(wanted), 48, 64, 3)
            assert frames.dtype == np.uint8
            assert frame_numbers(frames) == wanted


def write_image(path: Path, image: np.ndarray) -> None:
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=10)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = 'yuv420p'
        frame = av.VideoFrame.from_ndarray(image, format='rgb24')
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize('reader_type', READERS)
def test_colours_are_red_green_blue(tmp_path: Path, reader_type: type) -> None:
    image = np.zeros((48, 64, 3), dtype=np.uint8)
    image[..., 0] = 200
    write_image(tmp_path / 'red.mp4', image)
    with reader_type(str(tmp_path / 'red.mp4')) as reader:
        mean = reader.get_batch([0])[0].reshape(-1, 3).mean(axis=0)
    np.testing.assert_allclose(mean, [200, 0, 0], atol=12)


@pytest.mark.parametrize('reader_type', READERS)
def test_true_frame_rate(
    tmp_path: Path, write_clip: Callable[..., Path], reader_type: type
) -> None:
    path = write_clip(num_frames=30, fps=Fraction(30000, 1001))
    with reader_type(str(path)) as reader:
        assert reader.fps == Fraction(30000, 1001)


@pytest.mark.parametrize('reader_type', READERS)
@pytest.mark.parametrize('content', [b'', b'this is a text' * 99])
def test_no_video(tmp_path: Path, reader_type: type, content: bytes) -> None:
    path = tmp_path / 'text.mp4'
    path.write_bytes(content)
    with pytest.raises(VideoReadError, match=r'text\.mp4: expected a video'):
        reader_type(str(path))


@pytest.mark.parametrize('name', ['video_90', 'video_270'])
def test_readers_agree_on_turned_real_clips(
    video_dir: Path, name: str
) -> None:
    frames = []
    path = str(video_dir / f'formats/{name}.mov')
    for backend in filter(usable, BACKENDS):
        with open_video(path, backend=backend) as reader:
            frames.append(reader.get_batch([0, 2]).astype(np.float64))
    assert frames[0].shape == (2, 568, 320, 3)
    for other in frames[1:]:
        assert np.abs(other - frames[0]).mean() < 3
