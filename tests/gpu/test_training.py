"""The tools train, test and resume a tiny retriever on the device."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from tests.models.tiny import (
    FRAMES,
    TEXT_ENCODER,
    VIDEO_ENCODER,
    WORDS,
    eaglenet_head,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.timeout(240),
]

ITERATIONS, HALF = 20, 10
PARTS = Path(__file__).resolve().parents[1] / 'tools'


def config() -> Config:
    """Config of ``mini_config.py`` for four random videos."""
    base = Config.fromfile(
        PARTS / 'mini_config.py', import_custom_modules=False
    )
    arch = TEXT_ENCODER['arch']
    words = dict(arch['text_cfg'], vocab_size=40)
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        base[loader].dataset = dict(type='mmengine.MiniVideos', words=WORDS)
        base[loader].collate_fn = dict(type='pseudo_collate')
    return Config(
        dict(
            base,
            custom_imports=dict(imports=['eaglenet_mm', 'mini_videos']),
            model=dict(
                type='TextVideoRetriever',
                text_encoder=dict(
                    TEXT_ENCODER, arch=dict(arch, text_cfg=words)
                ),
                video_encoder=VIDEO_ENCODER,
                head=eaglenet_head(),
                data_preprocessor=dict(
                    type='RetrievalDataPreprocessor', num_frames=FRAMES
                ),
                encoder_micro_batch=1,
            ),
            optim_wrapper=dict(
                optimizer=dict(type='BertAdam', lr=1e-3),
            ),
            train_cfg=dict(
                by_epoch=True, max_epochs=ITERATIONS // 2, val_interval=5
            ),
            val_cfg=dict(type='RetrievalValLoop'),
            val_evaluator=dict(type='RetrievalRankMetric'),
            test_cfg=dict(type='RetrievalTestLoop'),
            test_evaluator=dict(type='RetrievalRankMetric'),
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=1),
                checkpoint=dict(type='CheckpointHook', interval=5),
            ),
            log_processor=dict(window_size=1),
        )
    )


class Tool(subprocess.Popen):
    """A tool in a process of its own, on the device under test."""

    def __init__(
        self, device: torch.device, name: str, *arguments: Any
    ) -> None:
        folders = [PARTS, PARTS.parents[1], os.environ.get('PYTHONPATH', '')]
        hidden = {} if device.type == 'cuda' else {'CUDA_VISIBLE_DEVICES': ''}
        super().__init__(
            [sys.executable, PARTS.parents[1] / 'tools' / name, *arguments],
            env={
                **os.environ,
                **hidden,
                'PYTHONPATH': os.pathsep.join(map(str, folders)),
                'OMP_NUM_THREADS': '1',
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self) -> None:
        output = self.communicate()[0]
        assert self.returncode == 0, output


def logged(folder: Path) -> list[dict[str, Any]]:
    """What the only run in a folder has logged, line by line."""
    (file,) = folder.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in file.read_text().splitlines()]


def losses_of(folder: Path) -> dict[int, float]:
    """Loss of each iteration."""
    return {
        row['iter']: row['loss'] for row in logged(folder) if 'loss' in row
    }


@pytest.fixture
def start(device: torch.device) -> Iterator[Callable[..., Tool]]:
    """Start tools; none of them outlives the test, and holds the card."""
    tools: list[Tool] = []

    def run(name: str, *arguments: Any) -> Tool:
        tools.append(Tool(device, name, *arguments))
        return tools[-1]

    yield run
    for tool in tools:
        tool.kill()
        tool.wait()


def test_train_test_and_resume(
    device: torch.device, start: Callable[..., Tool], tmp_path: Path
) -> None:
    """In float32 and in the mixed precision of the device, side by side."""
    path = tmp_path / 'config.py'
    config().dump(path)
    amp: dict[str, list[str]] = {'float32': [], 'mixed': ['--amp']}
    runs = {
        name: start('train.py', path, '--work-dir', tmp_path / name, *options)
        for name, options in amp.items()
    }
    for name, run in runs.items():
        run.finish()
        # MMEngine logs the memory of a card, if it trains on one
        on_card = 'memory' in logged(tmp_path / name)[0]
        assert on_card == (device.type == 'cuda')
        losses = losses_of(tmp_path / name)
        assert list(losses) == list(range(1, ITERATIONS + 1))
        assert all(map(math.isfinite, losses.values())), name
        # a scaler that starts too high skips the first steps
        share = 1.0 if name == 'mixed' else 0.9
        assert losses[ITERATIONS] < share * losses[1], name
    half = f'epoch_{HALF // 2}.pth'
    again = {
        name: start(
            'train.py',
            path,
            *('--work-dir', tmp_path / f'{name} again'),
            *('--resume', tmp_path / name / half),
            *options,
        )
        for name, options in amp.items()
    }
    test = start(
        'test.py',
        path,
        tmp_path / 'float32' / f'epoch_{ITERATIONS // 2}.pth',
        *('--work-dir', tmp_path / 'tested'),
    )
    for name, run in again.items():
        run.finish()
        expected = losses_of(tmp_path / name)
        got = losses_of(tmp_path / f'{name} again')
        assert list(got) == list(range(HALF + 1, ITERATIONS + 1))
        # on a card some sums of a backward pass come in any order, so that
        # only the loss before it is the same
        compared = [HALF + 1] if device.type == 'cuda' else list(got)
        for number in compared:
            assert got[number] == pytest.approx(expected[number], rel=1e-6)
    test.finish()
    metrics = json.loads((tmp_path / 'tested/metrics.json').read_text())
    validated = logged(tmp_path / 'float32')[-1]
    for key in ('t2v/R1', 'v2t/R1', 'Rsum'):
        assert metrics['metrics'][key] == pytest.approx(validated[key])
