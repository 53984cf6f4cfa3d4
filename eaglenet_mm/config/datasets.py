"""Datasets from the command line, for tools that read videos."""

from __future__ import annotations

import argparse
from typing import Any

from mmengine.config import DictAction
from mmengine.dataset import BaseDataset

from eaglenet_mm.config.knobs import KNOBS, SPLITS
from eaglenet_mm.config.reading import open_config
from eaglenet_mm.datasets import TextVideoDataset
from eaglenet_mm.datasets.fetching import as_source
from eaglenet_mm.datasets.shared_records import inner_datasets
from eaglenet_mm.registry import DATASETS, SCOPE

_PIPELINE = (
    dict(type='OpenVideo'),
    dict(type='SampleFrames', num_frames=12, fps=1, mode='release'),
    dict(type='DecodeFrames'),
)


def add_dataset_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of tools that read the videos of a config."""
    add = parser.add_argument
    add('config', help='config file, or the name of one')
    add(
        '--split',
        nargs='+',
        choices=SPLITS,
        help='data sets of the config to read; default: all it has',
    )
    add(
        '--workers',
        type=int,
        default=2,
        help='processes that read; default: %(default)s',
    )
    add(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config: key=value; '
        f'{", ".join(KNOBS)} are set wherever they apply',
    )


def load_datasets(
    config: str,
    *,
    splits: list[str] | None = None,
    options: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Build the datasets of a config without its model."""
    cfg = open_config(config, options)
    found: dict[str, Any] = {}
    known: set[tuple] = set()
    for split in splits or SPLITS:
        loader = cfg.get(f'{split}_dataloader')
        if loader is None:
            if splits:
                raise KeyError(
                    f"{config} has no '{split}_dataloader', so it has no "
                    f"split '{split}'. Leave it out of --split."
                )
            continue
        outer = DATASETS.build({'_scope_': SCOPE, **loader['dataset']})
        for place, dataset in enumerate(inner_datasets(outer)):
            _check_dataset(dataset, f'{config}: the data set of {split}')
            key = (
                dataset.ann_file,
                *sorted((dataset.data_prefix or {}).items()),
                *map(repr, dataset.pipeline.transforms),
            )
            if key not in known:
                known.add(key)
                found[f'{split}.{place}' if place else split] = dataset
    if not found:
        hint = (
            ' It looks like an annotation file: name the folder of its videos '
            'with --videos.'
            if config.endswith('.json')
            else ''
        )
        raise ValueError(
            f'{config} has no train_dataloader, val_dataloader or '
            f'test_dataloader, so there are no videos to read.{hint}'
        )
    return found


def _check_dataset(dataset: Any, where: str) -> None:
    """Refuse a dataset whose videos the tools cannot read."""
    if not isinstance(dataset, BaseDataset) or not dataset.ann_file:
        raise TypeError(
            f'{where} holds a {type(dataset).__name__}, but this tool reads '
            "TextVideoDataset or another BaseDataset of MMEngine's with an "
            "'ann_file'. Use one, or leave the split out."
        )
    as_source(dataset, where).full_init()


def load_annotation(annotation: str, videos: str) -> TextVideoDataset:
    """Build a dataset from an annotation file, without a config."""
    return TextVideoDataset(
        annotation,
        data_prefix=dict(video=videos),
        pipeline=[dict(transform) for transform in _PIPELINE],
    )
