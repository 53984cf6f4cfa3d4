"""A model small enough to start the tools with: it learns one number."""

import os
import time

import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
from torch import nn
from torch.utils.data import Dataset


@DATASETS.register_module()
class MiniDataset(Dataset):
    """Numbers 0 to length - 1, divided by the length."""

    metainfo: dict = {}  # noqa: RUF012

    def __init__(self, length=8):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return {'inputs': torch.tensor([index / self.length])}


@MODELS.register_module()
class MiniModel(BaseModel):
    """Predicts ``weight * x``; the truth is ``2 * x``."""

    def __init__(self, width=1):
        super().__init__()
        self.linear = nn.Linear(1, width, bias=False)
        nn.init.constant_(self.linear.weight, 0.5)

    def forward(self, inputs, mode='tensor'):
        difference = self.linear(torch.stack(list(inputs))) - 2 * torch.stack(
            list(inputs)
        )
        if mode == 'loss':
            return {'loss': difference.square().mean()}
        return [{'error': value} for value in difference.abs().sum(1)]


@METRICS.register_module()
class MiniMetric(BaseMetric):
    """Mean error over the data set."""

    default_prefix = 'mini'

    def process(self, data_batch, data_samples):
        self.results.extend(float(sample['error']) for sample in data_samples)

    def compute_metrics(self, results):
        return {'error': sum(results) / len(results)}


@HOOKS.register_module()
class WaitForKill(Hook):
    """Announce an iteration of the first run and wait there to be killed."""

    def __init__(self, iteration, file):
        self.iteration = iteration
        self.file = file

    def after_train_iter(self, runner, *args, **kwargs):
        if runner.iter + 1 == self.iteration and not os.path.exists(self.file):
            with open(self.file, 'w', encoding='utf-8') as file:
                file.write('waiting')
            time.sleep(60)
