from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from eaglenet_mm.datasets import ResizeCenterCrop
from eaglenet_mm.datasets.transforms import resize_center_crop


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(
        0, 256, (height, width, 3), dtype=np.uint8
    )


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 40))
def test_any_size_gives_a_square(height: int, width: int, size: int) -> None:
    frame = resize_center_crop(noise(height, width), size)
    assert frame.shape == (size, size, 3)
    assert frame.dtype == np.uint8


def test_long_side_is_cut_and_offset_is_halved_to_even() -> None:
    # 37 x 53 to 32: the long side is int(32 * 53 / 37) = 45, offset
    # round(6.5) = 6
    for shape, resized, window in (
        ((37, 53), (45, 32), np.s_[:, 6:38]),
        ((53, 37), (32, 45), np.s_[6:38]),
    ):
        frame = noise(*shape)
        image = Image.fromarray(frame)
        whole = image.resize(resized, Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(
            resize_center_crop(frame, 32), np.asarray(whole)[window]
        )


def test_a_fitting_frame_stays() -> None:
    frame = noise(32, 32)
    np.testing.assert_array_equal(resize_center_crop(frame, 32), frame)
    wide = noise(32, 35)
    np.testing.assert_array_equal(resize_center_crop(wide, 32), wide[:, 2:34])


def test_transform() -> None:
    frames = np.stack([noise(30, 40), noise(30, 40)[::-1]])
    got = ResizeCenterCrop(16)(dict(frames=frames))['frames']
    assert got.shape == (2, 16, 16, 3)
    np.testing.assert_array_equal(
        got[1], resize_center_crop(frames[1].copy(), 16)
    )
    assert repr(ResizeCenterCrop(16)) == 'ResizeCenterCrop(size=16)'


def test_bad_size() -> None:
    with pytest.raises(ValueError, match='at least 1 pixel, but got 0'):
        ResizeCenterCrop(0)
