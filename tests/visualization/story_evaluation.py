"""Runners on a small story set, to make pictures of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from eaglenet_mm.datasets.story import write_story_dataset

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


def write_story(folder: Path, **changes: str) -> Path:
    """Write twelve videos a split with two captions each.

    Args:
        folder: To write.
        changes: Other names of video files, by ``video_id``.
    """
    write_story_dataset(folder, seed=0, limit=12, workers=1)
    for split in ('test', 'val'):
        path = folder / f'{split}.json'
        content = json.loads(path.read_text())
        for record in content['data_list']:
            record['video'] = changes.get(record['video_id'], record['video'])
            del record['moments'], record['captions'][2:]
        content['metainfo']['num_captions'] = 2 * len(content['data_list'])
        path.write_text(json.dumps(content))
    return folder


def story_config(
    data: Path, work_dir: Path, method: str = 'eaglenet', **settings: Any
) -> Config:
    """Config of a test or training without loader processes."""
    cfg = Config.fromfile(CONFIGS / f'{method}_story.py')
    for name in ('train', 'val', 'test'):
        loader = cfg[f'{name}_dataloader']
        loader.num_workers = 0
        loader.persistent_workers = False
        dataset = loader.dataset
        dataset.get('dataset', dataset).data_root = str(data)
    cfg.train_dataloader.batch_size = 6
    cfg.train_cfg.max_epochs, cfg.train_cfg.val_interval = 2, 1
    cfg.work_dir = str(work_dir)
    cfg.log_level = 'WARNING'
    cfg.experiment_name = f'{method}-{work_dir.name}-{id(cfg)}'
    cfg.merge_from_dict(settings)
    return cfg


def build_runner(*args: Any, **settings: Any) -> Runner:
    return Runner.from_cfg(story_config(*args, **settings))
