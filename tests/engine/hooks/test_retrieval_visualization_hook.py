from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eaglenet_mm.datasets import read_annotation
from eaglenet_mm.engine.hooks import RetrievalVisualizationHook
from tests.engine.loops import tiny_retrieval
from tests.visualization.story_evaluation import build_runner


def train(
    story: Path,
    folder: Path,
    *backends: str,
    val_dataloader: dict | None = None,
    **options: int,
) -> Path:
    """Train two epochs; return the folder of the backends."""
    runner = build_runner(
        story,
        folder,
        custom_hooks=[
            dict(type='DatasetEpochHook'),
            dict(type='RetrievalVisualizationHook', **options),
        ],
        visualizer=dict(
            type='Visualizer',
            name=f'pictures-{folder.name}-{len(backends)}',
            vis_backends=[dict(type=name) for name in backends],
        ),
        val_dataloader=val_dataloader or {},
    )
    runner.train()
    assert len(runner.val_evaluator.metrics) == 1
    return Path(runner.log_dir) / 'vis_data'


def test_files_of_the_local_backend(story, tmp_path) -> None:
    folder = train(story, tmp_path, 'LocalVisBackend', num_queries=3)
    names = sorted(path.name for path in (folder / 'vis_image').iterdir())
    assert names == [
        'retrieval_queries_1.png',
        'retrieval_queries_2.png',
        'retrieval_ranks_1.png',
        'retrieval_ranks_2.png',
    ]
    path = folder / 'vis_image' / 'retrieval_queries_2.png'
    picture = np.asarray(Image.open(path).convert('RGB')).astype(int)
    red = (abs(picture - [200, 50, 43]).sum(-1) < 30).sum()
    assert red > 3 * 4 * 4 * 200  # borders of the wrong ones


@pytest.mark.nightly
def test_tensorboard_shows_them(story, tmp_path) -> None:
    accumulator = pytest.importorskip(
        'tensorboard.backend.event_processing.event_accumulator'
    )
    folder = train(story, tmp_path, 'TensorboardVisBackend')
    events = accumulator.EventAccumulator(str(folder)).Reload()
    assert set(events.Tags()['images']) == {
        'retrieval_queries',
        'retrieval_ranks',
    }
    images = events.Images('retrieval_queries')
    assert [image.step for image in images] == [1, 2]
    assert images[0].width > 1000


def test_interval(story, tmp_path) -> None:
    folder = train(story, tmp_path, 'LocalVisBackend', interval=2)
    assert sorted(path.name for path in (folder / 'vis_image').iterdir()) == [
        'retrieval_queries_2.png',
        'retrieval_ranks_2.png',
    ]


@pytest.mark.nightly
def test_a_lost_video_does_not_stop_training(own_story, tmp_path) -> None:
    lost = read_annotation(own_story / 'val.json')[1][0]['video']
    (own_story / 'videos' / lost).unlink()
    settings = dict(val_dataloader=dict(dataset=dict(on_missing='skip')))
    folder = train(own_story, tmp_path / 'work', 'LocalVisBackend', **settings)
    assert len(list((folder / 'vis_image').iterdir())) == 4


@pytest.mark.parametrize('name', ['interval', 'num_queries', 'num_videos'])
def test_options_must_be_positive(name) -> None:
    with pytest.raises(ValueError, match=f"'{name}' must be at least 1"):
        RetrievalVisualizationHook(**{name: 0})


def test_foreign_sets_and_loops_are_refused(tmp_path) -> None:
    hooks = [dict(type='RetrievalVisualizationHook')]
    runner = tiny_retrieval.build_runner(str(tmp_path), custom_hooks=hooks)
    with pytest.raises(TypeError, match="TinyVideos has no 'get_data_info'"):
        runner.val()
    runner = tiny_retrieval.build_runner(str(tmp_path), custom_hooks=hooks)
    runner._val_loop = dict(type='ValLoop')
    with pytest.raises(TypeError, match=r"RetrievalValLoop'.*is ValLoop"):
        runner.val()
