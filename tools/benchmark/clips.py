"""Made clips, and data sets of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np

from eaglenet_mm.datasets import write_annotation


def write_clip(
    path: Path,
    size: tuple[int, int],
    count: int,
    *,
    codec: str = 'libx264',
    rate: int = 30,
    block: int = 8,
    grain: float = 0,
    seed: int = 0,
    options: dict[str, str],
) -> None:
    """Encode ``count`` frames of a moving texture of blocks.

    Grain of some grey levels, as cameras add it, makes it work to decode.
    """
    width, height = size
    rng = np.random.default_rng(seed)
    shape = (2 * height // block, 2 * width // block, 3)
    texture = rng.integers(0, 256, shape, dtype=np.uint8)
    texture = texture.repeat(block, 0).repeat(block, 1)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = 'yuv420p'
        stream.options = {'g': '250', **options}
        for step in range(count):
            top, left = step // 2 % height, step % width
            image = texture[top : top + height, left : left + width]
            if grain:
                noise = rng.normal(0, grain, (height, width, 1))
                image = np.clip(image + noise, 0, 255)
            image = np.ascontiguousarray(image, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format='rgb24')
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def make_clips(folder: Path, count: int) -> list[str]:
    """Write clips of 10 to 20 seconds, encoded as a video site does."""
    paths = []
    for number in range(count):
        path = folder / f'clip{number}.mp4'
        seconds = 10 + number * 10 // max(1, count - 1)
        options = {'crf': '23'}
        write_clip(
            path, (320, 240), 30 * seconds, seed=number, options=options
        )
        paths.append(str(path))
    return paths


def dataset_options(
    folder: Path, paths: list[str], frames: int, size: int, backend: str
) -> dict[str, Any]:
    """Options of the data set of the recipe, whose annotation is written."""
    ann_file = folder / 'all.json'
    write_annotation(
        ann_file,
        dict(dataset='benchmark', split='test', protocol='all'),
        [
            dict(video_id=str(number), video=path, captions=['-'])
            for number, path in enumerate(paths)
        ],
    )
    resize = dict(type='ResizeCenterCrop', size=size)
    return dict(
        ann_file=str(ann_file),
        pipeline=[
            dict(type='OpenVideo', backend=backend),
            dict(type='SampleFrames', num_frames=frames),
            dict(type='DecodeFrames', resize=resize),
            dict(type='PackRetrievalInputs'),
        ],
    )
