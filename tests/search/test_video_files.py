"""Which files are videos, and their segments."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from eaglenet_mm.search.video_files import cut_segments, find_videos


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
    names = [os.path.relpath(path, tmp_path) for path in found]
    assert names == ['a/c.webm', 'b.MP4', 'ü/größe 1.mov']
    assert all(os.path.isabs(path) for path in found)


def test_files_and_folders_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, 'a.mp4', 'odd.bin')
    monkeypatch.chdir(tmp_path)
    found = find_videos(['a.mp4', str(tmp_path), 'odd.bin'])
    assert found == [f'{tmp_path}/a.mp4', f'{tmp_path}/odd.bin']


def test_nothing_there(tmp_path: Path) -> None:
    make(tmp_path, 'readme.txt')
    with pytest.raises(ValueError, match=r'has no videos.*\.mp4'):
        find_videos(tmp_path)
    with pytest.raises(ValueError, match='the list has no videos'):
        find_videos([])
    with pytest.raises(FileNotFoundError, match='neither a file nor a folder'):
        find_videos(tmp_path / 'gone')


@pytest.mark.parametrize(
    ('duration', 'segment', 'expected'),
    [
        (24, 10, [(0, 10), (10, 24)]),
        (26, 10, [(0, 10), (10, 20), (20, 26)]),
        (3, 10, [(0, 3)]),
        (20, 10, [(0, 10), (10, 20)]),
    ],
)
def test_segments(
    duration: float, segment: float, expected: list[tuple[float, float]]
) -> None:
    assert cut_segments(duration, segment) == expected
