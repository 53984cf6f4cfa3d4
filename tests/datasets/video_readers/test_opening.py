from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from eaglenet_mm.datasets import VideoReadError
from eaglenet_mm.datasets.transforms import SampleFrames
from eaglenet_mm.datasets.video_readers import (
    DecordReader,
    OpenCVReader,
    PyAVReader,
    check_backend,
    open_video,
    opening,
)


def test_reader_by_container(write_clip: Callable[..., Path]) -> None:
    assert isinstance(open_video(str(write_clip('a.mp4'))), DecordReader)
    assert isinstance(open_video(str(write_clip('a.mkv'))), DecordReader)
    for name in ('a.avi', 'a.ts'):
        path = str(write_clip(name, fps=25))
        assert isinstance(open_video(path), PyAVReader)
    # the container counts, not the name
    renamed = write_clip('b.avi').rename(write_clip('c.mp4'))
    assert isinstance(open_video(str(renamed)), PyAVReader)


def test_ten_bits_go_to_pyav(write_clip: Callable[..., Path]) -> None:
    path = write_clip(pixel_format='yuv420p10le')
    assert isinstance(open_video(str(path)), PyAVReader)


@pytest.mark.parametrize(
    ('backend', 'reader_type'),
    [('decord', DecordReader), ('pyav', PyAVReader), ('opencv', OpenCVReader)],
)
def test_reader_by_name(
    write_clip: Callable[..., Path], backend: str, reader_type: type
) -> None:
    reader = open_video(str(write_clip()), backend=backend)
    assert type(reader) is reader_type


def test_auto_without_decord(
    write_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(write_clip())
    monkeypatch.setattr(opening, 'find_spec', lambda name: None)
    assert type(open_video(path)) is PyAVReader


@pytest.mark.parametrize('where', ['__init__', 'get_batch'])
def test_pyav_takes_over_when_decord_fails(
    write_clip: Callable[..., Path],
    frame_numbers: Callable,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise VideoReadError('decord cannot')

    monkeypatch.setattr(DecordReader, where, fail)
    with open_video(str(write_clip())) as reader:
        for _ in range(2):
            assert frame_numbers(reader.get_batch([3, 17])) == [3, 17]
        assert reader.num_frames == 30


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.mp4' does not exist"):
        open_video(str(tmp_path / 'none.mp4'))


def test_unknown_backend() -> None:
    with pytest.raises(ValueError, match=r"'auto', 'decord'.*got 'ffmpeg'"):
        check_backend('ffmpeg')


def test_real_clips_are_sampled_as_by_the_release(video_dir: Path) -> None:
    """Frames at 1 fps and the 12 kept, as the release chose them."""
    file = video_dir / 'reference_sampling_1fps.json'
    clips = json.loads(file.read_text(encoding='utf-8'))['clips']
    sampler = SampleFrames(12)
    checked = 0
    for name, expected in clips.items():
        if name.split('/')[0] not in ('msrvtt', 'msvd', 'vatex'):
            continue
        with open_video(str(video_dir / name)) as reader:
            assert float(reader.fps) == pytest.approx(
                expected['fps'], abs=1e-3
            )
            assert reader.num_frames_reported == expected['frame_count_header']
            frames = sampler.sample(
                reader.fps,
                reader.num_frames_reported,
                decodable=reader.num_frames,
            )
        assert frames == expected['selected_12'], name
        checked += 1
    assert checked == 8
