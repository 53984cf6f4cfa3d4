from collections import Counter
from itertools import combinations, pairwise

import numpy as np
import pytest

from eaglenet_mm.datasets.story import (
    Caption,
    Scene,
    make_captions,
    make_stories,
    mean_of_scenes_ceiling,
    order_blind_ceiling,
    split_scenes,
    story_vocabulary,
)
from eaglenet_mm.datasets.story.content import (
    BACKGROUNDS,
    COLOURS,
    REVERSED_MOTION,
    SHAPES,
    find_ambiguous,
)


def scene(motion, shape='ring', colour='red', background='grey'):
    return Scene(shape, colour, motion, background)


def told(*places):
    """A caption of these scenes; its words do not matter."""
    return Caption('words', min(places), max(places))


def test_split_holds_every_scene_once():
    splits = split_scenes(0)
    together = [item for items in splits.values() for item in items]
    assert len(together) == len(set(together)) == 6 * 8 * 10 * 4
    assert {name: len(items) for name, items in splits.items()} == {
        'train': 1250,
        'val': 190,
        'test': 480,
    }


def test_a_motion_and_its_reverse_share_a_split():
    for items in split_scenes(3).values():
        assert {item.reversed for item in items} == set(items)


def test_motions_are_equally_frequent_in_every_split():
    for items in split_scenes(1).values():
        counts = Counter(item.motion for item in items)
        assert set(counts) == set(REVERSED_MOTION)
        assert len(set(counts.values())) == 1


def test_train_shows_every_value_of_every_part():
    train = split_scenes(0)['train']
    assert {item.shape for item in train} == set(SHAPES)
    assert {item.colour for item in train} == set(COLOURS)
    assert {item.background for item in train} == set(BACKGROUNDS)


def test_seed_decides_the_split():
    assert split_scenes(5) == split_scenes(5)
    assert split_scenes(5) != split_scenes(6)


def test_reverse_is_an_involution():
    for motion in REVERSED_MOTION:
        assert scene(motion).reversed.reversed == scene(motion)
    assert scene('left').reversed == scene('right')
    assert scene('blink').reversed == scene('blink')


@pytest.fixture(scope='module')
def stories():
    rng = np.random.default_rng(0)
    return make_stories(split_scenes(0)['test'], 180, rng)


def test_stories_of_a_gallery_repeat_no_scene(stories):
    scenes = [item for story in stories for item in story]
    assert len(scenes) == len(set(scenes))
    assert Counter(map(len, stories)) == {2: 162, 3: 18}


def test_scenes_of_a_story_differ_in_shape_and_colour(stories):
    for story in stories:
        for one, other in combinations(story, 2):
            assert one.shape != other.shape
            assert one.colour != other.colour


def test_every_scene_is_shown_before_one_is_shown_again():
    scenes = split_scenes(0)['val']
    stories = make_stories(scenes, 300, np.random.default_rng(1))
    counts = Counter(item for story in stories for item in story)
    assert set(counts) == set(scenes)
    # leftovers of a deal that fit no story wait for the next
    assert max(counts.values()) - min(counts.values()) <= 1


def test_captions_tell_one_scene_or_two_in_order(stories):
    rng = np.random.default_rng(0)
    pairs = 0
    for story in stories:
        captions = make_captions(story, rng)
        alone = [item for item in captions if item.first == item.last]
        assert Counter(item.first for item in alone) == dict.fromkeys(
            range(len(story)), 2
        )
        for caption in alone:
            one = story[caption.first]
            assert one.colour in caption.text
            assert one.background in caption.text
        for caption in captions[len(alone) :]:
            pairs += 1
            assert caption.last == caption.first + 1 < len(story)
            first, second = caption.text.split(' then ')
            assert story[caption.first].colour in first
            assert story[caption.last].colour in second
        assert len({item.text for item in captions}) == len(captions)
    assert 25 < pairs < 65


def test_words_are_those_of_the_vocabulary():
    rng = np.random.default_rng(0)
    stories = make_stories(split_scenes(0)['train'], 2000, rng)
    texts = [
        caption.text
        for story in stories
        for caption in make_captions(story, rng)
    ]
    words = story_vocabulary()
    assert words == sorted({word for text in texts for word in text.split()})
    assert all(word.isalpha() and word == word.lower() for word in words)
    assert not any('a orange' in text for text in texts)
    # two ids more than words mark the start and the end
    assert max(len(text.split()) for text in texts) + 2 <= 32


def test_vocabulary_of_the_config_is_this_one(repository):
    from mmengine.config import Config

    config = Config.fromfile(repository / 'configs/_base_/datasets/story.py')
    assert list(config.vocabulary) == story_vocabulary()


def test_order_blind_ceiling_by_hand():
    left, right, up = scene('left'), scene('right'), scene('up', 'bar')
    still, other = scene('still', 'disc', 'blue'), scene('blink', 'cross')
    stories = [(left, up), (right, still), (other, scene('grow'))]
    # left may be right: two videos; the others have one place only
    queries = [(0, told(0)), (0, told(1)), (1, told(1)), (2, told(0))]
    assert order_blind_ceiling(stories, queries, 1) == pytest.approx(87.5)
    assert order_blind_ceiling(stories, queries, 2) == pytest.approx(100)
    assert order_blind_ceiling(stories, queries[:1], 1) == pytest.approx(50)


def test_order_blind_ceiling_of_two_scenes_in_either_order():
    one, other = scene('grow'), scene('still', 'bar', 'blue')
    stories = [(one, other), (other, one), (one, scene('up', 'disc'))]
    # of a pair neither order nor backgrounds are told apart
    assert order_blind_ceiling(stories, [(0, told(0, 1))], 1) == 50


def test_mean_of_scenes_ceiling_by_hand():
    ring = scene('grow', 'ring', 'red', 'navy')
    bar = scene('left', 'bar', 'blue', 'grey')
    # the same values, joined the other way: the mean cannot tell
    mixed = (
        scene('grow', 'bar', 'red', 'navy'),
        scene('left', 'ring', 'blue', 'grey'),
    )
    far = (scene('up', 'disc', 'white', 'brown'), scene('down', 'cross'))
    stories = [(ring, bar), mixed, far]
    assert mean_of_scenes_ceiling(stories, [(0, told(0))], 1) == 50
    assert mean_of_scenes_ceiling(stories, [(0, told(0))], 2) == 100
    assert mean_of_scenes_ceiling(stories, [(2, told(0))], 1) == 100


@pytest.mark.parametrize(
    'ceiling', [order_blind_ceiling, mean_of_scenes_ceiling]
)
@pytest.mark.parametrize(('size', 'top_k'), [(0, 1), (1, 0)])
def test_ceilings_refuse_nonsense(ceiling, size, top_k):
    queries = [(0, told(0))] * size
    with pytest.raises(ValueError, match=f'{size} queries and top_k={top_k}'):
        ceiling([(scene('left'), scene('up', 'bar'))], queries, top_k)


def test_ambiguous_captions_are_found(stories):
    one, other = scene('grow'), scene('still', 'bar', 'blue')
    elsewhere = scene('grow', background='navy')
    gallery = [(one, other), (elsewhere, other), (other, one)]
    assert find_ambiguous(gallery, [(0, told(0, 1))]) == ['words']
    assert find_ambiguous(gallery, [(2, told(0, 1))]) == []
    assert find_ambiguous(gallery, [(0, told(0)), (1, told(0))]) == ['words']
    singles = [
        (place, told(k))
        for place, story in enumerate(stories)
        for k in range(len(story))
    ]
    assert find_ambiguous(stories, singles) == []


def test_pairs_are_of_neighbours():
    # guards pairwise against a pair that is not shown without a gap
    a, b, c = scene('grow'), scene('up', 'bar', 'blue'), scene('left', 'disc')
    assert (a, c) not in set(pairwise((a, b, c)))
    assert find_ambiguous([(a, b, c), (a, c)], [(1, told(0, 1))]) == []
