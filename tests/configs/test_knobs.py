"""Settings of one name reach every place of every shipped config."""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from eaglenet_mm.config.knobs import KNOBS, Request
from eaglenet_mm.config.reading import open_config
from eaglenet_mm.launching import add_config_arguments
from eaglenet_mm.registry import MODELS, TRANSFORMS
from tests.some_cases import mostly_nightly

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
#: Each of them inherits a full name and says nothing itself.
NAMES = sorted(path.stem for path in CONFIGS.glob('*.py'))
STORIES = [name for name in NAMES if name.endswith('_story')]
#: Those whose encoder sees a clip of a fixed length, in frames.
CLIPS = {'clip4clip_videomae_msrvtt': 16, 'eaglenet_swin3d_msrvtt': 12}
#: Those whose encoder is not made for one size of the frames.
ANY_SIZE = {'eaglenet_resnet50_msrvtt', 'eaglenet_swin3d_msrvtt', *STORIES}
WHOLE_SENTENCE = ('x_pool_siglip_msrvtt', 'mean_pooling_siglip2_msrvtt')
_TELLING = ['eaglenet_story', 'eaglenet_msrvtt', *WHOLE_SENTENCE[:1], *CLIPS]
#: The others are alike.
SOME = mostly_nightly(
    [*_TELLING, *(name for name in NAMES if name not in _TELLING)],
    len(_TELLING),
)


@cache
def plain(name: str) -> Config:
    return open_config(name)


def settings(name: str, knob: str, value: Any) -> dict[str, Any]:
    """What a knob would change in a config."""
    return Request(plain(name), knob, value).settings()


def datasets(cfg: Config) -> list[Any]:
    found = []
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        while 'dataset' in dataset:
            dataset = dataset.dataset
        found.append(dataset)
    return found


def transforms(cfg: Config, kind: str) -> list[Any]:
    """The transforms of a kind, of all data sets and the variable."""
    return [
        part
        for pipeline in (cfg.pipeline, *(d.pipeline for d in datasets(cfg)))
        for transform in pipeline
        for part in (transform, transform.get('resize', {}))
        if part.get('type') == kind
    ]


@pytest.mark.parametrize('name', SOME)
def test_without_options_nothing_changes(name: str) -> None:
    path = CONFIGS / f'{name}.py'
    assert plain(name).to_dict() == Config.fromfile(path).to_dict()


@pytest.mark.parametrize('name', SOME)
def test_every_knob_of_every_config(name: str) -> None:
    frames, words, size = CLIPS.get(name, 3), 20, 64
    if name in CLIPS:
        with pytest.raises(ValueError, match=f'clips of {frames} frames'):
            settings(name, 'num_frames', 3)
    if name in WHOLE_SENTENCE:
        words = 64
        with pytest.raises(ValueError, match='all of its 64 places'):
            settings(name, 'max_words', 20)
    elif name not in STORIES:
        with pytest.raises(ValueError, match='has 77 rows'):
            settings(name, 'max_words', 78)
    if name not in ANY_SIZE:
        size = 224
        with pytest.raises(ValueError, match='are made for 224 pixels'):
            settings(name, 'image_size', 64)
    files = dict(train='a.json', val='b.json', test='c.json')
    cfg = open_config(
        name,
        {
            **{f'ann_file.{split}': file for split, file in files.items()},
            **dict(data_root='x/y', batch_size=3, num_frames=frames),
            **dict(max_words=words, image_size=size),
        },
    )
    assert [d.data_root for d in datasets(cfg)] == ['x/y'] * 3
    assert [d.ann_file for d in datasets(cfg)] == list(files.values())
    for split in files:
        assert cfg[f'{split}_dataloader'].batch_size == 3
    sampled = [t.num_frames for t in transforms(cfg, 'SampleFrames')]
    assert sampled == [frames] * 4
    tokenized = [t.max_words for t in transforms(cfg, 'TokenizeCaptions')]
    assert tokenized == [words] * 4
    cut = [t.size for t in transforms(cfg, 'ResizeCenterCrop')]
    assert cut == [size] * 4
    model = cfg.model
    assert model.data_preprocessor.num_frames == frames
    if name not in CLIPS:  # whose head sees fewer steps
        assert model.head.get('num_frames', frames) == frames
    if name not in WHOLE_SENTENCE:
        assert model.text_encoder.max_words == words
    assert model.head.get('max_words', words) == words
    encoder = model.video_encoder
    if name in ANY_SIZE:
        vision = encoder.arch.vision_cfg if 'arch' in encoder else encoder
        assert vision.image_size == size
    else:
        assert 'image_size' not in encoder or encoder.image_size == size
    # what is saved says what was used
    assert cfg.ann_file == files
    said = cfg.data_root, cfg.batch_size, cfg.num_frames, cfg.max_words
    assert (*said, cfg.image_size) == ('x/y', 3, frames, words, size)


@pytest.mark.parametrize('name', SOME)
def test_a_knob_changes_nothing_else(name: str) -> None:
    assert list(settings(name, 'ann_file', {'test': 'c.json'})) == [
        'test_dataloader.dataset.dataset.ann_file'
        if 'dataset' in plain(name).test_dataloader.dataset
        else 'test_dataloader.dataset.ann_file'
    ]
    as_it_is = plain(name).num_frames
    assert set(settings(name, 'num_frames', as_it_is).values()) == {as_it_is}


@pytest.mark.parametrize('name', mostly_nightly(STORIES, kept=2))
def test_it_builds_with_all_of_them(name: str) -> None:
    cfg = open_config(
        name, {'num_frames': 3, 'max_words': 30, 'image_size': 40}
    )
    for transform in cfg.test_dataloader.dataset.pipeline:
        TRANSFORMS.build(transform)
    model = MODELS.build(cfg.model)
    ids = torch.randint(1, 70, (2, 30))
    ids[:, -1] = 73
    inputs = dict(
        pixels=torch.randn(2, 3, 3, 40, 40),
        frame_mask=torch.ones(2, 3, dtype=torch.bool),
        token_ids=ids,
        caption_counts=torch.ones(2, dtype=torch.int64),
    )
    loss, _ = model.parse_losses(model(inputs, mode='loss'))
    assert loss.isfinite()


def test_patches_of_a_head_follow_the_size() -> None:
    cfg = open_config('ts2_net_story', {'image_size': 64})
    assert cfg.model.head.num_patches == 64
    with pytest.raises(ValueError, match='multiple of 8'):
        open_config('ts2_net_story', {'image_size': 60})


@pytest.mark.parametrize('name', ['eaglenet_msrvtt', 'ts2_net_msrvtt'])
def test_positions_that_may_be_resized(name: str) -> None:
    cfg = plain(name).copy()
    model = cfg.model.to_dict()
    for side in ('text_encoder', 'video_encoder'):
        model[side]['resize_positions'] = True
    cfg.model = model
    found = Request(cfg, 'image_size', 320).settings()
    assert found['model.video_encoder.image_size'] == 320
    if name.startswith('ts2'):  # patches of 32 x 32 pixels
        assert found['model.head.num_patches'] == 100
    found = Request(cfg, 'max_words', 99).settings()
    assert found['model.text_encoder.max_words'] == 99
    # and back to the size of the arch, once another one was set
    model['video_encoder'].update(resize_positions=False, image_size=320)
    cfg.model = model
    found = Request(cfg, 'image_size', 224).settings()
    assert found['model.video_encoder.image_size'] == 224
    with pytest.raises(ValueError, match='resize_positions=True'):
        Request(cfg, 'image_size', 320).settings()


def test_a_setting_by_its_full_name_wins() -> None:
    cfg = open_config(
        'eaglenet_story',
        {
            'test_dataloader.dataset.data_root': 'own',
            'data_root': 'all',
            'batch_size': 4,
            'val_dataloader.batch_size': 7,
        },
    )
    assert [d.data_root for d in datasets(cfg)] == ['all', 'all', 'own']
    sizes = [cfg[f'{s}_dataloader'].batch_size for s in ('train', 'val')]
    assert sizes == [4, 7]


@pytest.mark.parametrize(
    ('option', 'value', 'message'),
    [
        ('num_frames', 0, 'whole number'),
        ('num_frames', '3 frames', 'whole number'),
        ('batch_size', 2.5, 'whole number'),
        ('max_words', True, 'whole number'),
        ('data_root', 3, 'must be a folder'),
        ('ann_file', 'a.json', r'set ann_file\.train'),
        ('ann_file.all', 'a.json', 'for each of train, val, test'),
        ('data_root.train', 'x', 'data_root is a single value'),
    ],
)
def test_other_values(option: str, value: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        open_config('eaglenet_story', {option: value})


def wrapped(**roots: str) -> Config:
    """Test sets joined and repeated, one in another folder."""
    parts = [
        dict(
            type='RepeatDataset',
            times=2,
            dataset=dict(
                type='RandomCaption',
                dataset=dict(
                    type='TextVideoDataset',
                    data_root=root,
                    ann_file=f'{name}.json',
                    pipeline=[dict(type='SampleFrames', num_frames=6)],
                ),
            ),
        )
        for name, root in roots.items()
    ]
    loader = dict(dataset=dict(type='ConcatDataset', datasets=parts))
    return Config(dict(test_dataloader=loader))


def test_nested_wrappers() -> None:
    cfg = wrapped(a='one', b='one/')
    settings = Request(cfg, 'data_root', 'new').settings()
    prefix = 'test_dataloader.dataset.datasets'
    expected = {
        f'{prefix}.{i}.dataset.dataset.data_root': 'new' for i in (0, 1)
    }
    assert settings == expected
    frames = Request(cfg, 'num_frames', 3).settings()
    assert list(frames.values()) == [3, 3]
    cfg = wrapped(a='one', b='two')
    with pytest.raises(ValueError, match=r"datasets\.1.*is 'two'"):
        Request(cfg, 'data_root', 'new').settings()
    # those that the variable was put into are known
    of_variable = Request(cfg, 'data_root', 'new', declared='two').settings()
    assert list(of_variable) == [f'{prefix}.1.dataset.dataset.data_root']
    with pytest.raises(ValueError, match=r"datasets\.0.*is 'a\.json'"):
        Request(cfg, 'ann_file', {'test': 'c.json'}).settings()


@pytest.mark.parametrize('name', sorted(KNOBS))
def test_a_config_without_such_settings(name: str) -> None:
    values = dict(ann_file={'test': 'x'}, data_root='x', frame_cache='x')
    value = values.get(name, 8)
    with pytest.raises(ValueError, match=f'{name}=.* cannot be set'):
        Request(Config(dict(model=dict())), name, value).settings()


def test_workers_are_set_for_all_loaders() -> None:
    cfg = open_config('eaglenet_msrvtt', {'num_workers': 0})
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        assert loader.num_workers == 0
        assert not loader.get('persistent_workers')
    with pytest.raises(ValueError, match='got -1'):
        open_config('eaglenet_msrvtt', {'num_workers': -1})


def test_a_frame_cache_is_set_for_all_data_sets() -> None:
    cfg = open_config('eaglenet_didemo', {'frame_cache': 'cache'})
    assert [d.frame_cache for d in datasets(cfg)] == ['cache'] * 3
    with pytest.raises(TypeError, match='got 3'):
        open_config('eaglenet_story', {'frame_cache': 3})


def test_exchanged_backbones() -> None:
    """On the command line: without a rest of the one before."""
    place = 'model.video_encoder.backbone'
    options = ['_delete_=True', 'type=mmaction.ResNet', 'depth=18']
    parser = argparse.ArgumentParser()
    add_config_arguments(parser)
    given = ['--cfg-options', *(f'{place}.{option}' for option in options)]
    cfg = open_config(
        'eaglenet_swin3d_msrvtt', parser.parse_args(given).cfg_options
    )
    expected = dict(type='mmaction.ResNet', depth=18)
    assert cfg.model.video_encoder.backbone == expected


def test_frames_that_differ_are_named() -> None:
    cfg = open_config('eaglenet_msrvtt')
    cfg.model.data_preprocessor.num_frames = 10
    with pytest.raises(ValueError, match=r'model\.head\.num_frames is 12'):
        Request(cfg, 'num_frames', 3).settings()


def test_frames_of_a_backbone_that_shifts_between_them() -> None:
    cfg = wrapped(a='one')
    encoder = dict(num_input_frames=6, backbone=dict(num_segments=6))
    cfg.model = dict(video_encoder=dict(layout='frames', **encoder))
    settings = Request(cfg, 'num_frames', 3).settings()
    assert settings['model.video_encoder.num_input_frames'] == 3
    assert settings['model.video_encoder.backbone.num_segments'] == 3
