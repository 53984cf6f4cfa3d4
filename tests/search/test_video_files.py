"""Which files are videos, and their segments."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from eaglenet_mm.datasets.video_readers import open_video
from eaglenet_mm.search.video_files import (
    describe_passed_over,
    find_videos,
    tell_passed_over,
)
from tests.datasets.video_readers.made_videos import (
    read_numbers,
    write_constant,
)


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_folders_are_searched(tmp_path: Path) -> None:
    make(
        tmp_path,
        'b.MP4',
        'a/c.webm',
        'a/notes.txt',
        '.hidden.mp4',
        '.cache/d.mp4',
        'ü/größe 1.mov',
    )
    found = find_videos(tmp_path)
    assert found.passed_over == {'.txt': 1}
    names = [os.path.relpath(path, tmp_path) for path in found.paths]
    assert names == ['a/c.webm', 'b.MP4', 'ü/größe 1.mov']
    assert all(os.path.isabs(path) for path in found.paths)


def test_files_and_folders_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, 'a.mp4', 'odd.bin')
    monkeypatch.chdir(tmp_path)
    found = find_videos(['a.mp4', str(tmp_path), 'odd.bin'])
    assert found.paths == [f'{tmp_path}/a.mp4', f'{tmp_path}/odd.bin']


def test_nothing_there(tmp_path: Path) -> None:
    make(tmp_path, 'readme.txt')
    with pytest.raises(ValueError, match=r'has no videos.*\.mp4'):
        find_videos(tmp_path)
    with pytest.raises(ValueError, match='the list has no videos'):
        find_videos([])
    with pytest.raises(FileNotFoundError, match='neither a file nor a folder'):
        find_videos(tmp_path / 'gone')


@pytest.mark.parametrize(
    ('ending', 'options'),
    [
        ('.3g2', {}),
        ('.apng', dict(codec='apng', pix_fmt='rgb24')),
        ('.asf', dict(codec='wmv2')),
        ('.avif', dict(codec='libsvtav1')),
        ('.dv', dict(codec='dvvideo', rate=25, size=(720, 576))),
        ('.f4v', {}),
        ('.gif', dict(codec='gif', pix_fmt='rgb8')),
        ('.h264', {}),
        ('.ivf', dict(codec='libvpx')),
        ('.m2t', {}),
        ('.m2v', dict(codec='mpeg2video', rate=25)),
        ('.mjpg', dict(codec='mjpeg', pix_fmt='yuvj420p')),
        ('.mxf', dict(codec='mpeg2video', rate=25)),
        ('.nut', {}),
        ('.rm', dict(codec='rv10')),
        ('.wtv', dict(codec='mpeg2video', rate=25)),
    ],
)
def test_endings_of_what_can_be_read(
    tmp_path: Path, ending: str, options: dict[str, Any]
) -> None:
    path = tmp_path / f'a{ending.upper()}'
    write_constant(path, 6, **{'rate': 10, **options})
    assert find_videos(tmp_path).paths == [str(path)]
    with open_video(str(path)) as reader:
        assert read_numbers(reader.get_batch([0, 5])) == [0, 5]
        assert reader.num_frames == 6
        if ending not in ('.h264', '.mjpg'):  # raw, without a rate
            assert reader.fps == options.get('rate', 10)


def test_other_files_are_counted(tmp_path: Path) -> None:
    make(tmp_path, 'a.mp4', 'a.srt', 'b.SRT', 'x/c.srt', 'Makefile', '.hid')
    found = find_videos([tmp_path, tmp_path / 'x', tmp_path / 'a.srt'])
    assert found.paths == [f'{tmp_path}/a.mp4', f'{tmp_path}/a.srt']
    assert found.passed_over == {'.srt': 2, '': 1}
    assert (
        describe_passed_over(found.passed_over)
        == '3 other files (2 .srt, 1 without an ending)'
    )
    assert describe_passed_over({'.a': 1, '.b': 2}, num_named=1) == (
        '3 other files (2 .b, 1 with others)'
    )
    assert describe_passed_over({}) == ''
    assert tell_passed_over({'.a': 1}).startswith(
        '1 other file (1 .a) was not looked at'
    )
    assert 'files (2 .a) were not looked' in tell_passed_over({'.a': 2})
    (tmp_path / 'a.mp4').unlink()
    with pytest.raises(ValueError, match=r'There are 4 other files \(3 \.srt'):
        find_videos(tmp_path)
