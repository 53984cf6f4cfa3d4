"""The converter of other methods, and a test of what it writes."""

import json
import pickle

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from eaglenet_mm.models.converters import METHODS
from eaglenet_mm.registry import MODELS
from eaglenet_mm.utils.safe_checkpoint import UnsafeCheckpointError
from tests.models.converters.baseline_checkpoint import (
    MAX_WORDS,
    NUM_FRAMES,
    model_config,
    release_state_dict,
)
from tests.some_cases import mostly_nightly

TOOL = 'model_converters/baseline_release.py'


@pytest.fixture
def write_config(tmp_path):
    """Write a config with the model of a method and random videos."""

    def write(method):
        model = model_config(method)
        model['text_encoder']['pretrained'] = 'openai'
        model['data_preprocessor'] = dict(
            type='RetrievalDataPreprocessor', num_frames=NUM_FRAMES
        )
        path = tmp_path / f'{method}.py'
        Config(
            dict(
                default_scope='eaglenet_mm',
                custom_imports=dict(imports=['mini_videos']),
                model=model,
                test_dataloader=dict(
                    batch_size=2,
                    num_workers=0,
                    dataset=dict(type='mmengine.MiniVideos', words=MAX_WORDS),
                    sampler=dict(type='DefaultSampler', shuffle=False),
                    collate_fn=dict(type='pseudo_collate'),
                ),
                test_cfg=dict(type='RetrievalTestLoop'),
                test_evaluator=dict(type='RetrievalRankMetric'),
            )
        ).dump(path)
        return path

    return write


@pytest.mark.parametrize(
    'method', mostly_nightly(METHODS, 't_mass', 'ts2_net')
)
def test_a_converted_checkpoint_is_tested(
    call_tool, write_config, tmp_path, capsys, method
):
    release, ours = tmp_path / 'release.bin', tmp_path / 'new' / 'ours.pth'
    weights = release_state_dict(method)
    torch.save(dict(epoch=4, state_dict=weights, optimizer={}), release)
    config = write_config(method)
    call_tool(TOOL, method, release, ours, '--config', config)
    printed = capsys.readouterr().out
    assert 'converted clip.' in printed
    assert f'tensors written: {ours}' in printed
    meta = torch.load(ours, weights_only=True)['meta']
    assert meta['method'] == method
    assert meta['converted_from'] == 'release.bin'
    folder, dump = tmp_path / 'tested', tmp_path / 'scores.pkl'
    call_tool('test.py', config, ours, '--work-dir', folder, '--dump', dump)
    metrics = json.loads((folder / 'metrics.json').read_text())['metrics']
    assert 0 <= metrics['t2v/R1'] <= metrics['t2v/R5'] == 100
    with dump.open('rb') as file:  # written a moment ago by ourselves
        rows = pickle.load(file)
    scores = torch.stack([torch.as_tensor(row['scores']) for row in rows])
    torch.testing.assert_close(scores, expected_scores(ours, config))


def expected_scores(checkpoint, path):
    """Scores of a model that is filled by hand."""
    import mini_videos

    config = Config.fromfile(path)
    config.model.text_encoder.pretrained = None
    model = MODELS.build(config.model).eval()
    state = torch.load(checkpoint, weights_only=True)['state_dict']
    model.load_state_dict(state, strict=True)
    batch = pseudo_collate(mini_videos.MiniVideos(MAX_WORDS).items)
    with torch.no_grad():
        inputs = model.data_preprocessor(batch)['inputs']
        video = model.encode_video(inputs['pixels'], inputs['frame_mask'])
        text = model.encode_text(inputs['token_ids'])
        return model.head.score_chunked(
            model.head.prepare_text(text), model.head.prepare_video(video)
        )


def test_without_config(call_tool, tmp_path, capsys):
    release, ours = tmp_path / 'release.bin', tmp_path / 'ours.pth'
    torch.save(release_state_dict('t_mass'), release)
    call_tool(TOOL, 't_mass', release, ours)
    printed = capsys.readouterr().out
    assert 'dropped stochastic.std_branch.learnable_scalar: never' in printed
    assert ours.is_file()


def test_a_start_from_clip(call_tool, write_config, tmp_path, capsys):
    release, ours = tmp_path / 'clip.bin', tmp_path / 'ours.pth'
    torch.save(release_state_dict('clip4clip_mean'), release)
    config = write_config('x_pool')
    arguments = ('x_pool', release, ours, '--config', config)
    with pytest.raises(ValueError, match='add --initialise-from-clip'):
        call_tool(TOOL, *arguments)
    assert not ours.exists()
    call_tool(TOOL, *arguments, '--initialise-from-clip')
    printed = capsys.readouterr().out
    assert 'added head.pooling.query.weight: init' in printed


def test_bad_files(call_tool, tmp_path, capsys):
    release, ours = tmp_path / 'module.bin', tmp_path / 'ours.pth'
    torch.save(torch.nn.Linear(2, 2), release)
    with pytest.raises(UnsafeCheckpointError, match='Linear'):
        call_tool(TOOL, 'x_pool', release, ours)
    assert not ours.exists()
    with pytest.raises(SystemExit):
        call_tool(TOOL, 'x_pool', release, release)
    assert 'is the input' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        call_tool(TOOL, 'xpool', release, ours)
    assert 'clip4clip_tight' in capsys.readouterr().err
