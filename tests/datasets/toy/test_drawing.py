import numpy as np
import pytest

from eaglenet_mm.datasets.toy import (
    ToyCombination,
    render_video,
    split_combinations,
)
from eaglenet_mm.datasets.toy.content import REVERSED_MOTION, SHAPES


def render(motion, seed=0, shape='square', colour='white', ground='grey'):
    return render_video(
        ToyCombination(shape, colour, motion, ground),
        np.random.default_rng(seed),
    )


def centre_and_area(frame):
    """Mean place of bright pixels as (x, y), and their number."""
    rows, columns = np.nonzero(frame.min(axis=-1) > 140)
    return (columns.mean(), rows.mean()), len(rows)


@pytest.mark.parametrize(
    'motion', [one for one, other in REVERSED_MOTION.items() if one != other]
)
def test_a_reverse_shows_the_same_frames_backwards(motion):
    forwards, backwards = render(motion), render(REVERSED_MOTION[motion])
    np.testing.assert_array_equal(forwards, backwards[::-1])
    # and so do the frames that are sampled at half the rate
    np.testing.assert_array_equal(forwards[::2], backwards[::2][::-1])
    assert np.abs(forwards - backwards.astype(int)).mean() > 10


def test_still_shows_one_picture():
    centres = [centre_and_area(frame)[0] for frame in render('still')]
    np.testing.assert_allclose(centres - np.mean(centres, axis=0), 0, atol=0.3)


@pytest.mark.parametrize(
    ('motion', 'axis', 'sign'),
    [('right', 0, 1), ('left', 0, -1), ('down', 1, 1), ('up', 1, -1)],
)
def test_motion_goes_where_its_name_says(motion, axis, sign):
    for seed in range(5):
        frames = render(motion, seed)
        places = np.array([centre_and_area(frame)[0] for frame in frames])
        steps = sign * np.diff(places, axis=0)
        assert (steps[:, axis] > 1).all()
        # the crossing axis may move by what leaves the picture only
        assert np.abs(steps[:, 1 - axis]).max() < 1


def test_growing_shape_grows():
    areas = [centre_and_area(frame)[1] for frame in render('grow')]
    assert (np.diff(areas) > 0).all()
    assert areas[-1] > 5 * areas[0]


def test_appearing_shape_appears():
    light = render('appear').astype(float).mean(axis=(1, 2, 3))
    assert (np.diff(light) > 0.3).all()


def test_blinking_has_no_order():
    seen = set()
    for seed in range(20):
        light = render('blink', seed).astype(float).mean(axis=(1, 2, 3))
        seen.add(tuple((light > light.mean()).tolist()))
    assert len(seen) == 4
    assert {shown[::-1] for shown in seen} == seen
    # of the six sampled frames every second one shows the shape
    alternating = {(True, False) * 3, (False, True) * 3}
    assert {shown[::2] for shown in seen} == alternating


def test_renderings_differ_and_repeat():
    np.testing.assert_array_equal(render('up', 1), render('up', 1))
    assert (render('up', 1) != render('up', 2)).any()


def test_every_combination_can_be_drawn_and_shows_its_shape():
    for items in split_combinations(0).values():
        for item in items[:20]:
            frames = render_video(item, np.random.default_rng(0))
            assert frames.shape == (11, 64, 64, 3)
            assert frames.dtype == np.uint8
            assert frames.std(axis=(1, 2)).max() > 15


def test_shapes_look_different():
    covers = {
        shape: render('still', shape=shape)[0].min(axis=-1) > 140
        for shape in SHAPES
    }
    for first in SHAPES:
        for second in SHAPES:
            if first != second:
                assert (covers[first] ^ covers[second]).mean() > 0.02


@pytest.mark.parametrize('part', ['shape', 'colour', 'motion', 'background'])
def test_unknown_part_is_refused(part):
    parts = dict(shape='ring', colour='red', motion='left', background='grey')
    parts[part] = 'odd'
    with pytest.raises(ValueError, match="got 'odd'"):
        render_video(ToyCombination(**parts), np.random.default_rng(0))
