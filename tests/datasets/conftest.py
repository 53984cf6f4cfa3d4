"""Small clips whose frames carry their own number, and annotations."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from eaglenet_mm.datasets import write_annotation

#: Grey level of frame 0, and the step from frame to frame.
FIRST_LEVEL, LEVEL_STEP = 20, 5


@pytest.fixture
def write_clip(tmp_path: Path) -> Callable[..., Path]:
    """Write a clip whose frame i is grey of level 20 + 5 i."""

    def write(
        name: str = 'clip.mp4',
        num_frames: int = 30,
        fps: int = 10,
        size: tuple[int, int] = (64, 48),
        codec: str = 'libx264',
        options: dict[str, str] | None = None,
        pixel_format: str = 'yuv420p',
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), 'w') as container:
            stream = container.add_stream(codec, rate=fps)
            stream.width, stream.height = size
            stream.pix_fmt = pixel_format
            stream.options = options or {}
            for number in range(num_frames):
                level = FIRST_LEVEL + LEVEL_STEP * number
                image = np.full((size[1], size[0], 3), level, dtype=np.uint8)
                frame = av.VideoFrame.from_ndarray(image, format='rgb24')
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    return write


@pytest.fixture
def frame_numbers() -> Callable[[Any], list[int]]:
    """Read the numbers off the frames of such a clip."""

    def read(frames: Any) -> list[int]:
        frames = np.asarray(frames, dtype=np.float64)
        levels = frames.reshape(len(frames), -1).mean(axis=1)
        return (
            np.rint((levels - FIRST_LEVEL) / LEVEL_STEP).astype(int).tolist()
        )

    return read


@pytest.fixture
def set_matrix() -> Callable[..., None]:
    """Replace the display matrix of an MP4 file that has the usual one.

    The matrix says where a step to the right goes (x, y), and one down.
    """

    def pack(a: float, b: float, c: float, d: float) -> bytes:
        values = [round(value * (1 << 16)) for value in (a, b, 0, c, d)]
        return struct.pack('>9i', *values, 0, 0, 0, 1 << 30)

    def replace(path: Path, *matrix: float) -> None:
        content = path.read_bytes()
        place = content.index(pack(1, 0, 0, 1), content.index(b'tkhd'))
        turned = pack(*matrix)
        path.write_bytes(content[:place] + turned + content[place + 36 :])

    return replace


@pytest.fixture
def metainfo() -> dict[str, Any]:
    return dict(dataset='made-up', split='test', protocol='all')


@pytest.fixture
def records() -> list[dict[str, Any]]:
    return [
        dict(video_id='a', video='a.mp4', captions=['one', 'two', 'three']),
        dict(video_id='b', video='b.mp4', captions=['four'], start=0, end=2),
        dict(video_id='c', video='sub/c.mp4', captions=['five', 'six']),
    ]


@pytest.fixture
def ann_file(
    tmp_path: Path, metainfo: dict[str, Any], records: list[dict[str, Any]]
) -> str:
    path = tmp_path / 'test.json'
    write_annotation(path, metainfo, records)
    return str(path)


@pytest.fixture
def clips(write_clip: Callable[..., Path]) -> None:
    """The videos of ``ann_file``; the second has one frame alone."""
    write_clip('a.mp4', num_frames=30)
    write_clip('b.mp4', num_frames=1)
    write_clip('sub/c.mp4', num_frames=20)


@pytest.fixture
def pipeline() -> list[dict[str, Any]]:
    return [
        dict(type='OpenVideo'),
        dict(type='SampleFrames', num_frames=4),
        dict(type='DecodeFrames'),
        dict(type='ResizeCenterCrop', size=32),
        dict(type='TokenizeCaptions', max_words=8),
        dict(type='PackRetrievalInputs'),
    ]
