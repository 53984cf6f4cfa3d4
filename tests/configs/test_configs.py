"""Every config loads, is complete, and builds with tiny encoders."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml
from mmengine.config import Config

from eaglenet_mm.datasets.toy_captions import toy_vocabulary
from eaglenet_mm.registry import LOOPS, MODELS, TRANSFORMS
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from tests.models.tiny import TEXT_ENCODER, VIDEO_ENCODER, random_features

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
SHORT = sorted(CONFIGS.glob('*.py'))
FULL = sorted(
    path
    for path in CONFIGS.glob('*/*.py')
    if not path.parent.name.startswith('_')
)
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
def test_config_builds_with_tiny_encoders(path: Path) -> None:
    cfg = load(path)
    model = cfg.model.to_dict()
    embed_dim = 16
    if 'embed_dim' in model['head']:
        model['head']['embed_dim'] = embed_dim
    model['text_encoder'] = TEXT_ENCODER
    model['video_encoder'] = VIDEO_ENCODER
    retriever = MODELS.build(model)
    frames = cfg.num_frames
    text, video = random_features(3, 3, frames=frames)
    losses = (
        retriever.double()
        .train()
        .head.loss(
            TextFeatures(text.embeds),
            VideoFeatures(video.frames, video.frame_mask),
        )
    )
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    for transform in cfg.pipeline:
        TRANSFORMS.build(transform)
    for name in ('val_cfg', 'test_cfg'):
        assert LOOPS.get(cfg[name].type) is not None


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


def _transform(cfg: Config, kind: str) -> dict[str, Any]:
    (found,) = [t for t in cfg.pipeline if t['type'] == kind]
    return found


def test_toy_vocabulary_is_that_of_the_captions() -> None:
    cfg = load(CONFIGS / 'eaglenet_toy.py')
    assert list(cfg.vocabulary) == toy_vocabulary()
    size = cfg.model.text_encoder.arch.text_cfg.vocab_size
    assert size == len(cfg.vocabulary) + 4


def test_toy_configs_differ_in_the_head_alone() -> None:
    one = load(CONFIGS / 'eaglenet_toy.py').to_dict()
    other = load(CONFIGS / 'mean_pooling_toy.py').to_dict()
    one['model'].pop('head')
    other['model'].pop('head')
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
