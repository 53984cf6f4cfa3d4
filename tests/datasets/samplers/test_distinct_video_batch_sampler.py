from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import BatchSampler, RandomSampler

from eaglenet_mm.datasets import CaptionExpansion, DistinctVideoBatchSampler
from eaglenet_mm.datasets.samplers.distinct_video_batch_sampler import (
    _distinct,
    _most_batches,
)
from eaglenet_mm.registry import DATA_SAMPLERS
from tests.datasets.own_videos import OwnVideos
from tests.datasets.test_draws import train

COUNTS = [7, 1, 3, 12, 5, 5, 2, 9, 4, 4]  # 52 captions of 10 videos


@pytest.fixture
def pairs() -> CaptionExpansion:
    return CaptionExpansion(OwnVideos(COUNTS))


def sampler_of(
    dataset: Any, batch_size: int = 4, kind: type = DefaultSampler, **options
) -> DistinctVideoBatchSampler:
    options = dict(shuffle=True, seed=0, **options)
    return DistinctVideoBatchSampler(kind(dataset, **options), batch_size)


def check(batches: list[list[int]], ids: list[str], size: int) -> None:
    for batch in batches:
        assert len(batch) == size
        assert len({ids[index] for index in batch}) == size
    assert max(Counter(x for batch in batches for x in batch).values()) == 1


def test_an_ordinary_shuffle_has_collisions(pairs: CaptionExpansion) -> None:
    """What the sampler is for."""
    ids = pairs.video_ids()
    sampler = DefaultSampler(pairs, shuffle=True, seed=0)
    plain = list(BatchSampler(sampler, 4, drop_last=True))
    assert any(len({ids[x] for x in batch}) < 4 for batch in plain)
    check(list(sampler_of(pairs)), ids, 4)


@pytest.mark.parametrize('batch_size', [1, 3, 4, 7, 10])
def test_each_pass_places_all_that_fits(
    pairs: CaptionExpansion, batch_size: int
) -> None:
    sampler = sampler_of(pairs, batch_size)
    ids = pairs.video_ids()
    passes = []
    for epoch in range(6):
        sampler.sampler.set_epoch(epoch)
        batches = list(sampler)
        check(batches, ids, batch_size)
        assert len(batches) == len(sampler)
        assert len(ids) - batch_size * len(batches) == sampler.num_left_out
        assert {x.pass_number for batch in batches for x in batch} == {epoch}
        passes.append(batches)
    assert passes[0] != passes[1]
    sampler.sampler.set_epoch(1)
    assert list(sampler) == passes[1]
    # what is left out differs, so that everything has its turn
    left = [set(range(52)) - {x for b in got for x in b} for got in passes]
    if 0 < sampler.num_left_out < 40:
        assert len({frozenset(x) for x in left}) > 1


def most_by_brute_force(counts: list[int], size: int) -> int:
    """Take the videos with most captions left, batch after batch."""
    left, batches = sorted(counts, reverse=True), 0
    while sum(x > 0 for x in left) >= size:
        left = sorted([x - 1 for x in left[:size]] + left[size:], reverse=True)
        batches += 1
    return batches


@settings(max_examples=150, deadline=None)
@given(
    counts=st.lists(st.integers(1, 12), min_size=1, max_size=12),
    size=st.integers(1, 8),
    seed=st.randoms(use_true_random=False),
)
def test_no_cut_has_more_batches(
    counts: list[int], size: int, seed: Any
) -> None:
    videos = [v for v, count in enumerate(counts) for _ in range(count)]
    number = _most_batches(videos, size)
    assert number == most_by_brute_force(counts, size)
    order = list(range(len(videos)))
    seed.shuffle(order)
    batches = list(_distinct(order, videos, number, size))
    assert len(batches) == number
    for batch in batches:
        assert len({videos[x] for x in batch}) == size == len(batch)
    placed = [x for batch in batches for x in batch]
    assert len(set(placed)) == len(placed)


def test_an_order_without_collisions_stays_as_it_is() -> None:
    own = OwnVideos([1] * 20)
    default = DefaultSampler(own, shuffle=True, seed=4)
    got = [x for b in DistinctVideoBatchSampler(default, 5) for x in b]
    assert got == list(default)


@pytest.mark.parametrize('kind', [DefaultSampler, InfiniteSampler])
def test_processes_share_the_batches_of_one(
    pairs: CaptionExpansion, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    def batches(rank: int, world_size: int) -> list[list[int]]:
        for module in (
            'mmengine.dataset.sampler',
            'eaglenet_mm.datasets.samplers.distinct_video_batch_sampler',
        ):
            monkeypatch.setattr(
                f'{module}.get_dist_info', lambda: (rank, world_size)
            )
        sampler = sampler_of(pairs, 8 // world_size, kind)
        return list(islice(sampler, 10))

    one = batches(0, 1)
    each = [batches(rank, 4) for rank in range(4)]
    assert len(one) > 3
    for joint, *shares in zip(one, *each, strict=True):
        assert all(len(share) == 2 for share in shares)
        assert sorted(joint) == sorted(x for share in shares for x in share)


def test_passes_without_end(pairs: CaptionExpansion) -> None:
    sampler = sampler_of(pairs, 4, InfiniteSampler)
    finite = sampler_of(pairs, 4)
    length = len(sampler)
    stream = list(islice(sampler, 3 * length))
    for epoch in range(3):
        finite.sampler.set_epoch(epoch)
        part = stream[epoch * length : (epoch + 1) * length]
        assert part == list(finite)
        assert {x.pass_number for batch in part for x in batch} == {epoch}


def test_what_is_left_out_is_logged(
    pairs: CaptionExpansion, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[str] = []
    monkeypatch.setattr(
        'eaglenet_mm.datasets.samplers.distinct_video_batch_sampler.print_log',
        lambda message, **_: logged.append(message),
    )
    sampler = sampler_of(pairs, 8)
    assert (len(sampler), sampler.num_left_out) == (4, 20)
    assert logged == [
        'A pass over 52 items makes 4 batches of 8 items of different videos; '
        '20 items are left out of each pass, others each time.'
    ]


def test_what_it_cannot_do_is_refused(pairs: CaptionExpansion) -> None:
    with pytest.raises(ValueError, match=r'batch of 11 items.*set has 10'):
        sampler_of(pairs, 11)
    with pytest.raises(TypeError, match='but got RandomSampler'):
        DistinctVideoBatchSampler(RandomSampler(pairs), 4)
    with pytest.raises(ValueError, match='drop_last=False'):
        DistinctVideoBatchSampler(DefaultSampler(pairs), 4, drop_last=False)


@pytest.mark.parametrize(
    ('sampler', 'loop'),
    [
        ('InfiniteSampler', dict(max_iters=16)),
        pytest.param(
            'DefaultSampler', dict(max_epochs=2), marks=pytest.mark.nightly
        ),
        pytest.param(
            'DefaultSampler', dict(max_iters=16), marks=pytest.mark.nightly
        ),
    ],
)
def test_trainings_of_a_config(
    loop: dict, sampler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('mmengine.runner.loops.time.sleep', lambda _: None)
    own = dict(type='OwnVideos', counts=COUNTS)
    options = dict(
        sampler=sampler,
        batch_sampler=dict(type='DistinctVideoBatchSampler'),
        drop_last=False,
    )
    dataset = dict(type='CaptionExpansion', dataset=own)
    steps = train(tmp_path / 'one', dataset, **options, **loop)
    length = _most_batches(
        [v for v, n in enumerate(COUNTS) for _ in range(n)], 4
    )
    assert all(len({video for video, _ in step}) == 4 for step in steps)
    first = [caption for step in steps[:length] for _, caption in step]
    second = [caption for step in steps[length:] for _, caption in step]
    assert len(set(first)) == len(first) == 4 * length
    assert len(set(second)) == len(second)
    assert first != second
    assert steps == train(
        tmp_path / 'two', dataset, workers=2, **options, **loop
    )
    # another caption of a video that is repeated
    repeated = dict(
        type='RepeatDataset',
        times=4,
        dataset=dict(type='RandomCaption', dataset=own),
    )
    steps = train(tmp_path / 'three', repeated, **options, max_iters=10)
    assert all(len({video for video, _ in step}) == 4 for step in steps)
    captions = {caption for step in steps for _, caption in step}
    assert len(captions) > 20


def test_is_registered() -> None:
    assert DATA_SAMPLERS.get('DistinctVideoBatchSampler') is (
        DistinctVideoBatchSampler
    )
