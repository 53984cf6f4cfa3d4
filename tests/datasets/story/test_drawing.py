import numpy as np
import pytest

from eaglenet_mm.datasets.story import (
    Scene,
    render_scene,
    render_story,
    split_scenes,
)
from eaglenet_mm.datasets.story.content import (
    COLOURS,
    REVERSED_MOTION,
    SHAPES,
)


def render(motion, seed=0, shape='square', colour='white', ground='grey'):
    return render_scene(
        Scene(shape, colour, motion, ground), 11, np.random.default_rng(seed)
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
    for seed in range(60):
        light = render('blink', seed).astype(float).mean(axis=(1, 2, 3))
        seen.add(tuple((light > light.mean()).tolist()))
    assert len(seen) == 8
    assert {shown[::-1] for shown in seen} == seen


def test_a_story_shows_its_scenes_one_after_the_other():
    story = (
        Scene('ring', 'red', 'still', 'grey'),
        Scene('bar', 'white', 'still', 'navy'),
    )
    frames = render_story(story, [12, 20], np.random.default_rng(0))
    assert frames.shape == (32, 64, 64, 3)
    corner = frames[:, :4, :4].mean(axis=(1, 2))  # background, RGB
    assert (np.ptp(corner[:12], axis=1) < 12).all()  # grey
    assert (corner[12:, 2] - corner[12:, 0] > 50).all()  # navy


def test_renderings_differ_and_repeat():
    np.testing.assert_array_equal(render('up', 1), render('up', 1))
    assert (render('up', 1) != render('up', 2)).any()


def test_every_scene_can_be_drawn_and_shows_its_shape():
    for items in split_scenes(0).values():
        for item in items[::17]:
            frames = render_scene(item, 12, np.random.default_rng(0))
            assert frames.shape == (12, 64, 64, 3)
            assert frames.dtype == np.uint8
            assert frames.std(axis=(1, 2)).max() > 15


def test_colours_look_different():
    shades = {
        colour: render('still', 0, 'disc', colour)[0, 24:40, 24:40]
        .reshape(-1, 3)
        .mean(axis=0)
        for colour in COLOURS
    }
    for first in COLOURS:
        for second in COLOURS:
            if first != second:
                assert np.abs(shades[first] - shades[second]).max() > 40


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
        render_scene(Scene(**parts), 11, np.random.default_rng(0))
