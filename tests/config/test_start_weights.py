"""Models of complete checkpoints are built without weights to start from."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from eaglenet_mm.apis.retriever_loading import load_retriever
from eaglenet_mm.config import skip_pretrained
from eaglenet_mm.registry import MODELS
from eaglenet_mm.search.stored_config import without_weights
from tests.models.tiny import TEXT_ENCODER, VIDEO_ENCODER, WIDTH
from tests.some_cases import mostly_nightly

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
ALL = sorted(
    path
    for path in CONFIGS.glob('*/*.py')
    if not path.parent.name.startswith('_')
)


@pytest.fixture
def no_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> list[object]:
    """No connection, no cache; lists the places that were asked for."""
    asked: list[object] = []

    def refuse(*args: object, **kwargs: object) -> None:
        asked.append(args)
        raise OSError('this test has no network')

    monkeypatch.setattr(socket, 'getaddrinfo', refuse)
    monkeypatch.setattr(socket.socket, 'connect', refuse)
    for name in ('HOME', 'TORCH_HOME', 'MMENGINE_HOME', 'XDG_CACHE_HOME'):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr(
        'huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path)
    )
    return asked


def encoders_of(path: Path) -> str:
    """The encoders of a config as text, to build each pair once."""
    model = Config.fromfile(path).model
    return json.dumps([model.text_encoder, model.video_encoder])


def one_of_each() -> list[Path]:
    found = list({encoders_of(path): path for path in ALL}.values())
    return sorted(found, key=lambda path: 'story' not in path.stem)


def test_pixel_statistics_of_a_tag_stay() -> None:
    """They follow from the tag, and no checkpoint holds them."""
    backbone = dict(type='open_clip.ViT-L-14', pretrained='laion2b_s32b_b82k')
    encoder = dict(type='RegisteredEncoder', backbone=backbone)
    model = dict(video_encoder=encoder, text_encoder=dict(type='x'))
    config = Config(dict(model=model))
    skip_pretrained(config)
    assert 'pretrained' not in config.model.video_encoder.backbone
    assert config.model.video_encoder.mean == [0.5, 0.5, 0.5]
    assert config.model.video_encoder.std == [0.5, 0.5, 0.5]
    stored = without_weights(model)['video_encoder']
    assert stored['mean'] == [0.5, 0.5, 0.5]
    assert 'pretrained' not in stored['backbone']


@pytest.mark.parametrize(
    'path', mostly_nightly(one_of_each()), ids=lambda path: path.stem
)
def test_every_config_is_built_without_network(
    path: Path, no_network: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = Config.fromfile(path)
    if 'lora' in cfg.model.video_encoder:
        pytest.importorskip('peft')
    skip_pretrained(cfg)
    for side in ('text_encoder', 'video_encoder'):
        encoder = MODELS.build(cfg.model[side])
        encoder.init_weights()
        assert all(x.isfinite().all() for x in encoder.parameters())
    assert no_network == []


@pytest.mark.parametrize('path', ALL, ids=lambda path: path.stem)
def test_no_config_names_weights_afterwards(path: Path) -> None:
    cfg = Config.fromfile(path)
    skip_pretrained(cfg)
    text = json.dumps(cfg.model)
    assert '://' not in text
    assert 'Pretrained' not in text
    assert "'openai'" not in text.replace('"', "'")
    assert "'webli'" not in text.replace('"', "'")


def test_every_kind_of_start_weights_is_skipped() -> None:
    plain = dict(type='TruncNormal', layer='Linear')
    cfg = Config(
        dict(
            model=dict(
                init_cfg=dict(type='Pretrained', checkpoint='a'),
                text_encoder=dict(
                    type='HuggingFaceTextEncoder', model='folder'
                ),
                video_encoder=dict(
                    type='RegisteredEncoder',
                    checkpoint='b',
                    backbone=dict(
                        type='timm.vit', pretrained=True, checkpoint_path='c'
                    ),
                    init_cfg=[plain, dict(type='Pretrained', checkpoint='d')],
                ),
                more=[
                    dict(type='open_clip.hf-hub:a/b.c', pretrained=None),
                    dict(arch='local-dir:/e'),
                    dict(clip_pretrained=True, with_checkpoint=True),
                    dict(arch=dict(vision_cfg=dict(
                        timm_model_pretrained=True))),
                ],
                head=dict(init_cfg=plain, checkpoint=False),
            )
        )
    )  # fmt: skip
    skip_pretrained(cfg)
    assert cfg.model.to_dict() == dict(
        init_cfg=None,
        text_encoder=dict(
            type='HuggingFaceTextEncoder', model='folder', pretrained=False
        ),
        video_encoder=dict(
            type='RegisteredEncoder',
            backbone=dict(type='timm.vit'),
            init_cfg=[plain],
        ),
        more=[
            dict(type='open_clip.hf-hub:a/b.c', pretrained=False),
            dict(arch='local-dir:/e', pretrained=False),
            dict(clip_pretrained=False, with_checkpoint=True),
            dict(arch=dict(vision_cfg=dict(timm_model_pretrained=False))),
        ],
        head=dict(init_cfg=plain, checkpoint=False),
    )


class _Initialisation:
    """A stand-in for a class named in a config in pure Python."""


_Initialisation.__name__ = 'PretrainedInit'


def test_classes_instead_of_names() -> None:
    cfg = Config(dict(model=dict(head=dict(a=1))))
    cfg.model.head['init_cfg'] = dict(type=_Initialisation)
    skip_pretrained(cfg)
    assert cfg.model.head.init_cfg is None


def frames_backbone(**settings: Any) -> dict[str, Any]:
    """A retriever on a small ResNet of mmaction."""
    return dict(
        type='TextVideoRetriever',
        data_preprocessor=dict(type='RetrievalDataPreprocessor', num_frames=3),
        text_encoder=TEXT_ENCODER,
        video_encoder=dict(
            type='RegisteredEncoder',
            backbone=dict(type='mmaction.ResNet', depth=18, **settings),
            image_size=32,
            embed_dim=WIDTH,
        ),
        head=dict(type='MeanPoolingHead'),
    )


@pytest.mark.parametrize(
    'start',
    [
        dict(pretrained='https://nowhere.invalid/resnet18.pth'),
        dict(
            init_cfg=dict(
                type='Pretrained',
                checkpoint='https://nowhere.invalid/resnet18.pth',
            )
        ),
    ],
    ids=['pretrained', 'init_cfg'],
)
def test_retriever_of_a_complete_checkpoint(
    start: dict[str, Any], no_network: list[object], tmp_path: Path
) -> None:
    source = MODELS.build(frames_backbone())
    state = source.state_dict()
    torch.save(dict(state_dict=state), tmp_path / 'complete.pth')
    model = load_retriever(
        Config(dict(model=frames_backbone(**start))),
        str(tmp_path / 'complete.pth'),
        'cpu',
    )
    assert no_network == []
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_weights_deep_in_a_config_are_named() -> None:
    """Start weights count as weights, wherever they stand."""
    from eaglenet_mm.config.start_weights import names_weights

    deep = dict(backbone=[dict(init_cfg=[dict(type='Pretrained')])])
    assert names_weights(deep)
    assert names_weights(dict(type='open_clip', arch='local-dir:/a'))
    assert not names_weights(dict(arch='local-dir:/a', pretrained=False))
    assert not names_weights(VIDEO_ENCODER)
