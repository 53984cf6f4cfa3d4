"""Backbones of every library meet EagleNet's head."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from torch import Tensor, nn

from eaglenet_mm.models import RegisteredEncoder, TextVideoRetriever
from eaglenet_mm.models.encoders import backbones
from eaglenet_mm.registry import MODELS
from tests.models.encoders.tiny_backbones import (
    ENCODERS,
    FRAMES,
    SIZE,
    STEPS,
)
from tests.models.tiny import TEXT_ENCODER, WIDTH, eaglenet_head, tiny_inputs
from tests.some_cases import mostly_nightly


def build(name: str, **options: Any) -> RegisteredEncoder:
    torch.manual_seed(3)
    config = {**copy.deepcopy(ENCODERS[name]), **options}
    return MODELS.build(dict(type='RegisteredEncoder', **config))


def videos(
    encoder: RegisteredEncoder, count: int = 3
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(
        count, FRAMES, 3, *encoder.image_size, generator=generator
    )
    mask = torch.ones(count, FRAMES, dtype=torch.bool)
    mask[1::2, 2:] = False
    return pixels, mask


def retriever(name: str, **options: Any) -> TextVideoRetriever:
    config = copy.deepcopy(ENCODERS[name])
    return TextVideoRetriever(
        TEXT_ENCODER,
        dict(type='RegisteredEncoder', embed_dim=WIDTH, **config),
        eaglenet_head(num_frames=STEPS.get(name, FRAMES), **options),
        dict(type='RetrievalDataPreprocessor', num_frames=FRAMES),
    )


@pytest.mark.parametrize(
    'name',
    mostly_nightly(
        ENCODERS, 'timm vit', 'resnet stages', 'swin3d', 'videomae'
    ),
)
def test_shapes_and_masks(name: str) -> None:
    encoder = build(name, embed_dim=WIDTH).eval()
    pixels, mask = videos(encoder)
    steps = STEPS.get(name, FRAMES)
    video = encoder(pixels, mask)
    assert video.frames.shape == (3, steps, WIDTH)
    expected = {4: [True, True, False, False], 2: [True, False], 1: [True]}
    assert video.frame_mask[1].tolist() == expected[steps]
    assert video.frame_mask[0].all()
    assert encoder.embed_dim == WIDTH
    assert encoder.num_frames == (steps if encoder.num_input_frames else None)
    # what stands in the padding has no influence
    changed = pixels.clone()
    changed[1, 2:] = 7.0
    torch.testing.assert_close(encoder(changed, mask).frames, video.frames)
    # but the real frames have
    changed[1, 0] += torch.randn_like(changed[1, 0])
    assert not torch.equal(encoder(changed, mask).frames[1], video.frames[1])


@pytest.mark.parametrize(
    'name', mostly_nightly(ENCODERS, 'open_clip siglip', 'videomae map')
)
def test_training_step_with_eaglenet(name: str) -> None:
    torch.manual_seed(4)
    model = retriever(name)
    model.init_weights()
    model.train()
    inputs = tiny_inputs(3)
    inputs['pixels'], inputs['frame_mask'] = videos(model.video_encoder)
    losses = model(inputs, mode='loss')
    total = sum(value for key, value in losses.items() if 'loss' in key)
    assert total.isfinite()
    total.backward()
    gradients = {
        key: parameter.grad
        for key, parameter in model.video_encoder.named_parameters()
        if parameter.requires_grad
    }
    # all of them, so that DDP finds no parameter without a gradient
    assert [key for key, grad in gradients.items() if grad is None] == []
    assert all(grad.isfinite().all() for grad in gradients.values())
    assert any(
        grad.abs().sum() > 0
        for key, grad in gradients.items()
        if key.startswith('backbone.')
    )
    before = {k: v.clone() for k, v in model.state_dict().items()}
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    moved = [
        key
        for key, value in model.state_dict().items()
        if key.startswith('video_encoder.backbone.')
        and not torch.equal(value, before[key])
    ]
    assert moved


@pytest.mark.parametrize('name', ['timm vit', 'resnet3d'])
def test_autocast_and_copies(name: str) -> None:
    encoder = build(name, embed_dim=WIDTH).eval()
    again = build(name, embed_dim=WIDTH).eval()
    again.load_state_dict(encoder.state_dict())
    pixels, mask = videos(encoder)
    expected = encoder(pixels, mask).frames
    for other in (again, copy.deepcopy(encoder)):
        torch.testing.assert_close(other(pixels, mask).frames, expected)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        half = encoder(pixels, mask).frames
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, expected, rtol=0.1, atol=0.1)
    double = encoder.double()(pixels.double(), mask).frames
    assert double.dtype == torch.float64


def test_bgr_swaps_red_and_blue() -> None:
    rgb, bgr = build('resnet').eval(), build('resnet', channel_order='bgr')
    bgr.eval().load_state_dict(rgb.state_dict())
    pixels, mask = videos(rgb)
    torch.testing.assert_close(
        bgr(pixels.flip(2), mask).frames, rgb(pixels, mask).frames
    )


def test_statistics_of_each_library() -> None:
    assert build('resnet').mean == (0.485, 0.456, 0.406)
    assert build('timm vit').std == (0.5, 0.5, 0.5)
    assert build('open_clip vit').mean[0] == pytest.approx(0.48145466)
    assert build('swin3d', mean=[0.45] * 3, std=[0.225] * 3).mean[0] == 0.45
    assert backbones.pixel_statistics('ViT-B-16-SigLIP', None) == (
        (0.5,) * 3,
        (0.5,) * 3,
    )
    assert build('timm vit').image_size == (SIZE, SIZE)
    assert build('open_clip siglip').image_size == (160, 160)


def test_frozen_backbone_stays_in_evaluation_mode() -> None:
    encoder = build('resnet', embed_dim=8, frozen=True)
    assert encoder.train() is encoder
    assert not any(m.training for m in encoder.backbone.modules())
    trained = [n for n, p in encoder.named_parameters() if p.requires_grad]
    assert trained == ['projection.weight', 'projection.bias']


def test_frozen_stages() -> None:
    encoder = build('resnet', frozen=2)
    frozen = {n for n, p in encoder.named_parameters() if not p.requires_grad}
    assert 'backbone.layer2.0.conv1.conv.weight' in frozen
    assert 'backbone.layer3.0.conv1.conv.weight' not in frozen
    with pytest.raises(ValueError, match=r"frozen=2.*'timm\.resnet18' has no"):
        build('timm resnet', frozen=2)


def test_unused_parameters_are_frozen() -> None:
    encoder = build('videomae map')
    frozen = [n for n, p in encoder.named_parameters() if not p.requires_grad]
    assert frozen == ['backbone.fc_norm.weight', 'backbone.fc_norm.bias']
    # recomputation hides its parameters, so none is taken for unused
    config = copy.deepcopy(ENCODERS['swin3d'])
    config['backbone']['with_cp'] = True
    encoder = RegisteredEncoder(**config)
    assert all(p.requires_grad for p in encoder.parameters())


def test_norm_eval_and_modes() -> None:
    config = copy.deepcopy(ENCODERS['resnet'])
    config['backbone']['norm_eval'] = True
    encoder = RegisteredEncoder(**config).train()
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    assert build('resnet').backbone.training
    assert not build('resnet').eval().backbone.training


def test_synchronised_batch_norm_in_evaluation() -> None:
    encoder = nn.SyncBatchNorm.convert_sync_batchnorm(build('resnet3d'))
    assert any(isinstance(m, nn.SyncBatchNorm) for m in encoder.modules())
    assert encoder.eval()(*videos(encoder)).frames.isfinite().all()


@pytest.mark.parametrize('name', ['timm vit', 'open_clip vit'])
def test_init_weights_leaves_finished_weights(name: str) -> None:
    encoder = build(name)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    encoder.init_weights()
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize('form', ['plain', 'recogniser', 'safetensors'])
def test_checkpoint(form: str, tmp_path: Path) -> None:
    source = build('resnet3d').backbone.state_dict()
    source = {k: v + 1 if v.is_floating_point() else v
              for k, v in source.items()}  # fmt: skip
    path = str(tmp_path / 'weights.pth')
    if form == 'safetensors':
        from safetensors.torch import save_file

        path = str(tmp_path / 'weights.safetensors')
        save_file(source, path)
    elif form == 'plain':
        torch.save(source, path)
    else:
        names = {f'backbone.{k}': v for k, v in source.items()}
        names['cls_head.fc_cls.weight'] = torch.zeros(2, 2)
        torch.save(dict(state_dict=names, meta=dict()), path)
    encoder = build('resnet3d', checkpoint=path)
    encoder.init_weights()  # of the Runner, must not draw them anew
    for key, value in encoder.backbone.state_dict().items():
        assert torch.equal(value, source[key]), key


def test_checkpoint_of_another_backbone(tmp_path: Path) -> None:
    path = tmp_path / 'weights.pth'
    torch.save(build('swin3d').backbone.state_dict(), path)
    with pytest.raises(ValueError, match=r"mmaction\.ResNet3d'.*missing"):
        build('resnet3d', checkpoint=str(path))
    torch.save(dict(epoch=3), path)
    with pytest.raises(ValueError, match='not a state dict of tensors'):
        build('resnet3d', checkpoint=str(path))
    for name in ('absent.pth', 'absent.safetensors'):
        with pytest.raises(FileNotFoundError):
            build('resnet3d', checkpoint=str(tmp_path / name))


@pytest.mark.parametrize(
    ('name', 'options', 'error', 'message'),
    [
        ('resnet', dict(layout='video'), ValueError, "layout.*got 'video'"),
        ('resnet', dict(channel_order='gbr'), ValueError, "got 'gbr'"),
        (
            'resnet3d',
            dict(num_input_frames=None),
            ValueError,
            r'num_input_frames of at least 1.*mmaction\.ResNet3d.*got None',
        ),
        (
            'videomae',
            dict(num_input_frames=1),
            ValueError,
            r'VisionTransformer. cannot encode 1 frame\(s\) of 32 x 32',
        ),
        (
            'videomae',
            dict(num_input_frames=8),
            ValueError,
            r'cannot encode 8 frame\(s\)',
        ),
        (
            'open_clip vit',
            dict(image_size=16),
            ValueError,
            'of 16 x 16 pixels.*image_size',
        ),
        (
            'resnet3d',
            dict(layout='frames'),
            ValueError,
            'in the layout frames.*Set layout',
        ),
        (
            'resnet',
            dict(layout='clip', num_input_frames=4),
            ValueError,
            'in the layout clip.*Set layout',
        ),
        (
            'resnet',
            dict(backbone=dict(type='mmaction.ResNett', depth=18)),
            ValueError,
            r"mmaction has .*'mmaction\.ResNett'.*'ResNet'",
        ),
        (
            'resnet',
            dict(backbone=dict(type='ResNet', depth=18)),
            ValueError,
            "eaglenet_mm has no backbone 'ResNet'.*prefix",
        ),
        (
            'resnet',
            dict(backbone=dict(type='timm.resnet19')),
            ValueError,
            "timm has .*'timm.resnet19'.*resnet18",
        ),
        (
            'resnet',
            dict(backbone=dict(type='open_clip.ViT-B-15')),
            ValueError,
            "no model 'ViT-B-15'",
        ),
        (
            'resnet',
            dict(backbone=dict(type='open_clip')),
            ValueError,
            "needs either a name.*got the name ''",
        ),
        (
            'resnet',
            dict(backbone=dict(type='open_clip.RN50', depth=2)),
            ValueError,
            r"only \('arch', .*\), but got \['depth'\]",
        ),
        (
            'resnet',
            dict(backbone=dict(depth=18)),
            TypeError,
            "needs a type such as 'mmaction.ResNet'",
        ),
        (
            'resnet',
            dict(backbone=dict(type='absent_package.ResNet')),
            ImportError,
            "'absent_package.ResNet' needs the package absent_package",
        ),
    ],
)
def test_bad_options(
    name: str, options: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build(name, **options)


@pytest.mark.parametrize('package', ['timm', 'mmpretrain'])
def test_missing_package(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbones, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match=f"pip install '{package}'"):
        build('resnet', backbone=dict(type=f'{package}.VisionTransformer'))


def test_package_that_cannot_be_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(name: str) -> None:
        raise ModuleNotFoundError("No module named 'mat4py'", name='mat4py')

    monkeypatch.setattr(backbones, 'import_module', fail)
    message = "mmaction, which is installed.*No module named 'mat4py'"
    with pytest.raises(ImportError, match=message):
        build('resnet')


@pytest.mark.parametrize(
    ('shape', 'mask', 'message'),
    [
        ((2, 4, 3, 16, 32), None, r'frames, 3, 32, 32\).*got \(2, 4, 3, 16'),
        ((2, 3, 3, 32, 32), None, 'num_input_frames=4 frames, but got 3'),
        ((2, 4, 3, 32, 32), (2, 3), r'\(2, 4\) of the frames.*\(2, 3\)'),
    ],
)
def test_bad_pixels(
    shape: tuple[int, ...], mask: tuple[int, ...] | None, message: str
) -> None:
    frame_mask = None if mask is None else torch.ones(mask, dtype=torch.bool)
    with pytest.raises(ValueError, match=message):
        build('resnet3d')(torch.zeros(shape), frame_mask)


def test_encoder_and_head_must_agree() -> None:
    with pytest.raises(ValueError, match=r'makes 2 vectors of 4 .*=4'):
        TextVideoRetriever(
            TEXT_ENCODER,
            dict(
                type='RegisteredEncoder', embed_dim=WIDTH, **ENCODERS['swin3d']
            ),
            eaglenet_head(num_frames=FRAMES),
            dict(type='RetrievalDataPreprocessor', num_frames=FRAMES),
        )
    with pytest.raises(ValueError, match=r'num_frames=6, but video_encoder'):
        TextVideoRetriever(
            TEXT_ENCODER,
            dict(
                type='RegisteredEncoder', embed_dim=WIDTH, **ENCODERS['swin3d']
            ),
            eaglenet_head(num_frames=2),
            dict(type='RetrievalDataPreprocessor', num_frames=6),
        )
    with pytest.raises(ValueError, match='embed_dim=16, but video_encoder'):
        TextVideoRetriever(
            TEXT_ENCODER,
            dict(type='RegisteredEncoder', **ENCODERS['timm resnet']),
            eaglenet_head(),
        )


def test_preprocessor_follows_the_encoder() -> None:
    model = retriever('timm vit')
    assert model.data_preprocessor.mean.flatten().tolist() == [0.5] * 3
    assert model.data_preprocessor.std.flatten().tolist() == [0.5] * 3
    assert 'data_preprocessor.mean' not in model.state_dict()


@pytest.mark.parametrize(
    ('mean', 'fits'), [([0.5] * 3, True), ([0.45] * 3, False)]
)
def test_preprocessor_with_other_statistics(
    mean: list[float], fits: bool
) -> None:
    config = dict(
        text_encoder=TEXT_ENCODER,
        video_encoder=dict(
            type='RegisteredEncoder', embed_dim=WIDTH, **ENCODERS['timm vit']
        ),
        head=eaglenet_head(num_frames=FRAMES),
        data_preprocessor=dict(
            type='RetrievalDataPreprocessor', num_frames=FRAMES, mean=mean
        ),
    )
    if fits:
        model = TextVideoRetriever(**config)
        assert model.data_preprocessor.mean.flatten().tolist() == mean
    else:
        message = r'mean=\[0\.45.*RegisteredEncoder.*mean=\[0\.5.*Leave mean'
        with pytest.raises(ValueError, match=message):
            TextVideoRetriever(**config)


#: File, what makes it smaller, frames, mean of red.
BASES = {
    'resnet50_clip-text': (dict(depth=18, pretrained=None), 12, 12, 0.485),
    'swin3d-tiny_clip-text': (
        dict(arch=dict(embed_dims=24, depths=[1, 1, 1, 1],
                       num_heads=[1, 1, 1, 1]), pretrained=None),
        12, 6, 0.485,
    ),
    'videomae-base_clip-text': (
        dict(depth=1, embed_dims=24, num_heads=2, init_cfg=None),
        16, 8, 0.485,
    ),
    'siglip_vit-base': (dict(pretrained=None), 1, 1, 0.5),
}  # fmt: skip


@pytest.mark.parametrize(
    'name', mostly_nightly(BASES, 'swin3d-tiny_clip-text')
)
def test_base_configs(name: str, repository: Path) -> None:
    smaller, frames, steps, red = BASES[name]
    path = repository / 'configs' / '_base_' / 'models' / f'{name}.py'
    model = Config.fromfile(path).model.to_dict()
    model['video_encoder']['backbone'].update(smaller)
    model['data_preprocessor'].setdefault('num_frames', frames)
    width = model['video_encoder'].get('embed_dim', 768)
    if name == 'siglip_vit-base':
        model['text_encoder']['backbone'].update(smaller)
    else:
        model['text_encoder'].update(pretrained=None)
        arch = copy.deepcopy(TEXT_ENCODER['arch'])
        arch['embed_dim'] = width
        model['text_encoder']['arch'] = arch
    model['head'] = dict(
        type='XPoolHead',
        embed_dim=width,
        loss_match=dict(type='InfoNCELoss', init_scale=10),
    )
    built = MODELS.build(model).eval()
    assert built.data_preprocessor.mean[0].item() == pytest.approx(red)
    raw = torch.zeros(frames, 3, 224, 224, dtype=torch.uint8)
    batch = built.data_preprocessor(dict(inputs=dict(frames=[raw])))['inputs']
    with torch.no_grad():
        video = built.encode_video(batch['pixels'], batch['frame_mask'])
    assert video.frames.shape == (1, steps, width)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(mean=(123.7, 116.3, 103.5)), 'Divide values .* by 255'),
        (dict(std=(0.0, 1.0, 1.0)), 'std above 0'),
        (dict(std=(58.4, 57.1, 57.4)), 'Divide values .* by 255'),
        (dict(mean=(0.5, 0.5)), 'three numbers each'),
        (dict(embed_dim=0), 'embed_dim must be at least 1'),
        (dict(embed_dim=-3), 'embed_dim must be at least 1'),
        (dict(image_size=(3, 32, 32)), 'height and width'),
        (dict(image_size=-1), 'height and width'),
    ],
)
def test_impossible_sizes_and_statistics(options: dict, message: str) -> None:
    config = dict(ENCODERS['resnet'], embed_dim=8)
    with pytest.raises(ValueError, match=message):
        RegisteredEncoder(**{**config, **options})


@pytest.mark.parametrize('name', ['mmaction.ResNet', 'timm.resnet18'])
def test_weights_of_the_backbone_before(name: str) -> None:
    """A tag of open_clip says nothing to other libraries."""
    backbone = dict(type=name, pretrained='webli')
    with pytest.raises((FileNotFoundError, ValueError), match=f"{name}'.*"):
        RegisteredEncoder(backbone, image_size=32)


def test_no_weights_are_false_everywhere() -> None:
    backbone = dict(type='mmaction.ResNet', depth=18, pretrained=False)
    encoder = RegisteredEncoder(backbone, image_size=32)
    encoder.init_weights()  # where it would be refused
    assert encoder.backbone.pretrained is None


def test_a_backbone_by_its_class() -> None:
    """As pure Python configs, and dumps of them, name it."""
    from mmaction.models.backbones import ResNet

    features = []
    for kind in (
        *('mmaction.ResNet', 'mmaction.models.backbones.ResNet'),
        ResNet,
    ):
        backbone = dict(type=kind, depth=18, pretrained=None)
        torch.manual_seed(3)
        encoder = RegisteredEncoder(backbone, image_size=SIZE)
        assert type(encoder.backbone) is ResNet
        assert encoder.backbone_name == 'mmaction.ResNet'
        features.append(encoder.eval()(videos(encoder)[0]).frames)
    assert torch.equal(features[0], features[1])
    assert torch.equal(features[0], features[2])
