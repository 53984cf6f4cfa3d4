"""Encoders as ONNX files, run by onnxruntime."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from eaglenet_mm.export import (
    encoders,
    export_text_encoder,
    export_video_encoder,
    exported_file,
)
from eaglenet_mm.models.data_preprocessor import RetrievalDataPreprocessor
from eaglenet_mm.registry import MODELS
from tests.models.encoders.stand_in_transformers import stand_in
from tests.models.encoders.tiny_backbones import ENCODERS
from tests.models.tiny import (
    FRAMES,
    TEXT_ENCODER,
    VIDEO_ENCODER,
    VOCABULARY,
    WIDTH,
    WORDS,
)

onnx = pytest.importorskip('onnx', reason='needs onnx')
pytest.importorskip('onnxscript', reason='needs onnxscript')
onnxruntime = pytest.importorskip('onnxruntime', reason='needs onnxruntime')

SIZE = 12
NIGHTLY_FALSE = pytest.param(False, marks=pytest.mark.nightly)


def build(config: dict, **options: Any) -> Any:
    torch.manual_seed(1)
    return MODELS.build({**config, **options}).eval()


def run(path: Path, **inputs: Tensor) -> dict[str, Tensor]:
    """Run a file by itself, as who has no torch would."""
    session = onnxruntime.InferenceSession(str(path))
    outputs = session.run(None, {k: x.numpy() for k, x in inputs.items()})
    names = [output.name for output in session.get_outputs()]
    return {
        k: torch.from_numpy(x) for k, x in zip(names, outputs, strict=True)
    }


def assert_close(got: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def clip_of(videos: int, frames: int) -> tuple[Tensor, Tensor]:
    mask = torch.arange(frames) < torch.arange(1, videos + 1)[:, None]
    pixels = torch.randn(videos, frames, 3, SIZE, SIZE)
    return pixels * mask[:, :, None, None, None], mask


@pytest.fixture(scope='module')
def text_with_tokens(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """An encoder, and the file it was exported to."""
    torch.manual_seed(0)
    encoder = build(TEXT_ENCODER, output_tokens=True)
    path = tmp_path_factory.mktemp('text') / 'text.onnx'
    return encoder, export_text_encoder(encoder, path)


@pytest.mark.parametrize('has_tokens', [NIGHTLY_FALSE, True])
def test_text(
    tmp_path: Path, text_with_tokens: tuple, has_tokens: bool
) -> None:
    encoder, file = text_with_tokens
    if not has_tokens:
        encoder = build(TEXT_ENCODER)
        file = export_text_encoder(encoder, tmp_path / 'text.onnx')
    assert file.parity is not None
    assert file.parity.relative < 1e-5
    assert file.inputs['token_ids']['shape'] == ['texts', 'words']
    for texts, words in ((1, WORDS), (4, 3), (11, 1)):
        ids = torch.randint(VOCABULARY, (texts, words))
        wanted = encoder(ids)
        got = run(file.path, token_ids=ids)
        if has_tokens:
            names = ['embeds', 'tokens', 'token_mask']
            assert_close(
                [got.pop(name) for name in names], list(wanted.tensors())
            )
        else:
            assert_close([got.pop('embeds')], [wanted.embeds])
        assert not got


@pytest.mark.nightly  # by default that of raw frames, below
@pytest.mark.parametrize('has_patches', [False, True])
def test_video(tmp_path: Path, has_patches: bool) -> None:
    encoder = build(VIDEO_ENCODER, output_patches=has_patches)
    file = export_video_encoder(
        encoder, tmp_path / 'video.onnx', num_frames=FRAMES
    )
    # the patch shift makes neighbours matter, so these are no images
    for videos, frames in ((1, FRAMES), (4, 1), (3, 7)):
        pixels, mask = clip_of(videos, frames)
        wanted = encoder(pixels, mask)
        got = run(file.path, pixels=pixels, frame_mask=mask)
        assert_close(list(got.values()), list(wanted.tensors()))
        assert ('patches' in got) == has_patches
        assert got['feature_mask'].equal(mask)


def test_raw_frames_are_normalised_as_in_the_model(tmp_path: Path) -> None:
    encoder = build(VIDEO_ENCODER)
    # numpy's numbers are float64, and would make the pixels so
    statistics = dict(
        mean=tuple(np.array([0.4, 0.5, 0.6])), std=(0.2, 0.3, 0.4)
    )
    file = export_video_encoder(
        encoder,
        tmp_path / 'raw.onnx',
        num_frames=FRAMES,
        raw_frames=True,
        **statistics,
    )
    prepare = RetrievalDataPreprocessor(num_frames=FRAMES, **statistics)
    frames = torch.randint(256, (2, 3, SIZE, SIZE), dtype=torch.uint8)
    inputs = prepare(dict(inputs=dict(frames=[frames])))['inputs']
    wanted = encoder(inputs['pixels'], inputs['frame_mask'])
    # whatever lies in the padded frame, it counts as zero
    padded = torch.cat([frames, torch.full_like(frames[:1], 255)])
    got = run(
        file.path,
        pixels=padded.unsqueeze(0),
        frame_mask=inputs['frame_mask'],
    )
    assert_close([got['frames']], [wanted.frames])
    model = onnx.load(file.path)
    said = {x.key: json.loads(x.value) for x in model.metadata_props}
    assert said['mean'] == [0.4, 0.5, 0.6]
    assert said['image_size'] == [SIZE, SIZE]
    assert said['normalises'] is True


def test_what_the_file_says(text_with_tokens: tuple) -> None:
    _, text = text_with_tokens
    model = onnx.load(text.path)
    said = {x.key: json.loads(x.value) for x in model.metadata_props}
    assert said == text.metadata
    assert said['max_words'] == WORDS
    assert said['vocab_size'] == VOCABULARY
    assert said['embed_dim'] == WIDTH
    names = {
        length.dim_param
        for value in (*model.graph.input, *model.graph.output)
        for length in value.type.tensor_type.shape.dim
        if length.dim_param
    }
    assert names == {'texts', 'words'}
    # no paths of this machine
    assert b'eaglenet_mm/' not in text.path.read_bytes()


@pytest.mark.parametrize(
    ('name', 'lengths', 'steps'),
    [
        pytest.param('timm vit', (2, 5), None, marks=pytest.mark.nightly),
        ('resnet3d', (4,), 2),
    ],
)
def test_registered(
    tmp_path: Path, name: str, lengths: tuple[int, ...], steps: int | None
) -> None:
    pytest.importorskip('timm', reason='needs timm')
    encoder = build(
        dict(type='RegisteredEncoder', embed_dim=WIDTH), **ENCODERS[name]
    )
    file = export_video_encoder(encoder, tmp_path / 'v.onnx', num_frames=4)
    assert ('frames' in file.inputs['pixels']['shape']) == (steps is None)
    for frames in lengths:
        pixels = torch.randn(3, frames, 3, 32, 32)
        # the padding repeats the last real frame, a gap the one before it
        mask = torch.ones(3, frames, dtype=torch.bool)
        mask[1, -1] = mask[2, 1] = False
        wanted = encoder(pixels, mask)
        got = run(file.path, pixels=pixels, frame_mask=mask)
        assert got['frames'].shape == (3, steps or frames, WIDTH)
        assert_close(list(got.values()), list(wanted.tensors()))


@pytest.mark.nightly
def test_a_text_tower_that_sees_whole_sentences(tmp_path: Path) -> None:
    """In the form of SigLIP's."""
    text_cfg = dict(
        **TEXT_ENCODER['arch']['text_cfg'],
        no_causal_mask=True,
        proj_bias=True,
        pool_type='last',
    )
    encoder = build(
        dict(
            type='RegisteredTextEncoder',
            backbone=dict(
                type='open_clip', arch=dict(embed_dim=12, text_cfg=text_cfg)
            ),
        )
    )
    file = export_text_encoder(encoder, tmp_path / 'text.onnx')
    assert file.metadata['vocab_size'] == VOCABULARY
    ids = torch.randint(VOCABULARY, (3, WORDS))
    assert_close(
        [run(file.path, token_ids=ids)['embeds']], [encoder(ids).embeds]
    )


@pytest.mark.nightly
@pytest.mark.parametrize('pooling', ['mean', 'last'])
def test_a_language_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pooling: str
) -> None:
    """With a stand-in where transformers is not installed."""
    if find_spec('transformers') is None:
        monkeypatch.setitem(sys.modules, 'transformers', stand_in())
    model = dict(
        model_type='bert',
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=WORDS,
        pad_token_id=1,
    )
    encoder = build(
        dict(
            type='HuggingFaceTextEncoder',
            model=model,
            pooling=pooling,
            output_tokens=True,
        )
    )
    file = export_text_encoder(encoder, tmp_path / 'text.onnx')
    assert list(file.outputs) == ['embeds', 'tokens', 'token_mask']
    ids = torch.randint(2, VOCABULARY, (4, WORDS))
    ids[1, 3:] = 1
    wanted = encoder(ids)
    got = run(file.path, token_ids=ids)
    assert_close(list(got.values()), list(wanted.tensors()))


def test_half_precision_becomes_single(tmp_path: Path) -> None:
    encoder = build(TEXT_ENCODER, precision='fp16')
    file = export_text_encoder(encoder, tmp_path / 'text.onnx')
    ids = torch.randint(VOCABULARY, (3, WORDS))
    assert_close(
        [run(file.path, token_ids=ids)['embeds']],
        [build(TEXT_ENCODER, precision='fp16').float()(ids).embeds],
    )
    assert encoder.tower.text_projection.dtype == torch.float16


@pytest.mark.nightly
def test_an_encoder_of_one_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a size cannot be open, the file says so and takes one."""
    encoder = build(TEXT_ENCODER)
    forward = encoder.forward

    def choosy(ids: Tensor) -> Any:
        if ids.shape[1] != WORDS:
            raise ValueError('whole sentences, please')
        return forward(ids)

    monkeypatch.setattr(encoder, 'forward', choosy)
    monkeypatch.setattr(encoders, '_for_export', lambda encoder: encoder)
    file = export_text_encoder(encoder, tmp_path / 'text.onnx')
    assert file.inputs['token_ids']['shape'] == ['texts', WORDS]
    ids = torch.randint(VOCABULARY, (3, WORDS))
    with torch.no_grad():
        assert_close([run(file.path, token_ids=ids)['embeds']],
                     [encoder(ids).embeds])  # fmt: skip


def test_weights_beyond_the_limit_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exported_file, 'EMBEDDED_BYTES', 100)
    encoder = build(TEXT_ENCODER)
    file = export_text_encoder(encoder, tmp_path / 'text.onnx')
    assert sorted(file.sha256) == ['text.onnx', 'text.onnx.data']
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        file.sha256
    )
    ids = torch.randint(VOCABULARY, (2, WORDS))
    assert_close(
        [run(file.path, token_ids=ids)['embeds']], [encoder(ids).embeds]
    )


def test_a_file_that_is_off_is_not_left(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"output 'embeds' .* tolerance is 1e-12"
    ):
        export_text_encoder(
            build(TEXT_ENCODER), tmp_path / 'text.onnx', tolerance=1e-12
        )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('in the way')
    with pytest.raises(OSError, match=r'needs a writable folder.*file'):
        export_text_encoder(
            build(TEXT_ENCODER), tmp_path / 'file' / 'text.onnx'
        )


def test_frames_that_the_encoder_does_not_take(tmp_path: Path) -> None:
    pytest.importorskip('timm', reason='needs timm')
    encoder = build(
        dict(
            type='RegisteredEncoder',
            backbone=dict(type='timm.test_vit', img_size=32),
            image_size=32,
            num_input_frames=4,
        )
    )
    with pytest.raises(ValueError, match=r'takes 4 frames.*num_frames=6'):
        export_video_encoder(encoder, tmp_path / 'v.onnx', num_frames=6)


def test_statistics_in_grey_levels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='in units of'):
        export_video_encoder(
            build(VIDEO_ENCODER),
            tmp_path / 'v.onnx',
            num_frames=FRAMES,
            mean=[120, 120, 120],
        )


def test_a_missing_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = 'onnxscript'
    hide(monkeypatch, package)
    with pytest.raises(
        ImportError,
        match=rf'needs the package {package},.*eaglenet_mm\[export\]',
    ):
        export_text_encoder(build(TEXT_ENCODER), tmp_path / 'text.onnx')


def test_without_onnxruntime_nothing_is_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exported_file, 'find_spec', lambda name: None)
    logged: list[str] = []
    monkeypatch.setattr(
        exported_file,
        'print_log',
        lambda message, **kwargs: logged.append(message),
    )
    file = export_text_encoder(build(TEXT_ENCODER), tmp_path / 'text.onnx')
    assert file.parity is None
    assert 'was not compared' in logged[0]
    assert 'eaglenet_mm[export]' in logged[0]


def hide(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Let a package be not installed."""
    from eaglenet_mm.models.encoders import backbones

    there = backbones.find_spec
    monkeypatch.setattr(
        backbones,
        'find_spec',
        lambda name: None if name == package else there(name),
    )
