"""Whole models, in one folder and by the tool."""

from __future__ import annotations

import hashlib
import json
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from eaglenet_mm.export import PARTS, export_retriever, retriever
from tests.models.tiny import (
    FRAMES,
    TEXT_ENCODER,
    VIDEO_ENCODER,
    VOCABULARY,
    WORDS,
    tiny_inputs,
    tiny_retriever,
)

MEAN_POOLING = dict(type='MeanPoolingHead')

for package in ('onnx', 'onnxscript', 'onnxruntime'):
    pytest.importorskip(package, reason=f'needs {package}')


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Config of a tiny model, as a file."""
    model = dict(
        type='TextVideoRetriever',
        text_encoder=TEXT_ENCODER,
        video_encoder=VIDEO_ENCODER,
        head=MEAN_POOLING,
        data_preprocessor=dict(
            type='RetrievalDataPreprocessor', num_frames=FRAMES
        ),
    )
    path = tmp_path / 'tiny.py'
    path.write_text(f"default_scope = 'eaglenet_mm'\nmodel = {model!r}\n")
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / 'tiny.pth'
    model = tiny_retriever(MEAN_POOLING)
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


@pytest.fixture
def call(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    def call(*arguments: object, tool: str = 'export.py') -> None:
        path = repository / 'tools' / tool
        # as Python does for a script
        monkeypatch.syspath_prepend(str(path.parent))
        monkeypatch.setattr(sys, 'argv', [tool, *map(str, arguments)])
        runpy.run_path(str(path), run_name='__main__')

    return call


def test_the_tool(
    tmp_path: Path,
    config: Path,
    checkpoint: Path,
    call: Callable,
    capsys: pytest.CaptureFixture,
) -> None:
    import onnxruntime

    out = tmp_path / 'out'
    call(config, checkpoint, '--out', out)
    assert 'scoring.pt2' in capsys.readouterr().out
    summary = json.loads((out / 'export.json').read_text())
    assert summary['checkpoint'] == str(checkpoint)
    files = {file['path']: file for file in summary['files']}
    assert list(files) == [
        'text_encoder.onnx',
        'video_encoder.onnx',
        'prepare_text.pt2',
        'prepare_video.pt2',
        'scoring.pt2',
    ]
    assert {path.name for path in out.iterdir()} == {*files, 'export.json'}
    for name, file in files.items():
        digest = hashlib.sha256((out / name).read_bytes()).hexdigest()
        assert file['sha256'] == {name: digest}
        assert file['parity']['relative'] < 1e-5
    assert files['text_encoder.onnx']['outputs']['embeds']['shape'][0] == (
        'texts'
    )

    model = tiny_retriever(MEAN_POOLING)
    model.load_state_dict(torch.load(checkpoint)['state_dict'])
    inputs = tiny_inputs(5)
    with torch.no_grad():
        wanted = model.eval().head(*model(inputs, mode='tensor'))

    def encode(name: str, *keys: str) -> list[torch.Tensor]:
        session = onnxruntime.InferenceSession(str(out / name))
        feed = {key: inputs[key].numpy() for key in keys}
        return [torch.from_numpy(x) for x in session.run(None, feed)]

    prepare_text, prepare_video, score = (
        torch.export.load(out / name).module() for name in list(files)[2:]
    )
    scores = score(
        prepare_text(*encode('text_encoder.onnx', 'token_ids')),
        prepare_video(*encode('video_encoder.onnx', 'pixels', 'frame_mask')),
    )
    torch.testing.assert_close(scores, wanted, rtol=0, atol=1e-5)


@pytest.mark.nightly
def test_the_benchmark_compares_all_files(
    tmp_path: Path,
    config: Path,
    checkpoint: Path,
    call: Callable,
    capsys: pytest.CaptureFixture,
) -> None:
    out = tmp_path / 'out'
    call(config, checkpoint, '--out', out, '--parts', *PARTS)
    capsys.readouterr()
    call(
        config,
        checkpoint,
        out,
        '--repeats=1',
        tool='benchmark/exported_files.py',
    )
    printed = capsys.readouterr().out
    rows = re.findall(
        r'\| +(\w+\.\w+) \| +(\S+) \| +(\S+) \| +(\S+) \|', printed
    )
    assert [row[0] for row in rows] == [
        'text_encoder.onnx',
        'video_encoder.onnx',
        'scoring.pt2',
        'scoring.onnx',
    ]
    for _, difference, model, file in rows:
        assert float(difference) < 1e-5
        assert min(float(model), float(file)) > 0


def test_one_part_with_raw_frames(
    tmp_path: Path, config: Path, checkpoint: Path, call: Callable
) -> None:
    out = tmp_path / 'out'
    call(config, checkpoint, '--out', out, '--parts', 'video', '--raw-frames')
    assert sorted(path.name for path in out.iterdir()) == [
        'export.json',
        'video_encoder.onnx',
    ]
    (file,) = json.loads((out / 'export.json').read_text())['files']
    assert file['inputs']['pixels']['dtype'] == 'uint8'
    assert file['metadata']['normalises'] is True


def test_a_gpu_that_is_not_there(
    tmp_path: Path,
    config: Path,
    checkpoint: Path,
    call: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(ValueError, match='torch finds none'):
        call(config, checkpoint, '--out', tmp_path, '--device', 'cuda')


def test_all_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was there before an export that fails is there afterwards."""
    model = tiny_retriever(MEAN_POOLING).eval()
    (tmp_path / 'text_encoder.onnx').write_text('of an earlier export')

    def fail(*arguments: Any, **options: Any) -> None:
        raise RuntimeError('the disk is full')

    monkeypatch.setattr(retriever, 'export_scoring', fail)
    with pytest.raises(RuntimeError, match='disk is full'):
        export_retriever(model, tmp_path, ['text', 'scoring'])
    assert [path.name for path in tmp_path.iterdir()] == ['text_encoder.onnx']
    assert (
        tmp_path / 'text_encoder.onnx'
    ).read_text() == 'of an earlier export'


@pytest.mark.parametrize(
    ('parts', 'message'),
    [(['head'], 'but got head'), ([], 'but got none')],
)
def test_unknown_parts(tmp_path: Path, parts: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        export_retriever(tiny_retriever(MEAN_POOLING), tmp_path, parts)


def test_a_head_that_cannot_be_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_retriever().eval()
    model.head.noise = 'pair'
    with pytest.raises(ValueError, match="noise='pair'"):
        export_retriever(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.nightly
def test_words_and_patches_reach_the_head(tmp_path: Path) -> None:
    """A head of words is exported with what the encoders give it."""
    head = dict(type='WTIHead', embed_dim=16, num_frames=FRAMES)
    model = tiny_retriever(head).eval()
    text, video, scores = export_retriever(model, tmp_path, ['scoring'])
    assert list(text.inputs) == ['embeds', 'tokens', 'token_mask']
    assert text.inputs['tokens']['shape'] == ['texts', WORDS, 16]
    assert list(video.inputs) == ['frames', 'feature_mask']
    ids = torch.randint(VOCABULARY, (4, WORDS))
    inputs = tiny_inputs(2)
    with torch.no_grad():
        features = (
            model.encode_text(ids),
            model.encode_video(inputs['pixels'], inputs['frame_mask']),
        )
        wanted = model.head(*features)
    load = [torch.export.load(x.path).module() for x in (text, video, scores)]
    got = load[2](
        load[0](*features[0].tensors()), load[1](*features[1].tensors())
    )
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-6)
