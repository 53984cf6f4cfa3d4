"""The example in the docstring of each public class runs."""

from __future__ import annotations

import doctest
import importlib
import inspect

import pytest
import torch
from mmengine.logging import MMLogger

from eaglenet_mm.datasets import TextVideoDataset, write_annotation
from eaglenet_mm.structures import TextFeatures, VideoFeatures

ROOMS = [
    'eaglenet_mm.apis',
    'eaglenet_mm.datasets',
    'eaglenet_mm.engine',
    'eaglenet_mm.engine.hooks',
    'eaglenet_mm.evaluation.functional',
    'eaglenet_mm.evaluation.metrics',
    'eaglenet_mm.models.encoders',
    'eaglenet_mm.models.heads',
    'eaglenet_mm.models.layers',
    'eaglenet_mm.models.losses',
    'eaglenet_mm.models.retrievers',
    'eaglenet_mm.service',
]


def public_classes() -> list[type]:
    found = {}
    for room in ROOMS:
        module = importlib.import_module(room)
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) and not issubclass(value, Exception):
                found[name] = value
    return list(found.values())


def two_videos(path) -> TextVideoDataset:
    metainfo = dict(dataset='two', split='train', protocol='all')
    captions = [['a dog runs', 'a brown dog'], ['a cat sleeps']]
    records = [
        dict(video_id=f'v{n}', video=f'v{n}.mp4', captions=own)
        for n, own in enumerate(captions)
    ]
    write_annotation(path, metainfo, records)
    return TextVideoDataset(str(path))


@pytest.mark.parametrize('cls', public_classes(), ids=lambda x: x.__name__)
def test_the_example_runs(cls, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    MMLogger.get_current_instance().setLevel('ERROR')  # writes to stdout
    assert '>>>' in (cls.__doc__ or ''), f'{cls.__name__} shows no example'
    text = TextFeatures(torch.randn(3, 32))
    video = VideoFeatures(
        torch.randn(4, 8, 32), torch.ones(4, 8, dtype=torch.bool)
    )
    names = {**vars(inspect.getmodule(cls)), 'text': text, 'video': video}
    names['dataset'] = two_videos(tmp_path / 'videos.json')
    runner = doctest.DocTestRunner(
        optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    report: list[str] = []
    for test in doctest.DocTestFinder(recurse=False).find(
        cls, cls.__name__, globs=names
    ):
        runner.run(test, out=report.append)
    assert runner.failures == 0, ''.join(report)
    assert runner.tries > 0
