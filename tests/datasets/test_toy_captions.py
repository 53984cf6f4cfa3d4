from itertools import chain

import numpy as np
import pytest

from eaglenet_mm.datasets.toy_captions import make_captions, toy_vocabulary
from eaglenet_mm.datasets.toy_combinations import (
    ToyCombination,
    split_combinations,
)


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
