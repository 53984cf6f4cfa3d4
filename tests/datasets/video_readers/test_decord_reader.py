from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from eaglenet_mm.datasets import VideoReadError
from eaglenet_mm.datasets.video_readers import DecordReader


def test_undecodable_data_names_the_file(video_dir: Path) -> None:
    with (
        DecordReader(str(video_dir / 'broken/corrupted.mp4')) as reader,
        pytest.raises(VideoReadError, match=r'corrupted\.mp4: decord failed'),
    ):
        reader.get_batch([49])


def test_without_the_package(
    write_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(write_clip())
    monkeypatch.setitem(sys.modules, 'decord', None)
    with pytest.raises(ImportError, match="backend='pyav'"):
        DecordReader(path)
