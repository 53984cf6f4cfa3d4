from __future__ import annotations

from fractions import Fraction

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


@pytest.mark.parametrize('aspect', [Fraction(2), Fraction(11, 16)])
@pytest.mark.parametrize('shape', [(37, 53), (53, 37), (32, 32)])
def test_square_pixels(shape: tuple[int, int], aspect: Fraction) -> None:
    frames = 64 + noise(*shape)[None] // 2  # far from what Pillow clips
    results = dict(frames=frames, pixel_aspect=aspect)
    got = ResizeCenterCrop(32, square_pixels=True)(results)['frames'][0]
    # slow: the whole picture in square pixels, then its middle
    height, width = shape[0], shape[1] * aspect
    short = min(height, width)
    sides = [int(32 * side / short) for side in (width, height)]
    image = Image.fromarray(frames[0])
    whole = np.asarray(image.resize(sides, Image.Resampling.BICUBIC))
    left, top = (round((side - 32) / 2) for side in sides)
    expected = whole[top : top + 32, left : left + 32]
    assert np.abs(got.astype(int) - expected).max() <= 1
    plain = ResizeCenterCrop(32)(dict(results, frames=frames))['frames'][0]
    assert np.abs(got.astype(int) - plain).mean() > 5


def test_pixels_that_are_square_change_nothing() -> None:
    frames = noise(30, 41)[None]
    results = dict(frames=frames, pixel_aspect=Fraction(1))
    got = ResizeCenterCrop(16, square_pixels=True)(results)['frames']
    plain = ResizeCenterCrop(16)(dict(frames=frames))['frames']
    np.testing.assert_array_equal(got, plain)


@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(1, 40),
    st.fractions(Fraction(1, 65535), 65535).filter(bool),
)
def test_pixels_of_any_shape(
    height: int, width: int, size: int, aspect: Fraction
) -> None:
    frame = resize_center_crop(noise(height, width), size, aspect)
    assert frame.shape == (size, size, 3)


def test_shape_of_pixels_is_missing_or_wrong() -> None:
    transform = ResizeCenterCrop(16, square_pixels=True)
    with pytest.raises(KeyError, match='pixel_aspect'):
        transform(dict(frames=noise(30, 40)[None]))
    with pytest.raises(ValueError, match='positive, but got 0'):
        transform(dict(frames=noise(30, 40)[None], pixel_aspect=0))
    assert repr(transform) == 'ResizeCenterCrop(size=16, square_pixels=True)'
