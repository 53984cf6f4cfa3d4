from __future__ import annotations

import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from eaglenet_mm.datasets import VideoReadError
from eaglenet_mm.datasets.video_readers import (
    PyAVReader,
    VideoEndError,
    read_header,
)


def test_header(write_clip: Callable[..., Path]) -> None:
    header = read_header(str(write_clip(num_frames=12, fps=4)))
    assert 'mp4' in header.container
    assert header.pixel_format == 'yuv420p'
    assert header.fps == Fraction(4)
    assert header.num_frames == header.num_frames_estimated == 12


def test_header_without_a_count(write_clip: Callable[..., Path]) -> None:
    path = str(write_clip('clip.mkv', num_frames=12, fps=4))
    header = read_header(path)
    assert header.num_frames == 0
    assert header.num_frames_estimated == 12
    with PyAVReader(path) as reader:
        assert reader.num_frames == 12


@pytest.mark.parametrize(
    ('name', 'codec'),
    [
        ('clip.avi', 'libx264'),
        ('clip.ts', 'libx264'),
        ('clip.mpg', 'mpeg1video'),
        ('clip.webm', 'libvpx'),
        ('clip.flv', 'libx264'),
    ],
)
def test_other_containers(
    write_clip: Callable[..., Path],
    frame_numbers: Callable,
    name: str,
    codec: str,
) -> None:
    path = write_clip(name, num_frames=40, fps=25, codec=codec)
    with PyAVReader(str(path)) as reader:
        assert reader.num_frames == 40
        assert frame_numbers(reader.get_batch([0, 20, 39])) == [0, 20, 39]


def test_a_file_cut_short(
    write_clip: Callable[..., Path], frame_numbers: Callable
) -> None:
    # without frames that are displayed later than they are stored
    path = write_clip('clip.ts', num_frames=40, fps=25, options={'bf': '0'})
    with open(path, 'r+b') as file:
        file.truncate(path.stat().st_size // 2)
    with PyAVReader(str(path)) as reader:
        promised = reader.num_frames
        assert promised < 40
        reader.num_frames = 40
        with pytest.raises(VideoEndError, match='frame 39 was asked for'):
            reader.get_batch([39])
        assert 0 < reader.num_frames <= promised
        last = reader.num_frames - 1
        assert frame_numbers(reader.get_batch([last])) == [last]


def test_undecodable_data(write_clip: Callable[..., Path]) -> None:
    path = write_clip(codec='mpeg4', size=(320, 240))  # index at the end
    content = bytearray(path.read_bytes())
    begin = content.index(b'mdat') + 4
    end = content.rindex(b'moov') - 4
    content[begin:end] = bytes(end - begin)
    path.write_bytes(content)
    with (
        PyAVReader(str(path)) as reader,
        pytest.raises(VideoReadError, match=r'clip\.mp4'),
    ):
        reader.get_batch([0])


def test_without_the_package(
    write_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(write_clip())
    monkeypatch.setitem(sys.modules, 'av', None)
    with pytest.raises(
        ImportError, match=r"pip install 'eaglenet_mm\[video\]'"
    ):
        PyAVReader(path)
