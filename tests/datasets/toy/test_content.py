from collections import Counter
from itertools import chain

import numpy as np
import pytest

from eaglenet_mm.datasets.toy import (
    ToyCombination,
    make_captions,
    order_blind_ceiling,
    split_combinations,
    toy_vocabulary,
)
from eaglenet_mm.datasets.toy.content import (
    BACKGROUNDS,
    COLOURS,
    REVERSED_MOTION,
    SHAPES,
)


def combination(motion, shape='ring'):
    return ToyCombination(shape, 'red', motion, 'grey')


def test_split_holds_every_combination_once():
    splits = split_combinations(0)
    together = [item for items in splits.values() for item in items]
    assert len(together) == len(set(together)) == 400
    assert {name: len(items) for name, items in splits.items()} == {
        'train': 240,
        'val': 40,
        'test': 120,
    }


def test_a_motion_and_its_reverse_share_a_split():
    for items in split_combinations(3).values():
        assert {item.reversed for item in items} == set(items)


def test_motions_are_equally_frequent_in_every_split():
    for items in split_combinations(1).values():
        counts = Counter(item.motion for item in items)
        assert set(counts) == set(REVERSED_MOTION)
        assert len(set(counts.values())) == 1


def test_train_shows_every_value_of_every_part():
    train = split_combinations(0)['train']
    assert {item.shape for item in train} == set(SHAPES)
    assert {item.colour for item in train} == set(COLOURS)
    assert {item.background for item in train} == set(BACKGROUNDS)


def test_the_first_ten_show_all_motions():
    for items in split_combinations(0).values():
        assert {item.motion for item in items[:10]} == set(REVERSED_MOTION)


def test_seed_decides_the_split():
    assert split_combinations(5) == split_combinations(5)
    assert split_combinations(5) != split_combinations(6)


def test_reverse_is_an_involution():
    for motion in REVERSED_MOTION:
        item = combination(motion)
        assert item.reversed.reversed == item
    assert combination('left').reversed == combination('right')
    assert combination('blink').reversed == combination('blink')


def test_ceiling_of_the_test_split():
    # 8 of 10 motions have their reverse in the gallery: 0.8 / 2 + 0.2
    test = split_combinations(0)['test']
    assert order_blind_ceiling(test, 1) == pytest.approx(60)
    assert order_blind_ceiling(test, 2) == pytest.approx(100)


@pytest.mark.parametrize(
    ('motions', 'top_k', 'expected'),
    [
        (['left', 'right'], 1, 50),
        (['left', 'up'], 1, 100),
        (['left', 'right', 'up'], 1, 200 / 3),
        (['left', 'right', 'still', 'blink'], 1, 75),
        (['left', 'left', 'right'], 1, 100 / 3),
        (['left', 'left', 'right'], 2, 200 / 3),
        (['left', 'left', 'right'], 10, 100),
    ],
)
def test_ceiling_by_hand(motions, top_k, expected):
    gallery = [combination(motion) for motion in motions]
    assert order_blind_ceiling(gallery, top_k) == pytest.approx(expected)


@pytest.mark.parametrize(
    ('size', 'top_k'), [(0, 1), (2, 0)], ids=['empty', 'top_k']
)
def test_ceiling_refuses_nonsense(size, top_k):
    gallery = [combination('left')] * size
    with pytest.raises(ValueError, match=f'{size} videos and top_k={top_k}'):
        order_blind_ceiling(gallery, top_k)


@pytest.fixture(scope='module')
def captions():
    """Many captions of every combination."""
    items = chain(*split_combinations(0).values())
    return {
        item: {
            caption
            for seed in range(4)
            for caption in make_captions(
                item, 4, np.random.default_rng([seed, place])
            )
        }
        for place, item in enumerate(items)
    }


def test_a_caption_belongs_to_one_combination(captions):
    together = [one for several in captions.values() for one in several]
    assert len(together) == len(set(together))


def test_a_combination_has_many_captions(captions):
    assert min(map(len, captions.values())) >= 8


def test_words_are_those_of_the_vocabulary(captions):
    words = {
        word
        for several in captions.values()
        for caption in several
        for word in caption.split()
    }
    assert words == set(toy_vocabulary())


def test_vocabulary_is_a_sorted_list_of_plain_words():
    words = toy_vocabulary()
    assert words == sorted(set(words))
    assert all(word.isalpha() and word == word.lower() for word in words)


def test_captions_fit_the_text_tower(captions):
    longest = max(
        len(caption.split())
        for several in captions.values()
        for caption in several
    )
    assert longest + 2 <= 24


def test_captions_of_a_video_differ():
    item = ToyCombination('ring', 'red', 'left', 'grey')
    captions = make_captions(item, 4, np.random.default_rng(0))
    assert len(set(captions)) == 4


def test_vocabulary_of_the_config_is_this_one(repository):
    from mmengine.config import Config

    config = Config.fromfile(repository / 'configs/_base_/datasets/toy.py')
    assert list(config.vocabulary) == toy_vocabulary()


@pytest.mark.parametrize('number', [0, 5])
def test_number_of_captions_is_checked(number):
    item = ToyCombination('ring', 'red', 'left', 'grey')
    with pytest.raises(ValueError, match=f'num_captions={number}'):
        make_captions(item, number, np.random.default_rng(0))
