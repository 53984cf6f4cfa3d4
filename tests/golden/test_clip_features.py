"""``full_model.npz``: encoder features, through the converter's mapping."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from eaglenet_mm.models.converters import convert_eaglenet_release
from eaglenet_mm.models.encoders import (
    CLIPTextEncoder,
    CLIPVideoEncoder,
    PatchShift,
)
from tests.golden.cases import place, tensor
from tests.golden.rules import rule_input, rule_weight

TOLERANCE = 1e-4
HEAD_WIDTH = 64


@pytest.fixture(scope='module')
def golden(golden_dir: Path) -> dict[str, np.ndarray]:
    path = golden_dir / 'full_model.npz'
    if not path.is_file():
        pytest.skip(f'{path} is not there')
    with np.load(path) as arrays:
        return dict(arrays)


@pytest.fixture(scope='module')
def meta(golden: dict[str, np.ndarray]) -> dict:
    return json.loads(str(golden['meta']))


def cases(golden: dict[str, np.ndarray]) -> list[str]:
    suffix = '/eval/text_feat'
    found = [key[: -len(suffix)] for key in golden if key.endswith(suffix)]
    assert found
    return found


def vision_arch(meta: dict, embed_dim: int) -> dict:
    return dict(
        embed_dim=embed_dim,
        quick_gelu=True,
        vision_cfg=dict(
            layers=meta['vision_layers'],
            width=meta['vision_width'],
            head_width=HEAD_WIDTH,
            patch_size=meta['patch'],
            image_size=meta['resolution'],
        ),
    )


def text_arch(meta: dict, embed_dim: int) -> dict:
    return dict(
        embed_dim=embed_dim,
        quick_gelu=True,
        text_cfg=dict(
            context_length=meta['context'],
            vocab_size=meta['vocab'],
            width=meta['text_width'],
            heads=meta['text_width'] // HEAD_WIDTH,
            layers=meta['text_layers'],
        ),
    )


def release_weights(
    golden: dict[str, np.ndarray], case: str, seed: int
) -> dict[str, Tensor]:
    """Regenerate a case's state dict and check its stored sums."""
    weights = {}
    for name, shape, total in zip(
        golden[f'{case}/state_names'],
        golden[f'{case}/state_shapes'],
        golden[f'{case}/state_sums'],
        strict=True,
    ):
        size = tuple(int(n) for n in str(shape).strip('()').split(',') if n)
        value = rule_weight(str(name), size, seed)
        if not str(name).endswith('learnable_scalar'):
            assert float(value.sum(dtype=np.float64)) == pytest.approx(
                float(total), rel=1e-6, abs=1e-4
            ), name
        weights[str(name)] = torch.from_numpy(value)
    return weights


def tower_part(ours: dict[str, Tensor], side: str) -> dict[str, Tensor]:
    prefix = f'{side}_encoder.'
    return {k[len(prefix) :]: v for k, v in ours.items() if prefix in k}


def pixels_of(golden: dict[str, np.ndarray], meta: dict) -> Tensor:
    shape = tuple(golden['video_shape'])
    video = rule_input('video', shape, meta['seed'])
    for i, count in enumerate(golden['nvalid']):
        video[i, :, count:] = 0
    np.testing.assert_array_equal(video.ravel()[:8], golden['video_first8'])
    assert video.sum(dtype=np.float64) == pytest.approx(
        float(golden['video_sum'])
    )
    batch, _, frames, _, *image = shape
    return tensor(video).reshape(batch, frames, *image)


@pytest.mark.parametrize(
    'dtype',
    [pytest.param(torch.float32, marks=pytest.mark.nightly), torch.float64],
)
def test_features_of_the_complete_model(golden, meta, golden_report, dtype):
    suffix = '64' if dtype == torch.float64 else ''
    tolerance = 1e-6 if suffix else TOLERANCE
    pixels = pixels_of(golden, meta).to(dtype)
    token_ids = tensor(golden['input_ids'])[:, 0]
    for case in cases(golden):
        expected_text = golden[f'{case}/eval/text_feat{suffix}']
        expected_video = golden[f'{case}/eval/video_feat{suffix}']
        width = expected_text.shape[-1]
        text, video, still = (
            place(encoder, dtype)
            for encoder in (
                CLIPTextEncoder(
                    text_arch(meta, width), max_words=meta['max_words']
                ),
                CLIPVideoEncoder(
                    vision_arch(meta, width),
                    shift_layers=meta['patch_shift_layers'],
                ),
                CLIPVideoEncoder(vision_arch(meta, width), shift_layers=()),
            )
        )
        ours, _ = convert_eaglenet_release(
            release_weights(golden, case, meta['seed']),
            max_words=meta['max_words'],
        )
        text.load_state_dict(tower_part(ours, 'text'))
        video.load_state_dict(tower_part(ours, 'video'))
        still.load_state_dict(tower_part(ours, 'video'))
        for mode in (True, False):
            text.train(mode)
            video.train(mode)
            with torch.no_grad():
                golden_report(
                    f'full_model {case}/eval/text_feat{suffix}',
                    text(token_ids).embeds,
                    expected_text,
                    tolerance,
                )
                golden_report(
                    f'full_model {case}/eval/video_feat{suffix}',
                    video(pixels).frames,
                    expected_video,
                    tolerance,
                )
        with torch.no_grad():
            golden_report(
                f'full_model video_feat_noshift{suffix}',
                still(pixels).frames,
                golden[f'video_feat_noshift{suffix}'],
                tolerance,
            )


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_features_where_the_shift_patterns_overlap(
    golden, meta, golden_report, dtype
):
    if 'overlap/meta' not in golden:
        pytest.skip('the file has no overlap case')
    suffix = '64' if dtype == torch.float64 else ''
    sizes = json.loads(str(golden['overlap/meta']))
    expected = golden[f'overlap/video_feat{suffix}']
    video = CLIPVideoEncoder(
        vision_arch(sizes, expected.shape[-1]),
        shift_layers=meta['patch_shift_layers'],
    )
    shifted = [i % sizes['vision_layers'] for i in meta['patch_shift_layers']]
    weights = {}
    for name, value in video.tower.state_dict().items():
        release = f'clip.visual.{name}'
        for layer in shifted:
            release = release.replace(
                f'resblocks.{layer}.attn.', f'resblocks.{layer}.attn.net.'
            )
        weights[name] = torch.from_numpy(
            rule_weight(release, tuple(value.shape), sizes['weight_seed'])
        )
    video.tower.load_state_dict(weights)
    side = sizes['resolution']
    shape = (sizes['batch'], 1, sizes['max_frames'], 1, 3, side, side)
    pixels = rule_input('video_overlap', shape, sizes['pixel_seed'])
    pixels[-1, :, -1] = 0
    assert pixels.sum(dtype=np.float64) == pytest.approx(
        float(golden['overlap/video_sum'])
    )
    pixels = tensor(pixels, dtype).reshape(
        *shape[:1], *shape[2:3], 3, side, side
    )
    video = place(video, dtype).eval()
    with torch.no_grad():
        golden_report(
            f'full_model overlap/video_feat{suffix}',
            video(pixels).frames,
            expected,
            1e-6 if suffix else TOLERANCE,
        )


def test_source_of_every_shifted_token(golden):
    prefix = 'shift_source/'
    names = [key[len(prefix) :] for key in golden if key.startswith(prefix)]
    if not names:
        pytest.skip('the file has no shift_source')
    for name in names:
        if name.startswith('error_L'):
            num_tokens = int(name[len('error_L') :])
            with pytest.raises(ValueError, match=f'but got {num_tokens}'):
                PatchShift()(torch.zeros(3, num_tokens, 1), num_frames=3)
            continue
        expected = golden[f'{prefix}{name}']
        num_frames, num_tokens = expected.shape
        frame = torch.arange(num_frames).view(-1, 1, 1)
        shifted = PatchShift()(
            frame.repeat(1, num_tokens, 1), num_frames=num_frames
        )
        np.testing.assert_array_equal(
            shifted[..., 0].numpy(), expected, err_msg=name
        )
