"""Files of almost the name that was asked for."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from eaglenet_mm.datasets.video_readers import open_video
from eaglenet_mm.search.video_files import find_videos
from eaglenet_mm.utils.near_match import near_match, near_match_hint

NFC = unicodedata.normalize('NFC', 'größé')
NFD = unicodedata.normalize('NFD', 'größé')


@pytest.mark.parametrize(
    ('there', 'asked', 'words'),
    [
        (f'{NFD}.mp4', f'{NFC}.mp4', 'Unicode form NFD, not NFC'),
        (f'{NFC}/a.mp4', f'{NFD}/a.mp4', 'Unicode form NFC, not NFD'),
        ('a.MP4', 'a.mp4', 'other upper and lower case'),
        ('a.mp4', 'a.MP4', 'other upper and lower case'),
        ('clip.mp4', 'Clip.mp4', 'other upper and lower case'),
        ('sub/a.mp4', 'sub\\a.mp4', 'slashes instead of backslashes'),
        (
            f'sub/{NFD}.MP4',
            f'./sub\\{NFC}.mp4',
            'backslashes and other upper and lower case and accents',
        ),
    ],
)
@pytest.mark.parametrize('absolute', [True, False])
def test_says_which_name_is_there(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    there: str,
    asked: str,
    words: str,
    absolute: bool,
) -> None:
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).touch()
    monkeypatch.chdir(tmp_path)
    base = f'{tmp_path}/' if absolute else ''
    assert near_match(base + asked) == base + there
    for call in (open_video, find_videos):
        with pytest.raises(FileNotFoundError) as caught:
            call(base + asked)
        assert f"'{base}{there}'" in str(caught.value)
        assert words in str(caught.value)


def test_nothing_like_it(tmp_path: Path) -> None:
    (tmp_path / 'a.mp4').touch()
    for name in ('b.mp4', 'a.mkv', 'a.mp4/c', 'sub/a.mp4', ''):
        assert near_match(os.path.join(tmp_path, name) + 'x') is None
        assert near_match_hint(os.path.join(tmp_path, name) + 'x') == ''
    with pytest.raises(FileNotFoundError, match='put the file there'):
        open_video(str(tmp_path / 'b.mp4'))
