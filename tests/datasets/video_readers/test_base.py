from __future__ import annotations

import pickle

import pytest

from eaglenet_mm.datasets import VideoReadError
from eaglenet_mm.datasets.video_readers import VideoEndError, open_video


def test_errors_travel_between_processes() -> None:
    for kind in (VideoReadError, VideoEndError):
        copy = pickle.loads(pickle.dumps(kind('clip.mp4: cut short')))
        assert type(copy) is kind
        assert str(copy) == 'clip.mp4: cut short'


@pytest.mark.parametrize('backend', ['auto', 'decord', 'pyav', 'opencv'])
@pytest.mark.parametrize('indices', [[], [3, -1]])
def test_impossible_frames(write_clip, backend, indices) -> None:
    with (
        open_video(str(write_clip()), backend=backend) as reader,
        pytest.raises(ValueError, match=r'clip\.mp4: expected at least one'),
    ):
        reader.get_batch(indices)


@pytest.mark.parametrize('backend', ['auto', 'decord', 'pyav', 'opencv'])
def test_beyond_the_end(write_clip, backend) -> None:
    path = str(write_clip(num_frames=7))
    with open_video(path, backend=backend) as reader:
        with pytest.raises(VideoEndError, match=r'frame 7 .* only 7 can be'):
            reader.get_batch([0, 7])
        assert reader.num_frames == 7
