"""Every config loads, is complete, and builds with tiny encoders."""

from __future__ import annotations

import ast
import math
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS

from eaglenet_mm.datasets.story import story_vocabulary
from eaglenet_mm.registry import LOOPS, MODELS, TRANSFORMS
from tests.models.tiny import (
    TEXT_ENCODER,
    VIDEO_ENCODER,
    WIDTH,
    tiny_inputs,
)

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
SHORT = sorted(CONFIGS.glob('*.py'))
FULL = sorted(
    path
    for path in CONFIGS.glob('*/*.py')
    if not path.parent.name.startswith('_')
    # with encoders of their own, see test_backbone_mixes.py
    and path.parent.name != 'backbone_mixes'
)
#: Of an encoder's settings, those that make it fit the head and the recipe.
KEPT = ('output_tokens', 'output_patches', 'frozen')
SIZES = {'embed_dim': WIDTH, 'num_patches': 9}
#: Configs on the story set that share all but the head.
STORIES = [
    *('clip4clip_seqlstm', 'clip4clip_seqtransf', 'clip4clip_tighttransf'),
    *('mean_pooling', 'x_pool', 't_mass', 'text_proxy', 'ts2_net', 'wti'),
]
#: The other methods on MSR-VTT: optimiser, its rate, factors of the rates of
#: CLIP and of the scale, contrastive batch, processes, epochs, words, and
#: what of CLIP is frozen.
METHODS = {
    **{
        f'clip4clip_{name}': (
            *('BertAdam', 1e-4, 1e-3, 1e-3, 128, 4, 5, 32, 'release'),
        )
        for name in ('meanp', 'seqlstm', 'seqtransf')
    },
    # its scale is no parameter that learns
    'clip4clip_tighttransf': (
        *('BertAdam', 1e-4, 1e-3, 1.0, 128, 4, 5, 32, 'release'),
    ),
    'ts2_net': ('BertAdam', 1e-4, 1e-3, 1e-3, 128, 8, 5, 32, 'release'),
    'wti': ('BertAdam', 1e-4, 1e-3, 1e-3, 128, 4, 5, 32, None),
    'x_pool': ('AdamW', 3e-5, 1 / 30, 1 / 30, 32, 1, 5, 32, None),
    't_mass': ('AdamW', 3e-5, 1 / 30, 1 / 30, 32, 1, 5, 32, None),
    'text_proxy': ('AdamW', 2e-6, 0.5, 0.5, 128, 2, 120, 50, None),
}
#: The recipe table: words, frames, frame embedding, energy, weight of the
#: support energy, accumulation, image patch, contrastive batch.
RECIPES = {
    'eaglenet_msrvtt_vit-b32': (32, 12, False, 'MLPEnergy', 0, 1, 32, 64),
    'eaglenet_msrvtt': (32, 12, True, 'BilinearEnergy', 1, 1, 16, 64),
    'eaglenet_didemo': (64, 64, True, 'MLPEnergy', 0, 4, 16, 16),
    'eaglenet_msvd': (32, 12, False, 'MLPEnergy', 1, 1, 16, 64),
    'eaglenet_vatex': (32, 12, True, 'MLPEnergy', 1, 1, 16, 64),
}


def load(path: Path) -> Config:
    return Config.fromfile(path)


@pytest.mark.parametrize('path', SHORT, ids=lambda path: path.stem)
def test_short_names_only_inherit(path: Path) -> None:
    (statement,) = ast.parse(path.read_text()).body
    assert [target.id for target in statement.targets] == ['_base_']
    assert load(path).model.type == 'TextVideoRetriever'


@pytest.mark.parametrize('path', FULL, ids=lambda path: path.stem)
def test_config_takes_a_step_with_tiny_encoders(path: Path) -> None:
    cfg = load(path)
    model = cfg.model.to_dict()
    _set_sizes(model['head'])
    for side, tiny in (
        ('text_encoder', TEXT_ENCODER),
        ('video_encoder', VIDEO_ENCODER),
    ):
        own = {key: model[side][key] for key in KEPT if key in model[side]}
        model[side] = {**tiny, **own}
    with warnings.catch_warnings():
        # one config is there to name the published evaluation of T-MASS
        warnings.filterwarnings('ignore', message='.*ground-truth caption')
        retriever = MODELS.build(model).train()
    wrapper = build_optim_wrapper(retriever, cfg.optim_wrapper)
    before = {
        name: parameter.detach().clone()
        for name, parameter in retriever.named_parameters()
    }
    inputs = tiny_inputs(3)
    mask = torch.ones(3, cfg.num_frames, dtype=torch.bool)
    mask[1, -1] = False
    inputs['frame_mask'] = mask
    inputs['pixels'] = torch.randn(3, cfg.num_frames, 3, 12, 12)
    loss, _ = retriever.parse_losses(retriever(inputs, mode='loss'))
    loss.backward()
    wrapper.step()
    for name, parameter in retriever.named_parameters():
        assert parameter.isfinite().all(), name
        if parameter.requires_grad:
            assert parameter.grad is not None, f'{name} is not used'
    assert any(
        not torch.equal(parameter, before[name])
        for name, parameter in retriever.named_parameters()
    )
    for transform in cfg.pipeline:
        TRANSFORMS.build(transform)
    for name in ('val_cfg', 'test_cfg'):
        assert LOOPS.get(cfg[name].type) is not None


def _set_sizes(part: dict[str, Any]) -> None:
    """Give a head, and its parts, the sizes of the tiny encoders."""
    for key, value in part.items():
        if isinstance(value, dict):
            _set_sizes(value)
        elif key in SIZES:
            part[key] = SIZES[key]


@pytest.mark.parametrize('name', RECIPES)
def test_recipe(name: str) -> None:
    cfg = load(CONFIGS / f'{name}.py')
    words, frames, embedding, energy, support, steps, patch, batch = RECIPES[
        name
    ]
    head, data = cfg.model.head, cfg.model.data_preprocessor
    assert cfg.model.text_encoder.max_words == words
    assert _transform(cfg, 'TokenizeCaptions')['max_words'] == words
    for holder in (head, data, _transform(cfg, 'SampleFrames')):
        assert holder['num_frames'] == frames
    assert head.frame_embedding is embedding
    assert not head.get('use_frame_mask', False)
    assert head.loss_energy.energy.type == energy
    assert head.loss_energy.energy.reduction == 'mean'
    assert head.energy_support_weight == support
    assert head.support_weight == 0.8
    assert head.num_candidates == 20
    assert head.graph == dict(num_layers=2, num_heads=4, dropout=0.5)
    assert cfg.optim_wrapper.get('accumulative_counts', 1) == steps
    for side in ('text_encoder', 'video_encoder'):
        assert cfg.model[side].arch == f'ViT-B-{patch}-quickgelu'
        assert cfg.model[side].frozen == 'release'
    assert list(cfg.model.video_encoder.shift_layers) == [10, 11]
    # two processes; the batch named is of one loss
    assert 2 * cfg.train_dataloader.batch_size == batch
    assert cfg.auto_scale_lr.base_batch_size == batch
    assert cfg.train_cfg.max_epochs == 5
    optimizer = cfg.optim_wrapper.optimizer
    assert optimizer == dict(
        type='BertAdam',
        lr=1e-4,
        betas=(0.9, 0.98),
        eps=1e-6,
        weight_decay=0.2,
        max_grad_norm=1.0,
    )
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=1.0)
    assert cfg.param_scheduler.warmup_ratio == 0.1


@pytest.mark.parametrize('name', METHODS)
def test_recipe_of_other_methods(name: str) -> None:
    cfg = load(CONFIGS / f'{name}_msrvtt.py')
    kind, rate, clip, scale, batch, processes, epochs, words, frozen = METHODS[
        name
    ]
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr) == (kind, rate)
    assert optimizer.weight_decay == 0.2
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=1.0)
    rules = cfg.optim_wrapper.paramwise_cfg.rules
    for parameter, expected in (
        ('text_encoder.tower.proj', clip),
        ('video_encoder.tower.proj', clip),
        ('head.loss_match.log_scale', scale),
        ('head.pooling.weight', 1.0),
    ):
        factors = [
            rule.get('lr_mult', 1.0)
            for rule in rules
            if re.search(rule.pattern, parameter)
        ]
        assert math.prod(factors) == expected
    assert processes * cfg.train_dataloader.batch_size == batch
    assert cfg.auto_scale_lr.base_batch_size == batch
    assert f'_{processes}xb{batch // processes}-' in _full_name(name)
    assert f'-{epochs}e_' in _full_name(name)
    assert cfg.train_cfg.max_epochs == epochs
    for holder in ('train', 'val', 'test'):
        dataset = cfg[f'{holder}_dataloader'].dataset
        dataset = dataset.get('dataset', dataset)
        assert dataset.pipeline == cfg.pipeline
    assert _transform(cfg, 'TokenizeCaptions')['max_words'] == words
    assert _transform(cfg, 'SampleFrames')['num_frames'] == 12
    assert cfg.model.data_preprocessor.num_frames == 12
    assert cfg.model.text_encoder.max_words == words
    shift = [10, 11] if name == 'ts2_net' else []
    assert list(cfg.model.video_encoder.shift_layers) == shift
    for side in ('text_encoder', 'video_encoder'):
        assert cfg.model[side].arch == 'ViT-B-32-quickgelu'
        assert cfg.model[side].pretrained == 'openai'
        assert cfg.model[side].get('frozen') == frozen


def _full_name(name: str) -> str:
    """Read which full name the short one of a method inherits."""
    return (CONFIGS / f'{name}_msrvtt.py').read_text()


@pytest.mark.parametrize(
    ('name', 'warm_up', 'epochs'),
    [('x_pool', 0.1, 5), ('text_proxy', 0.01, 120)],
)
def test_adamw_recipes_begin_and_end_at_0(
    name: str, warm_up: float, epochs: int
) -> None:
    cfg = load(CONFIGS / f'{name}_msrvtt.py')
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    length = 50
    schedulers = []
    for entry in cfg.param_scheduler:
        # as the Runner does
        options = {'end': epochs, **entry}
        options.pop('convert_to_iter_based')
        kind: Any = PARAM_SCHEDULERS.get(options.pop('type'))
        schedulers.append(
            kind.build_iter_from_epoch(
                optimizer=optimizer, epoch_length=length, **options
            )
        )
    rates = []
    for _ in range(length * epochs):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    peak = round(warm_up * length * epochs)
    assert rates[0] < 1e-5
    assert rates[peak // 2] == pytest.approx(0.5, abs=0.05)
    assert max(rates) == pytest.approx(rates[peak]) == pytest.approx(1.0)
    middle = (peak + len(rates)) // 2
    assert rates[middle] == pytest.approx(0.5, abs=0.01)
    assert rates[-1] < 1e-3


def test_a_head_is_exchanged_by_options() -> None:
    """The command of docs/methods.md."""
    cfg = load(CONFIGS / 'mean_pooling_story.py')
    cfg.merge_from_dict(
        {
            'model.head.type': 'XPoolHead',
            'model.head.embed_dim': 96,
            'model.head.dropout': 0.0,
        }
    )
    expected = load(CONFIGS / 'x_pool_story.py')
    assert cfg.model.to_dict() == expected.model.to_dict()
    MODELS.build(cfg.model)


def test_published_evaluation_differs_in_the_evaluation_alone() -> None:
    one = load(CONFIGS / 't_mass_msrvtt.py').to_dict()
    other = load(CONFIGS / 't_mass_msrvtt_published-evaluation.py').to_dict()
    assert one['model']['head'].pop('evaluation') == 'pairwise'
    assert other['model']['head'].pop('evaluation') == 'published'
    assert one == other


def _transform(cfg: Config, kind: str) -> dict[str, Any]:
    (found,) = [t for t in cfg.pipeline if t['type'] == kind]
    return found


def test_story_vocabulary_is_that_of_the_captions() -> None:
    cfg = load(CONFIGS / 'eaglenet_story.py')
    assert list(cfg.vocabulary) == story_vocabulary()
    size = cfg.model.text_encoder.arch.text_cfg.vocab_size
    assert size == len(cfg.vocabulary) + 4


@pytest.mark.parametrize('name', STORIES)
def test_story_configs_differ_in_the_head_alone(name: str) -> None:
    one = load(CONFIGS / 'eaglenet_story.py').to_dict()
    other = load(CONFIGS / f'{name}_story.py').to_dict()
    for config in (one, other):
        config['model'].pop('head')
        # returned beside the same features, for heads that need them
        config['model']['text_encoder'].pop('output_tokens', None)
        config['model']['video_encoder'].pop('output_patches', None)
    assert one == other


@pytest.mark.parametrize(
    'folder', sorted({path.parent for path in FULL}), ids=lambda p: p.name
)
def test_metafile_names_every_config(folder: Path) -> None:
    meta = yaml.safe_load((folder / 'metafile.yml').read_text())
    named = {model['Config'] for model in meta['Models']}
    present = {
        f'configs/{folder.name}/{path.name}' for path in folder.glob('*.py')
    }
    assert named == present
    for model in meta['Models']:
        assert model['Name'] == Path(model['Config']).stem
        short = CONFIGS / f'{model["Alias"]}.py'
        assert f'{folder.name}/{model["Name"]}.py' in short.read_text()
        # what it says, and what the name says, is what is trained
        cfg = load(short)
        batch, epochs = (
            cfg.train_dataloader.batch_size,
            cfg.train_cfg.max_epochs,
        )
        assert model['Metadata']['Batch Size'] == batch
        assert model['Metadata']['Epochs'] == epochs
        assert f'xb{batch}-u{cfg.num_frames}-{epochs}e_' in model['Name']


@pytest.mark.parametrize('name', ['msrvtt', 'msvd', 'vatex', 'didemo'])
def test_every_split_is_of_its_data_set(name: str) -> None:
    cfg = load(CONFIGS / f'eaglenet_{name}.py')
    files = {}
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        while 'dataset' in dataset:
            dataset = dataset.dataset
        assert dataset.data_root == f'data/{name}/'
        assert bool(dataset.get('test_mode')) == (split != 'train')
        files[split] = dataset.ann_file
    if name == 'msrvtt':  # has no validation list
        assert files == dict(
            train='train_9k.json', val='test_1k-a.json', test='test_1k-a.json'
        )
    else:
        assert files == {split: f'{split}.json' for split in files}
