from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eaglenet_mm.datasets import (
    DecodeFrames,
    OpenVideo,
    ResizeCenterCrop,
    SampleFrames,
    VideoReadError,
)
from tests.datasets.video_readers import made_videos


@pytest.fixture
def sampled(write_clip: Callable[..., Path]) -> dict[str, Any]:
    item = dict(video_id='v', video=str(write_clip()))
    return SampleFrames(8)(OpenVideo(backend='pyav')(item))


def test_reads_and_closes(
    sampled: dict[str, Any], frame_numbers: Callable
) -> None:
    results = DecodeFrames()(sampled)
    assert results['frames'].shape == (3, 48, 64, 3)
    assert results['frames'].dtype == np.uint8
    assert frame_numbers(results['frames']) == [0, 10, 20]
    assert results['num_frames_found'] == 3
    assert 'video_reader' not in results
    assert 'frame_sampler' not in results
    assert repr(DecodeFrames()) == 'DecodeFrames()'


def test_a_header_that_promises_too_much(
    write_clip: Callable[..., Path],
    frame_numbers: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logged: list[str] = []
    monkeypatch.setattr(
        'eaglenet_mm.datasets.transforms.decode_frames.print_log',
        lambda message, logger, level: logged.append(message),
    )
    item = dict(video_id='v', video=str(write_clip()))
    results = OpenVideo(backend='pyav')(item)
    reader = results['video_reader'].reader
    limited = results['video_reader']
    limited.num_frames = limited.num_frames_reported = 100
    reader.num_frames = reader.num_frames_reported = 100
    results = SampleFrames(5)(results)
    assert results['frame_indices'] == [0, 20, 40, 60, 90]
    results = DecodeFrames()(results)
    assert results['frame_indices'] == [0, 10, 20]
    assert frame_numbers(results['frames']) == [0, 10, 20]
    assert len(logged) == 1
    assert 'only 30 can be decoded' in logged[0]


def test_nothing_to_decode(
    sampled: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = sampled['video_reader'].reader
    monkeypatch.setattr(reader, '_seek', lambda indices: iter(()))
    monkeypatch.setattr(reader, 'decode', lambda: iter(()))
    with pytest.raises(VideoReadError, match=r"'v': .* only 0 can be decoded"):
        DecodeFrames()(sampled)


def test_undecodable(
    sampled: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(indices: list[int]) -> None:
        raise VideoReadError('clip.mp4: decoding failed')

    monkeypatch.setattr(sampled['video_reader'], 'get_batch', fail)
    with pytest.raises(VideoReadError, match=r"Video 'v': clip\.mp4"):
        DecodeFrames()(sampled)


def test_resizes_while_it_decodes(write_clip: Callable[..., Path]) -> None:
    """The same pixels, without whole pictures in memory."""
    resize = dict(type='ResizeCenterCrop', size=32)
    seen: list[tuple[int, tuple[int, ...]]] = []

    def sampled(mode: str) -> dict[str, Any]:
        item = dict(video_id='v', video=str(write_clip()), start=0.5, end=2.9)
        return SampleFrames(8, mode=mode)(OpenVideo()(item))

    for mode in ('release', 'clean'):
        decode = DecodeFrames(resize)
        found = decode.decode(
            sampled(mode),
            lambda number, frame: seen.append((number, frame.shape)),
        )
        expected = ResizeCenterCrop(32)(DecodeFrames()(sampled(mode)))
        assert found['frames'].shape[1:] == (32, 32, 3)
        np.testing.assert_array_equal(found['frames'], expected['frames'])
        assert found['frame_times'] == expected['frame_times']
        assert [number for number, _ in seen] == found['frame_indices']
        assert {shape for _, shape in seen} == {(48, 64, 3)}
        seen.clear()
    assert repr(decode) == 'DecodeFrames(resize=ResizeCenterCrop(size=32))'


@pytest.mark.parametrize('mode', ['release', 'clean'])
def test_variable_rates_are_told_once_where_numbers_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    logged: list[str] = []
    monkeypatch.setattr(
        'eaglenet_mm.datasets.transforms.decode_frames.print_log',
        lambda message, logger, level: logged.append(message),
    )
    uneven = made_videos.fast_then_slow(tmp_path / 'uneven.mp4')
    decode = DecodeFrames()
    for _ in range(2):
        item = dict(video_id='v', video=str(uneven.path))
        decode(SampleFrames(8, mode=mode)(OpenVideo()(item)))
    if mode == 'clean':
        assert logged == []
    else:
        assert len(logged) == 1
        assert "'v'" in logged[0]
        assert 'variable frame rate' in logged[0]
