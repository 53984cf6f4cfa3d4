from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageFont

from eaglenet_mm.visualization import rank_pictures
from eaglenet_mm.visualization.rank_pictures import (
    Answer,
    Answers,
    draw_answers,
    draw_ranks,
)

GREEN, RED = (22, 128, 60), (200, 50, 43)


def query(rank: int = 2, caption: str = 'a caption') -> Answers:
    frames = np.full((6, 32, 32, 3), 90, np.uint8)
    return Answers(
        caption,
        rank,
        [
            Answer('wrong', 0.75, False, frames),
            Answer('right', 0.5, True, frames[:2]),
            Answer('lost', 0.25, False, None),
        ],
    )


def counts(picture: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    return (picture == color).all(-1)


def test_borders_tell_right_from_wrong() -> None:
    picture = draw_answers([query()])
    assert picture.dtype == np.uint8
    third = picture.shape[1] // 3
    parts = [picture[24:, i * third : (i + 1) * third] for i in range(3)]
    # red above the right one, no colour below
    for part, color in zip(parts, (RED, GREEN, None), strict=True):
        for other in (RED, GREEN):
            found = counts(part, other).sum()
            assert found > 1500 if other == color else found == 0
    # frames fill the first, half of the second, nothing of the third
    grey = [counts(part, (90, 90, 90)).sum() for part in parts]
    assert grey == [4 * 56 * 56, 2 * 56 * 56, 0]


def test_more_queries_make_a_higher_picture() -> None:
    one, two = draw_answers([query()]), draw_answers([query(), query(1)])
    assert two.shape[1] == one.shape[1]
    assert two.shape[0] > 1.8 * one.shape[0]


@pytest.mark.parametrize(
    'caption', ['word ' * 500, 'zwei\nZeilen', '狗在跑', '']
)
@pytest.mark.parametrize('plain', [False, True])
def test_any_caption_can_be_written(caption, plain, monkeypatch) -> None:
    if plain:  # Pillow without FreeType
        font = ImageFont.load_default_imagefont()
        monkeypatch.setattr(rank_pictures, '_font', lambda size: font)
    expected = draw_answers([query()]).shape
    assert draw_answers([query(caption=caption)]).shape == expected


def test_the_histogram_has_the_heights_of_the_shares() -> None:
    picture = draw_ranks([1, 1, 1, 1, 2, 2, 7, 200], 'title')
    heights = counts(picture, (37, 87, 214)).sum(0)
    (columns,) = np.nonzero(heights)
    bars = np.split(columns, np.nonzero(np.diff(columns) > 1)[0] + 1)
    found = [heights[bar[len(bar) // 2]] for bar in bars]
    assert found[0] > 100
    assert found == pytest.approx(
        [found[0] * x / 4 for x in (4, 2, 1, 1)], abs=2
    )
    # ranks 1, 2, 6 to 10 and beyond 100 are the bars 0, 1, 4 and 8
    centres = [bar.mean() - bars[0].mean() for bar in bars]
    step = centres[1]
    assert centres == pytest.approx([0, step, 4 * step, 8 * step], abs=3)
