"""Mixes of heads and backbones, with the backbones made small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from eaglenet_mm.models import TextVideoRetriever
from eaglenet_mm.registry import MODELS, TRANSFORMS
from tests.some_cases import mostly_nightly

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
FOLDER = CONFIGS / 'backbone_mixes'
MIXES = sorted(FOLDER.glob('*.py'))
WIDTH, WORDS, SIDE = 16, 8, 32
TEXT = dict(
    type='CLIPTextEncoder',
    arch=dict(
        embed_dim=WIDTH,
        quick_gelu=True,
        text_cfg=dict(
            context_length=WORDS, vocab_size=20, width=16, heads=2, layers=1
        ),
    ),
    max_words=WORDS,
)
#: What makes the backbones small, by their type.
SMALL: dict[str, dict[str, Any]] = {
    'mmaction.ResNet': dict(depth=18, pretrained=None),
    'mmaction.SwinTransformer3D': dict(
        arch=dict(embed_dims=12, depths=[1, 1], num_heads=[1, 2]),
        out_indices=(1,),
        pretrained=None,
        pretrained2d=False,
        window_size=(2, 4, 4),
    ),
    'mmaction.VisionTransformer': dict(
        img_size=SIDE, embed_dims=16, depth=1, num_heads=2, init_cfg=None
    ),
}


def small_model(cfg: Config) -> dict[str, Any]:
    """The model of a config, with small encoders of the same kinds."""
    model = cfg.model.to_dict()
    encoder = model['video_encoder']
    backbone = encoder['backbone']
    if backbone['type'].startswith('open_clip'):
        encoder['backbone'] = dict(
            type='open_clip',
            arch=dict(
                embed_dim=WIDTH,
                vision_cfg=dict(
                    layers=1, width=16, head_width=8, patch_size=8,
                    image_size=SIDE,
                ),
            ),
        )  # fmt: skip
    else:
        backbone.update(SMALL[backbone['type']])
        encoder.update(embed_dim=WIDTH, image_size=SIDE)
    model['text_encoder'] = TEXT
    if 'embed_dim' in model['head']:
        model['head']['embed_dim'] = WIDTH
    return model


@pytest.mark.parametrize(
    'path', mostly_nightly(MIXES, kept=2), ids=lambda path: path.stem
)
def test_it_takes_a_step(path: Path) -> None:
    cfg = Config.fromfile(path)
    torch.manual_seed(0)
    retriever: TextVideoRetriever = MODELS.build(small_model(cfg)).train()
    wrapper = build_optim_wrapper(retriever, cfg.optim_wrapper)
    if hasattr(retriever.video_encoder, 'projection'):
        rates = {
            id(parameter): group['lr']
            for group in wrapper.optimizer.param_groups
            for parameter in group['params']
        }
        new = retriever.video_encoder.projection
        if new is not None and hasattr(new, 'weight'):
            assert rates[id(new.weight)] == cfg.optim_wrapper.optimizer.lr
    ids = torch.randint(1, 18, (3, WORDS))
    ids[:, 0], ids[:, -1] = 18, 19
    mask = torch.ones(3, cfg.num_frames, dtype=torch.bool)
    mask[1, -2:] = False
    inputs = dict(
        pixels=torch.randn(3, cfg.num_frames, 3, SIDE, SIDE),
        frame_mask=mask,
        token_ids=ids,
        caption_counts=torch.ones(3, dtype=torch.int64),
    )
    before = [x.detach().clone() for x in retriever.parameters()]
    loss, _ = retriever.parse_losses(retriever(inputs, mode='loss'))
    loss.backward()
    wrapper.step()
    for name, parameter in retriever.named_parameters():
        assert parameter.isfinite().all(), name
        if parameter.requires_grad:
            assert parameter.grad is not None, f'{name} is not used'
    moved = [
        not torch.equal(one, other)
        for one, other in zip(before, retriever.parameters(), strict=True)
    ]
    assert any(moved)


@pytest.mark.parametrize('path', MIXES, ids=lambda path: path.stem)
def test_sampling_fits_the_encoder(path: Path) -> None:
    cfg = Config.fromfile(path)
    assert cfg.model.data_preprocessor.num_frames == cfg.num_frames
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        dataset = loader.dataset
        pipeline = dataset.get('pipeline') or dataset.dataset.pipeline
        (sampling,) = [x for x in pipeline if x['type'] == 'SampleFrames']
        assert sampling['num_frames'] == cfg.num_frames
    for transform in cfg.pipeline:
        if 'tokenizer' not in transform:  # SigLIP's is not at hand
            TRANSFORMS.build(transform)


def test_every_mix_is_listed() -> None:
    meta = yaml.safe_load((FOLDER / 'metafile.yml').read_text())
    assert {model['Name'] for model in meta['Models']} == {
        path.stem for path in MIXES
    }
    readme = (FOLDER / 'README.md').read_text()
    for model in meta['Models']:
        alias = Config.fromfile(CONFIGS / f'{model["Alias"]}.py')
        assert (
            alias.model
            == Config.fromfile(FOLDER.parent.parent / model['Config']).model
        )
        assert f'`{model["Alias"]}`' in readme
    index = yaml.safe_load((CONFIGS.parent / 'model-index.yml').read_text())
    assert 'configs/backbone_mixes/metafile.yml' in index['Import']
