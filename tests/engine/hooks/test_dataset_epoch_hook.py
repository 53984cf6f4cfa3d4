from __future__ import annotations

from types import SimpleNamespace

import pytest
from torch.utils.data import ConcatDataset, Subset

from eaglenet_mm.engine.hooks import DatasetEpochHook
from eaglenet_mm.registry import DATASETS
from tests.engine.loops.tiny_retrieval import (
    TinyVideos,
    build_runner,
    loader_config,
)


@DATASETS.register_module()
class EpochVideos(TinyVideos):
    """Remembers the epochs it is told, and which items it served when."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.epochs: list[int] = []
        self.served: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def __getitem__(self, index: int) -> dict:
        self.served.append(self.epochs[-1])
        return super().__getitem__(index)


@pytest.mark.parametrize('wrap', ['plain', 'subset', 'concat', 'loader'])
def test_inner_datasets_are_told(wrap):
    dataset = EpochVideos()
    outer = {
        'plain': lambda: dataset,
        'subset': lambda: Subset(dataset, [0, 2]),
        'concat': lambda: ConcatDataset([TinyVideos(), dataset]),
        'loader': lambda: SimpleNamespace(
            dataset=SimpleNamespace(dataset=dataset)
        ),
    }
    runner = SimpleNamespace(
        train_dataloader=SimpleNamespace(dataset=outer[wrap]()), epoch=3
    )
    DatasetEpochHook().before_train_epoch(runner)
    assert dataset.epochs == [3]


def make_runner(work_dir, epochs, **options):
    loader = loader_config(2, num_videos=4)
    loader['dataset']['type'] = 'EpochVideos'
    return build_runner(
        str(work_dir),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=100),
        optim_wrapper=dict(optimizer=dict(type='BertAdam', lr=1e-2)),
        custom_hooks=[dict(type='DatasetEpochHook')],
        **options,
    )


def test_epochs_of_a_training_and_of_its_resume(tmp_path):
    runner = make_runner(tmp_path, 2)
    runner.register_hook(dict(type='CheckpointHook', interval=1))
    runner.train()
    dataset = runner.train_dataloader.dataset
    assert dataset.epochs == [0, 1]
    assert dataset.served == [0] * 4 + [1] * 4
    resumed = make_runner(tmp_path, 3, resume=True)
    resumed.train()
    assert resumed.train_dataloader.dataset.epochs == [2]


def test_own_data_sets_hear_of_an_iteration_loop_once(tmp_path):
    loader = loader_config(2, num_videos=4)
    loader['dataset']['type'] = 'EpochVideos'
    loader['sampler'] = dict(type='InfiniteSampler')
    runner = build_runner(
        str(tmp_path),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=False, max_iters=5),
        optim_wrapper=dict(optimizer=dict(type='BertAdam', lr=1e-2)),
        custom_hooks=[dict(type='DatasetEpochHook')],
    )
    runner.train()
    assert runner.train_dataloader.dataset.epochs == [0]
