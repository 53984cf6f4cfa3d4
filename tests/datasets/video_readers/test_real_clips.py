"""Every reader on every real clip: the right frames, or a clear error."""

from __future__ import annotations

import multiprocessing
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from eaglenet_mm.datasets.video_readers import (
    BACKENDS,
    VideoReadError,
    open_video,
)
from tests.datasets.video_readers.backends import few, usable

# other roundings of colour: 10-bit clips by OpenCV differ most
ROUNDING = 2.0
BROKEN = {
    'broken/Panasonic_AG_HMC_151.MTS',
    'broken/first_vid.mp4',
    'broken/matrix_ping_pong.wmv',
    'broken/mpeg4.mp4',
    'broken/pentax_320x240.mov',
    'derived/empty.mp4',
    'derived/video7011_truncated.mp4',
}


def clips(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.glob('*/*')
        if path.is_file()
    )


@cache
def decode_in_order(path: str) -> list[np.ndarray]:
    """Decode all frames, with nothing of ours."""
    frames: list[np.ndarray] = []
    try:
        with av.open(path, metadata_errors='replace') as container:
            for frame in container.decode(video=0):
                image = frame.to_ndarray(format='rgb24', threads=1)
                frames.append(np.rot90(image, frame.rotation // 90))
    except (av.FFmpegError, IndexError):
        pass  # what came before the damage counts
    return frames


def choices(count: int) -> list[list[int]]:
    """Sorted, unsorted and repeated, one alone."""
    spread = np.unique(np.linspace(0, max(count - 1, 0), 12).astype(int))
    order = np.random.default_rng(count).permutation(len(spread))
    return [
        spread.tolist(),
        [*spread[order].tolist(), int(spread[0])],
        [count // 2],
    ]


def compare(source: str | bytes, path: str, **options: Any) -> str:
    """Read and compare with decoding in order; return what happened."""
    reference = decode_in_order(path)
    try:
        with open_video(source, time_limit=30, name=path, **options) as reader:
            batches = [
                (indices, reader.get_batch(indices))
                for indices in choices(len(reference))
            ]
    except VideoReadError as err:
        return 'error' if Path(path).name in str(err) else 'nameless'
    for indices, frames in batches:
        assert frames.dtype == np.uint8
        for index, frame in zip(indices, frames, strict=True):
            assert frame.shape == reference[index].shape, (path, index)
            difference = np.abs(
                frame.astype(np.int16) - reference[index]
            ).mean()
            assert difference < ROUNDING, (path, index)
    return 'right'


@pytest.mark.parametrize(
    'case',
    few(
        [
            ('auto', 1, 1),  # files and bytes by turns
            *((backend, 1, 2) for backend in BACKENDS),
            *((backend, 0, 2) for backend in ('pyav', 'decord', 'torchcodec')),
            *((backend, 4, 2) for backend in ('pyav', 'decord', 'torchcodec')),
        ],
        1,
    ),
)
def test_no_wrong_frame(video_dir: Path, case: tuple[str, int, int]) -> None:
    backend, num_threads, kinds = case
    if not usable(backend):
        pytest.skip(f'{backend} is not installed')
    for number, name in enumerate(clips(video_dir)):
        path = str(video_dir / name)
        sources = [path, Path(path).read_bytes()]
        for source in sources if kinds == 2 else [sources[number % 2]]:
            outcome = compare(
                source, path, backend=backend, num_threads=num_threads
            )
            assert outcome != 'nameless', name
            if name in BROKEN:
                assert outcome == 'error', name
            elif backend in ('auto', 'pyav') and 'corrupted' not in name:
                assert outcome == 'right', name


def compare_all(folder: Path, names: list[str], backend: str) -> None:
    for name in names:
        path = str(folder / name)
        assert compare(path, path, backend=backend) != 'nameless'


@pytest.fixture
def some_clips(video_dir: Path) -> list[str]:
    """One of each kind, read in the parent before."""
    names = [
        'msrvtt/video7010.mp4',
        'msvd/klteYv1Uv9A_27_33.avi',
        'formats/video_90.mov',
        'formats/no_duration.webm',
        'formats/sample.ts',
        'broken/corrupted.mp4',
    ]
    compare_all(video_dir, names, 'auto')
    return names


@pytest.mark.parametrize('method', few(['fork', 'spawn'], 1))
@pytest.mark.parametrize('backend', few(['auto', 'decord', 'opencv'], 1))
def test_in_other_processes(
    video_dir: Path, some_clips: list[str], method: str, backend: str
) -> None:
    process = multiprocessing.get_context(method).Process(
        target=compare_all, args=(video_dir, some_clips, backend)
    )
    process.start()
    process.join(120)
    alive = process.is_alive()
    process.kill()
    assert not alive
    assert process.exitcode == 0
