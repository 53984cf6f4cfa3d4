"""Captions by how often an item was drawn, in loaders and trainings."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.dataset import DefaultSampler, InfiniteSampler, RepeatDataset
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    RandomSampler,
    Subset,
    WeightedRandomSampler,
)

from eaglenet_mm.datasets import (
    CaptionExpansion,
    ParagraphDataset,
    RandomCaption,
    VideoSubset,
    current_draw,
    number_draws,
)
from eaglenet_mm.datasets.draws import DrawnIndex
from tests.datasets.own_videos import OwnVideos
from tests.engine.loops.tiny_retrieval import build_runner

VIDEOS, CAPTIONS = 12, 10
Drawn = tuple[str, int]


def identity(item: dict[str, Any]) -> dict[str, Any]:
    return item


def drawn_captions(seed: int = 0, **options: Any) -> RandomCaption:
    """Videos with captions whose items are read as they are."""
    return RandomCaption(OwnVideos(pipeline=[identity], **options), seed=seed)


def read(loader: DataLoader, num_batches: int | None = None) -> list[str]:
    """Captions of the first batches, in order."""
    captions: list[str] = []
    for number, batch in enumerate(loader):
        if number == num_batches:
            break
        captions += [item['captions'][0] for item in batch]
    return captions


def make_loader(dataset: Any, sampler: Any = None, **options: Any) -> Any:
    options = dict(batch_size=4, collate_fn=list, **options)
    loader = DataLoader(dataset, sampler=sampler, **options)
    number_draws(loader)
    return loader


def expected(epoch: int, index: int, seed: int = 0) -> str:
    """The caption that the first release drew in an epoch."""
    generator = np.random.default_rng([seed, epoch, index])
    return f'v{index}-{generator.integers(CAPTIONS)}'


def test_a_drawn_index_is_a_number() -> None:
    drawn = DrawnIndex(5, 2, 1)
    assert drawn == 5
    assert [10, 11, 12, 13, 14, 15][drawn] == 15
    for copied in (pickle.loads(pickle.dumps(drawn)), copy.deepcopy(drawn)):
        assert (copied, copied.pass_number, copied.repeat) == (5, 2, 1)
    assert current_draw() is None


@pytest.mark.parametrize(
    ('workers', 'persistent'),
    [
        (0, False),
        (3, True),
        pytest.param(1, False, marks=pytest.mark.nightly),
        pytest.param(1, True, marks=pytest.mark.nightly),
        pytest.param(3, False, marks=pytest.mark.nightly),
    ],
)
def test_passes_of_an_ordinary_loader(workers: int, persistent: bool) -> None:
    loader = make_loader(
        drawn_captions(),
        num_workers=workers,
        persistent_workers=persistent and workers > 0,
    )
    for epoch in range(3):
        assert read(loader) == [expected(epoch, n) for n in range(VIDEOS)]


@pytest.mark.nightly
def test_workers_that_share_no_memory() -> None:
    loader = make_loader(
        drawn_captions(), num_workers=1, multiprocessing_context='spawn'
    )
    assert read(loader) == [expected(0, n) for n in range(VIDEOS)]


@pytest.mark.parametrize(
    'workers', [0, pytest.param(3, marks=pytest.mark.nightly)]
)
def test_a_sampler_without_end(workers: int) -> None:
    dataset = drawn_captions()
    sampler = InfiniteSampler(dataset, shuffle=True, seed=3)
    captions = read(make_loader(dataset, sampler, num_workers=workers), 15)
    for pass_number in range(5):
        part = captions[pass_number * VIDEOS : (pass_number + 1) * VIDEOS]
        want = [expected(pass_number, n) for n in range(VIDEOS)]
        assert sorted(part) == sorted(want)


@pytest.mark.parametrize(
    ('kind', 'size'),
    [
        (DefaultSampler, 12),
        (DefaultSampler, 9),
        (InfiniteSampler, 12),
        (InfiniteSampler, 10),  # a pass ends within a step
    ],
)
def test_processes_draw_what_one_draws(
    kind: type, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def captions(rank: int, world_size: int, batch_size: int) -> list[str]:
        """36 draws of all processes, the share of one of them."""
        share = 36 // world_size
        monkeypatch.setattr(
            'mmengine.dataset.sampler.get_dist_info',
            lambda: (rank, world_size),
        )
        dataset: Any = drawn_captions()
        if size < VIDEOS:
            dataset = Subset(dataset, range(size))
        sampler = kind(dataset, shuffle=True, seed=5)
        loader = DataLoader(
            dataset,
            sampler=sampler,
            batch_size=batch_size,
            collate_fn=list,
        )
        number_draws(loader)
        found: list[str] = []
        while len(found) < share:
            found += read(loader, share // batch_size)
        return found

    one = captions(0, 1, 3)
    each = [captions(rank, 3, 1) for rank in range(3)]
    assert one == [x for step in zip(*each, strict=True) for x in step]


def distinct(captions: list[str]) -> float:
    """Different captions of a video, on average."""
    return len(set(captions)) / len({x.split('-')[0] for x in captions})


@pytest.mark.parametrize(
    'workers', [pytest.param(0, marks=pytest.mark.nightly), 2]
)
def test_repeats_within_a_pass_are_other_draws(workers: int) -> None:
    inner = RandomCaption(OwnVideos([50] * 12, pipeline=[identity]))
    repeats = 4
    outers = dict(
        repeated=_Outer(RepeatDataset, inner, times=repeats),
        joined=ConcatDataset([inner] * repeats),
        copies=ConcatDataset([copy.deepcopy(inner) for _ in range(repeats)]),
        chosen=Subset(inner, list(range(12)) * repeats),
    )
    for outer in outers.values():
        loader = make_loader(outer, num_workers=workers)
        captions = [*read(loader), *read(loader)]
        assert len(captions) == 8 * 12
        # 8 draws of 50: 7.46 different ones on average
        assert 7 < distinct(captions) < 7.9
        again = make_loader(outer, num_workers=1)
        assert captions == [*read(again), *read(again)]


class _Outer(RepeatDataset):
    """``RepeatDataset`` takes configs and its own kind only."""

    def __init__(self, kind: type, inner: Any, times: int) -> None:
        self.dataset, self.times = inner, times
        self._metainfo, self._fully_initialized = inner.metainfo, False
        self.full_init()


@pytest.mark.parametrize(
    'workers', [0, pytest.param(2, marks=pytest.mark.nightly)]
)
@pytest.mark.parametrize('sampler', ['weighted', 'replacement'])
def test_samplers_that_draw_again(workers: int, sampler: str) -> None:
    dataset = RandomCaption(OwnVideos([50] * 12, pipeline=[identity]))
    samplers = dict(
        weighted=WeightedRandomSampler([1.0] * 12, 96),
        replacement=RandomSampler(dataset, replacement=True, num_samples=96),
    )
    loader = make_loader(dataset, samplers[sampler], num_workers=workers)
    assert 7 < distinct(read(loader)) < 7.9


def test_draws_reach_the_inside_of_our_wrappers() -> None:
    inner = drawn_captions()
    for outer in (CaptionExpansion(inner), ParagraphDataset(inner)):
        loader = make_loader(outer)
        for epoch in range(2):
            assert read(loader) == [expected(epoch, n) for n in range(VIDEOS)]
    outside = RandomCaption(VideoSubset(OwnVideos(pipeline=[identity]), 5))
    assert read(make_loader(outside)) == [expected(0, n) for n in range(5)]
    chosen = make_loader(VideoSubset(inner, [7, 3]))
    assert distinct([*read(chosen), *read(chosen), *read(chosen)]) > 1.5


def test_a_class_balanced_set_of_a_config(tmp_path: Path) -> None:
    config = dict(
        type='ClassBalancedDataset',
        oversample_thr=0.9,
        dataset=dict(type='RandomCaption', dataset=dict(type='OwnVideos')),
    )
    seen = train(tmp_path, config, max_iters=8)
    rare = [x for batch in seen for x, _ in batch if x in ('v0', 'v3')]
    assert len(rare) > 2
    drawn = {x for batch in seen for x in batch}
    assert len({x for x, _ in drawn}) == VIDEOS


def test_a_loader_whose_draws_cannot_be_numbered() -> None:
    class Own:
        batch_size = 2

        def __iter__(self) -> Any:
            yield from ([0, 1], [2, 3])

        def __len__(self) -> int:
            return 2

    dataset = drawn_captions()
    loader = DataLoader(dataset, batch_sampler=Own(), collate_fn=list)
    with pytest.raises(TypeError, match="'sampler', but got Own"):
        number_draws(loader)
    with pytest.raises(TypeError, match='got NoneType'):
        number_draws(DataLoader(dataset, batch_size=None))
    # nobody asks: nothing changes
    plain = DataLoader(OwnVideos(), batch_sampler=Own())
    assert number_draws(plain) is None


def test_indices_that_lost_their_number_raise() -> None:
    class Forgets(BatchSampler):
        def __iter__(self) -> Any:
            for batch in super().__iter__():
                yield [int(index) for index in batch]

    dataset = drawn_captions()
    loader = DataLoader(
        dataset,
        batch_sampler=Forgets(RandomSampler(dataset), 4, drop_last=False),
        collate_fn=list,
    )
    number_draws(loader)
    with pytest.raises(RuntimeError, match='pass on the index objects'):
        read(loader)


class Watch(Hook):
    """Keeps the captions of each step."""

    def __init__(self) -> None:
        self.steps: list[list[Drawn]] = []

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        self.steps.append(
            [(x.video_id, x.captions[0]) for x in data_batch['data_samples']]
        )


def train(
    work_dir: Path,
    dataset: dict,
    *,
    sampler: str = 'InfiniteSampler',
    workers: int = 0,
    persistent: bool = False,
    resume: bool = False,
    batch_sampler: dict | None = None,
    drop_last: bool = True,
    **loop: Any,
) -> list[list[Drawn]]:
    """The captions of each step of a training, as its hooks see them."""
    by_epoch = 'max_epochs' in loop
    watch = Watch()
    runner = build_runner(
        str(work_dir),
        train_dataloader=dict(
            batch_size=4,
            num_workers=workers,
            persistent_workers=persistent,
            drop_last=drop_last,
            dataset=dataset,
            batch_sampler=batch_sampler,
            sampler=dict(type=sampler, shuffle=True),
            collate_fn=dict(type='pseudo_collate'),
        ),
        train_cfg=dict(by_epoch=by_epoch, val_interval=1000, **loop),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        custom_hooks=[dict(type='DatasetEpochHook'), watch],
        randomness=dict(seed=0),
        resume=resume,
    )
    runner.register_hook(dict(type='DistSamplerSeedHook'))
    runner.register_hook(
        dict(type='CheckpointHook', interval=5, by_epoch=False)
    )
    runner.train()
    return watch.steps


RANDOM = dict(type='RandomCaption', dataset=dict(type='OwnVideos'))


@pytest.fixture
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """MMEngine waits for 2 seconds between passes."""
    monkeypatch.setattr('mmengine.runner.loops.time.sleep', lambda _: None)


@pytest.mark.nightly
@pytest.mark.usefixtures('_no_pause')
@pytest.mark.parametrize('sampler', ['InfiniteSampler', 'DefaultSampler'])
def test_iterations_with_any_workers_and_a_resume(
    tmp_path: Path, sampler: str
) -> None:
    """12 videos, 4 a step: a pass is 3 steps, and 4 passes 12 steps."""
    steps = train(tmp_path / 'one', RANDOM, sampler=sampler, max_iters=12)
    for number in range(4):
        part = [x for step in steps[3 * number : 3 * number + 3] for x in step]
        assert sorted(part) == sorted(
            (f'v{n}', expected(number, n)) for n in range(VIDEOS)
        )
    for workers, persistent in ((2, False), (2, True)):
        same = train(
            tmp_path / f'workers-{persistent}',
            RANDOM,
            sampler=sampler,
            workers=workers,
            persistent=persistent,
            max_iters=12,
        )
        assert same == steps
    # in the middle of the second pass
    train(tmp_path / 'two', RANDOM, sampler=sampler, max_iters=5)
    resumed = train(
        tmp_path / 'two',
        RANDOM,
        sampler=sampler,
        workers=1,
        resume=True,
        max_iters=12,
    )
    assert resumed == steps[5:]


@pytest.mark.parametrize(
    'workers', [0, pytest.param(2, marks=pytest.mark.nightly)]
)
def test_epochs_give_the_captions_they_always_gave(
    tmp_path: Path, workers: int
) -> None:
    steps = train(
        tmp_path,
        RANDOM,
        sampler='DefaultSampler',
        workers=workers,
        persistent=workers > 0,
        max_epochs=3,
    )
    for epoch in range(3):
        part = [x for step in steps[3 * epoch : 3 * epoch + 3] for x in step]
        assert sorted(part) == sorted(
            (f'v{n}', expected(epoch, n)) for n in range(VIDEOS)
        )


@pytest.mark.nightly
def test_repeated_set_of_a_config(tmp_path: Path) -> None:
    repeated = dict(type='RepeatDataset', times=4, dataset=RANDOM)
    steps = train(
        tmp_path / 'one', repeated, sampler='DefaultSampler', max_epochs=1
    )
    captions = [caption for step in steps for _, caption in step]
    assert len(captions) == 48
    # 4 draws of 10: 3.44 different ones on average
    assert 3 < distinct(captions) < 3.9
    assert steps == train(
        tmp_path / 'two',
        repeated,
        sampler='DefaultSampler',
        workers=2,
        max_epochs=1,
    )
    endless = train(tmp_path / 'three', repeated, max_iters=12)
    assert 3 < distinct([x for step in endless for _, x in step]) < 3.9


def test_iterations_without_the_hook_raise(tmp_path: Path) -> None:
    runner = build_runner(
        str(tmp_path),
        train_dataloader=dict(
            batch_size=2,
            dataset=RANDOM,
            sampler=dict(type='InfiniteSampler'),
            collate_fn=dict(type='pseudo_collate'),
        ),
        train_cfg=dict(by_epoch=False, max_iters=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
    )
    with pytest.raises(RuntimeError, match='DatasetEpochHook'):
        runner.train()
