from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eaglenet_mm.datasets import (
    DecodeFrames,
    OpenVideo,
    SampleFrames,
    VideoReadError,
)


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
    monkeypatch.setattr(reader, '_seek', lambda indices: None)
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
