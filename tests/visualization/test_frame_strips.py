from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eaglenet_mm.datasets.video_readers import VideoReadError
from eaglenet_mm.visualization.frame_strips import (
    choose_slots,
    encode_jpeg,
    join_frames,
    make_strip,
    strip_height,
)
from eaglenet_mm.visualization.set_catalogue import (
    SetCatalogue,
    check_dataset,
)


class Videos:
    """Videos of n frames of one grey each; some cannot be read."""

    metainfo = dict(dataset='made')  # noqa: RUF012

    def __init__(self, count: int = 4, size: int = 120) -> None:
        self.count, self.size = count, size

    def __len__(self) -> int:
        return 3

    def get_data_info(self, index: int) -> dict[str, Any]:
        number = 10 + index  # canonical numbers need not be places
        return dict(
            video_index=number,
            captions=[f'caption of {number}', 'another'],
            caption_indices=[2 * number, 2 * number + 1],
        )

    def process(self, item: dict[str, Any]) -> dict[str, Any] | None:
        if item['video_index'] == 11:
            raise VideoReadError('v11.mp4 ends early')
        if item['video_index'] == 12:
            return None
        grey = np.arange(self.count, dtype=np.uint8) * 20
        shape = (self.count, 3, self.size, self.size)
        frames = np.broadcast_to(grey[:, None, None, None], shape)
        return dict(inputs=dict(frames=frames))


def decode(strip: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(strip))))


def test_frames_stand_side_by_side() -> None:
    video = make_strip(SetCatalogue(Videos()), 10, 3, 6, 96)
    assert (video.column, video.num_images, video.height) == (3, 4, 96)
    assert video.slots == [0, 1, 2, 3, 4, 5]  # the last two are padding
    assert video.problem == ''
    picture = decode(video.strip)
    assert picture.shape == (96, 4 * 96, 3)
    for place in range(4):
        middle = picture[:, 96 * place + 10 : 96 * place + 86]
        assert abs(float(middle.mean()) - 20 * place) < 1.5


def test_small_frames_keep_their_size() -> None:
    video = make_strip(SetCatalogue(Videos(size=32)), 10, 0, 4, 96)
    assert video.height == 32
    assert decode(video.strip).shape == (32, 128, 3)


def test_of_many_frames_some_are_shown() -> None:
    assert choose_slots(12) == list(range(12))
    slots = choose_slots(64)
    assert len(slots) == 12
    assert slots == sorted(set(slots))
    assert max(np.diff(slots)) - min(np.diff(slots)) <= 1
    assert slots[0] == 64 - slots[-1] - 1 or slots[0] in (2, 3)
    video = make_strip(SetCatalogue(Videos(count=10)), 10, 0, 64, 48)
    # of places 2, 7, 12 ... only the first two are real
    assert video.num_images == sum(place < 10 for place in slots)
    assert abs(float(decode(video.strip)[:, :48].mean()) - 20 * slots[0]) < 2


@pytest.mark.parametrize(
    ('number', 'problem'),
    [
        (11, 'VideoReadError: v11.mp4 ends early'),
        (12, 'ValueError: the dataset skips it, see the log'),
    ],
)
def test_a_lost_video_is_told(number, problem) -> None:
    video = make_strip(SetCatalogue(Videos()), number, 1, 6, 96)
    assert (video.strip, video.num_images) == ('', 0)
    assert video.problem == problem


def test_other_mistakes_are_not_hidden() -> None:
    dataset = Videos()
    dataset.process = lambda item: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        make_strip(SetCatalogue(dataset), 10, 1, 6, 96)


def test_a_large_page_has_smaller_frames() -> None:
    assert strip_height(100, 12) == 96
    assert strip_height(0, 12) == 96
    assert 48 < strip_height(1000, 12) < 60
    assert strip_height(10**6, 12) == 48
    assert strip_height(300, 64) == strip_height(300, 12)


def test_a_thousand_videos_stay_small() -> None:
    """Frames with the detail of real ones, at the height of 1000 videos."""
    generator = np.random.default_rng(0)
    noise = generator.integers(256, size=(12, 14, 14, 3), dtype=np.uint8)
    frames = np.stack(
        [np.asarray(Image.fromarray(x).resize((224, 224))) for x in noise]
    )
    size = len(encode_jpeg(join_frames(frames, strip_height(1000, 12))))
    assert size < 24 * 1024  # 24 MiB a page at most


def test_captions_are_found_by_their_numbers() -> None:
    catalogue = SetCatalogue(Videos())
    assert catalogue.captions([25, 20]) == ['another', 'caption of 10']


def test_frames_of_another_kind_are_told() -> None:
    dataset = Videos()
    floats = np.zeros((2, 3, 4, 4))
    dataset.process = lambda item: dict(inputs=dict(frames=floats))
    video = make_strip(SetCatalogue(dataset), 10, 1, 6, 96)
    assert 'its frames are float64 of shape (2, 3, 4, 4)' in video.problem


def test_a_foreign_data_set_is_refused() -> None:
    with pytest.raises(TypeError, match="list has no 'get_data_info'"):
        check_dataset([])
