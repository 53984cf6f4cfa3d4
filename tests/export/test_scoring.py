"""Every head as files of torch.export and ONNX, loaded and run again."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from eaglenet_mm.export import export_scoring, export_scoring_onnx
from eaglenet_mm.export.scoring import scoring_programs
from eaglenet_mm.models.heads import BasePairHead
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from tests.models.every_head import CASES, CONFIGS, build, registered_heads
from tests.models.every_head import features as features_of

NAMES = ['prepare_text', 'prepare_video', 'scoring']
#: Sizes other than those of the tracing, single rows among them.
SIZES = [(1, 1), (7, 2), (1, 5)]

#: Heads that show all kinds of states, the others take as long.
QUICK = ('EagleNetHead', 'WTIHead')


def features(texts: int, videos: int) -> tuple[TextFeatures, VideoFeatures]:
    """In float32, with every optional field."""
    text, video = features_of(texts, videos, seed=texts + videos)
    return text.to(torch.float32), video.to(torch.float32)


def single(name: str, variant: str, **options: Any) -> BasePairHead:
    return build(name, variant, **options).float()


def small(name: str, variant: str = '', **graph: int) -> BasePairHead:
    """With fewer heads in the graph: each makes the program longer."""
    options = {}
    if name == 'EagleNetHead':
        options['graph'] = dict(num_heads=2, **graph)
    return single(name, variant, **options)


def states_of(head: BasePairHead) -> tuple[Any, Any]:
    text, video = features(2, 3)
    return head.prepare_text(text), head.prepare_video(video)


def test_no_head_is_forgotten() -> None:
    assert set(CONFIGS) == registered_heads()


@pytest.mark.parametrize(
    ('name', 'variant'),
    [
        case
        if case[0] in QUICK and not case[1]
        else pytest.param(*case, marks=pytest.mark.nightly)
        for case in CASES
        if 'decorrelation' not in case[1]  # losses have no part in scores
    ],
)
def test_torch_export(tmp_path: Path, name: str, variant: str) -> None:
    head = small(name, variant)
    before = copy.deepcopy(head.state_dict())
    files = export_scoring(head, tmp_path, *features(2, 2))
    assert [file.path.name for file in files] == [f'{x}.pt2' for x in NAMES]
    prepare_text, prepare_video, score = (
        torch.export.load(file.path).module() for file in files
    )
    for texts, videos in SIZES:
        text, video = features(texts, videos)
        with torch.no_grad():
            wanted = head(text, video)
            states = (
                prepare_text(*text.tensors()),
                prepare_video(*video.tensors()),
            )
            got = score(*states)
        # an index may store them and bring them back in this order alone
        assert all(x.is_contiguous() for state in states for x in state)
        assert got.shape == (texts, videos)
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-6)
    # the head itself is left as it was
    for key, value in head.state_dict().items():
        assert value.equal(before[key])
    assert all(x.requires_grad for x in head.parameters())


@pytest.mark.parametrize(
    ('name', 'graph'),
    [
        # torch.export, the first half of the way, has both layers above
        ('EagleNetHead', dict(num_layers=1)),
        *(
            (name, {})
            if name == 'WTIHead'
            else pytest.param(name, {}, marks=pytest.mark.nightly)
            for name in sorted(CONFIGS)
        ),
    ],
)
def test_onnx(tmp_path: Path, name: str, graph: dict[str, int]) -> None:
    for package in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(package, reason=f'needs {package}')
    head = small(name, **graph)
    files = export_scoring_onnx(head, tmp_path, *features(2, 2))
    assert [file.path.name for file in files] == [f'{x}.onnx' for x in NAMES]
    for texts, videos in SIZES:
        text, video = features(texts, videos)
        with torch.no_grad():
            wanted = head(text, video)
        names = (files[0].inputs, files[1].inputs)
        sides = [
            dict(zip(part, x.tensors(), strict=True))
            for part, x in zip(names, (text, video), strict=True)
        ]
        # names of a state are those of its files
        state = run(files[0].path, sides[0]) | run(files[1].path, sides[1])
        got = run(files[2].path, state)['scores']
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
    # onnxruntime shares memory between sizes of one name, so that a name for
    # what is unknown would be a name too many
    sizes = sizes_of(files[2].path)
    assert {'texts', 'videos'} <= sizes
    known = re.compile(r'(texts|videos|[-+*/ ()0-9])*')
    assert not [size for size in sizes if not known.fullmatch(size)]


def run(path: Path, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options)
    # an input that a head does not read may be gone from the graph
    used = [node.name for node in session.get_inputs()]
    outputs = session.run(None, {k: inputs[k].numpy() for k in used})
    names = [node.name for node in session.get_outputs()]
    return {
        k: torch.from_numpy(x) for k, x in zip(names, outputs, strict=True)
    }


def sizes_of(path: Path) -> set[str]:
    """Names of the open sizes in a graph."""
    import onnx

    graph = onnx.load(path).graph
    return {
        length.dim_param
        for value in (*graph.input, *graph.output, *graph.value_info)
        for length in value.type.tensor_type.shape.dim
        if length.dim_param
    }


def test_what_the_file_says(tmp_path: Path) -> None:
    head = single('XPoolHead', '')
    *_, file = export_scoring(head, tmp_path, *features(2, 2))
    assert file.inputs['text.embeds']['shape'][0] == 'texts'
    assert file.outputs['scores'] == dict(
        dtype='float32', shape=['texts', 'videos']
    )
    said = {'metadata.json': ''}
    torch.export.load(file.path, extra_files=said)
    assert json.loads(said['metadata.json']) == file.metadata
    assert file.metadata['bytes_per_pair'] == head.bytes_per_pair(False)


def test_a_compiled_head() -> None:
    head = single('EagleNetHead', '', compile_score=True)
    head.compiled_score(
        *states_of(head), None, None
    )  # holds a compiled function
    *_, program = scoring_programs(head, *features(2, 2))
    assert program.module.head.compiled_score is None
    assert head.compiled_score is not None


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('EagleNetHead', dict(noise='pair'), "noise='pair'.*noise='table'"),
        (
            'TMASSHead',
            dict(evaluation='published'),
            "evaluation='published'.*evaluation='pairwise'",
        ),
    ],
)
def test_what_no_file_can_hold(
    tmp_path: Path, name: str, options: dict, message: str
) -> None:
    head = single(name, '', **options)
    with pytest.raises(ValueError, match=message):
        export_scoring(head, tmp_path, *features(2, 2))
    assert list(tmp_path.iterdir()) == []


def test_a_head_that_decides_by_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = single('MeanPoolingHead', '')

    def score(self: Any, text: Any, video: Any) -> Tensor:
        scores = text.embeds @ video.embeds.T
        return scores if float(scores.sum()) > 0 else -scores

    monkeypatch.setattr(type(head), 'score', score)
    with pytest.raises(ValueError, match='cannot trace scoring'):
        export_scoring(head, tmp_path, *features(2, 2))
    assert list(tmp_path.iterdir()) == []


def test_a_head_with_a_counter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a file freezes is found by comparing it with the model."""
    head = single('MeanPoolingHead', '')
    calls: list[int] = []

    def score(self: Any, text: Any, video: Any) -> Tensor:
        calls.append(1)
        return text.embeds @ video.embeds.T * len(calls)

    monkeypatch.setattr(type(head), 'score', score)
    with pytest.raises(ValueError, match=r"output 'scores' .* from that"):
        export_scoring(head, tmp_path, *features(2, 2))
    assert list(tmp_path.iterdir()) == []


def test_features_of_another_width(tmp_path: Path) -> None:
    text, video = features(2, 2)
    with pytest.raises(ValueError, match='embed_dim=16'):
        export_scoring(
            single('XPoolHead', ''),
            tmp_path,
            TextFeatures(text.embeds[:, :5]),
            video,
        )
