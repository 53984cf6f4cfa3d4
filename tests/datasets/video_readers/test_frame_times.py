"""When frames are shown."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from eaglenet_mm.datasets.video_readers import open_video

SHOWN = [0.0, 0.1, 0.2, 1.5, 3.0, 3.1]


@pytest.fixture
def uneven_clip(tmp_path: Path) -> Path:
    """A clip with a pause in its midst, as a slide show has."""
    path = tmp_path / 'uneven.mp4'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate(SHOWN):
            image = np.full((48, 64, 3), 30 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format='rgb24')
            frame.pts, frame.time_base = int(time * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize('time_limit', [0, 60])
def test_the_file_says_when(uneven_clip: Path, time_limit: int) -> None:
    """Not the mean rate."""
    with open_video(
        str(uneven_clip), backend='pyav', time_limit=time_limit
    ) as reader:
        reader.get_batch([0])
        found = reader.frame_times([5, 0, 2, 3, 4])
        assert found == pytest.approx([3.1, 0.0, 0.2, 1.5, 3.0], abs=2e-3)
        by_rate = [float(index / reader.fps) for index in (2, 4)]
    assert by_rate != pytest.approx([0.2, 3.0], abs=0.05)


def test_by_the_rate_where_nothing_else_is_known(
    write_clip: Callable[..., Path],
) -> None:
    with open_video(str(write_clip()), backend='opencv') as reader:
        assert reader.frame_times([0, 5, 29]) == [0.0, 0.5, 2.9]
