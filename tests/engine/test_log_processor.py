"""What the log averages over its window."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import LOG_PROCESSORS


def test_pairs_of_the_same_video_are_averaged(repository: Path) -> None:
    """One batch of many would say little about them."""
    config = Config.fromfile(repository / 'configs/eaglenet_msvd.py')
    processor = LOG_PROCESSORS.build(config.log_processor)
    hub = MessageHub('pairs of the same video')
    for value in (3.0, 0.0, 1.0, 2.0):
        for key in ('same_video_pairs', 'loss_match', 'lr'):
            hub.update_scalar(f'train/{key}', value)
    runner = SimpleNamespace(message_hub=hub)
    got = processor._collect_scalars([], runner, 'train')
    assert got == {
        'same_video_pairs': pytest.approx(1.5),
        'loss_match': pytest.approx(1.5),
        'lr': 2.0,
    }
