"""What is odd, but happens: names, captions and headers."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eaglenet_mm.datasets import TextVideoDataset, write_annotation

CAPTIONS = {
    'long': 'a dog ' * 1667,  # 10 002 characters
    'right-to-left': 'איש רץ ברחוב',
    'mixed direction': 'the word שלום and \u202eesrever\u202c',
    'emoji': 'a \U0001f468\u200d\U0001f469\u200d\U0001f467 walks 🐕',
    'combining': 'cafe\u0301 nai\u0308ve',
    'control': 'tab\tline\nfeed\x07bell',
    'markup': '<start_of_text> a &amp; b <end_of_text>',
}


@pytest.fixture
def one_video(
    tmp_path: Path, metainfo: dict[str, Any], pipeline: list[dict[str, Any]]
) -> Callable[..., TextVideoDataset]:
    """A set of one video."""

    def make(
        video: str, prefix: str = '', captions: tuple[str, ...] = ('one',)
    ) -> TextVideoDataset:
        path = tmp_path / 'one.json'
        record = dict(video_id='v', video=video, captions=list(captions))
        write_annotation(path, metainfo, [record])
        return TextVideoDataset(
            str(path),
            data_prefix=dict(video=prefix),
            pipeline=[dict(transform) for transform in pipeline],
        )

    return make


@pytest.mark.parametrize('caption', CAPTIONS.values(), ids=CAPTIONS)
def test_captions(
    one_video: Callable[..., TextVideoDataset],
    write_clip: Callable[..., Path],
    caption: str,
) -> None:
    dataset = one_video(str(write_clip()), captions=(caption, 'two'))
    item = dataset[0]
    tokens = item['inputs']['token_ids']
    assert tokens.shape == (2, 8)
    assert int(tokens.min()) >= 0
    assert int(tokens.max()) <= 49407
    assert item['data_samples'].captions == [caption, 'two']


@pytest.mark.parametrize('key', ['video_id', 'video', 'captions'])
def test_zero_characters(
    tmp_path: Path, metainfo: dict[str, Any], key: str
) -> None:
    record = dict(video_id='v', video='v.mp4', captions=['one'])
    record[key] = ['a\0b'] if key == 'captions' else 'a\0b'
    with pytest.raises(ValueError, match=f"'{key}'.*NUL character"):
        write_annotation(tmp_path / 'one.json', metainfo, [record])


@pytest.mark.parametrize('form', ['absolute', 'relative', 'up', 'link'])
def test_paths(
    one_video: Callable[..., TextVideoDataset],
    write_clip: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
) -> None:
    path = write_clip('videos/clip.mp4')
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'link').symlink_to(path.parent)
    video, prefix = {
        'absolute': (str(path), 'elsewhere'),
        'relative': ('clip.mp4', 'videos'),
        'up': ('../videos/clip.mp4', 'videos'),
        'link': ('link/clip.mp4', ''),
    }[form]
    assert one_video(video, prefix)[0]['data_samples'].video_id == 'v'


def test_folders_linked_in_a_loop(
    one_video: Callable[..., TextVideoDataset],
    write_clip: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """A loop is no harm if the file is found, and ends if it is not."""
    path = write_clip('videos/clip.mp4')
    (path.parent / 'again').symlink_to(path.parent)
    found = one_video('again/again/clip.mp4', str(path.parent))
    assert found[0] is not None
    (tmp_path / 'x').symlink_to('y')
    (tmp_path / 'y').symlink_to('x')
    dataset = one_video('x/clip.mp4', str(tmp_path))
    with pytest.raises(RuntimeError, match=r'x/clip\.mp4.*cannot be reached'):
        dataset[0]


def patch_header(path: Path, frames: int, rate: int | None = None) -> None:
    """Change number of frames and rate in the header of an AVI file."""
    content = bytearray(path.read_bytes())
    begin = content.index(b'avih') + 8
    content[begin + 16 : begin + 20] = struct.pack('<I', frames)
    begin = content.index(b'strh') + 8
    content[begin + 32 : begin + 36] = struct.pack('<I', frames)
    if rate is not None:
        content[begin + 24 : begin + 28] = struct.pack('<I', rate)
    path.write_bytes(content)


def test_ten_hours_in_the_header(
    one_video: Callable[..., TextVideoDataset],
    write_clip: Callable[..., Path],
    frame_numbers: Callable,
) -> None:
    path = write_clip('clip.avi', num_frames=30, options={'bf': '0'})
    patch_header(path, 360_000)
    item = one_video(str(path))[0]
    # sampled anew by the 30 frames that are there
    assert item['data_samples'].frame_indices == [0, 10, 20]
    assert frame_numbers(item['inputs']['frames']) == [0, 10, 20]


def test_a_rate_of_zero(
    one_video: Callable[..., TextVideoDataset], write_clip: Callable[..., Path]
) -> None:
    """FFmpeg puts another rate in its place, or sampling says why not."""
    path = write_clip('clip.avi', num_frames=30, options={'bf': '0'})
    patch_header(path, 30, rate=0)
    dataset = one_video(str(path))
    reader = dataset.pipeline.transforms[0](
        dict(video_id='v', video=str(path))
    )
    if reader['fps'] >= 1:
        assert dataset[0]['data_samples'].num_frames_found >= 1
    else:
        with pytest.raises(ValueError, match=r'clip\.avi.*frame rate'):
            dataset[0]


def test_no_rate_at_all(
    one_video: Callable[..., TextVideoDataset],
    write_clip: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write_clip()
    dataset = one_video(str(path))
    open_it = dataset.pipeline.transforms[0].transform

    def without_rate(results: dict[str, Any]) -> dict[str, Any]:
        results = open_it(results)
        results['video_reader'].fps *= 0
        return results

    monkeypatch.setattr(
        dataset.pipeline.transforms[0], 'transform', without_rate
    )
    with pytest.raises(
        ValueError, match=r'clip\.mp4.*at least 1 frame per sec'
    ):
        dataset[0]


def test_one_frame(
    one_video: Callable[..., TextVideoDataset], write_clip: Callable[..., Path]
) -> None:
    item = one_video(str(write_clip(num_frames=1)))[0]
    assert item['inputs']['frames'].shape == (1, 3, 32, 32)
