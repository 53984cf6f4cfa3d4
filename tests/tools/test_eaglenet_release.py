import functools

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint

from eaglenet_mm.registry import MODELS
from tests.models.converters.release_checkpoint import (
    MAX_WORDS,
    model_config,
    release_state_dict,
)


@pytest.fixture
def convert(call_tool):
    return functools.partial(call_tool, 'model_converters/eaglenet_release.py')


@pytest.fixture
def folder(tmp_path):
    torch.save(release_state_dict(), tmp_path / 'release.bin')
    config = Config(dict(model=model_config()))
    config.model.text_encoder.pretrained = 'openai'
    config.dump(tmp_path / 'config.py')
    return tmp_path


def test_without_config(convert, folder, capsys):
    convert(folder / 'release.bin', folder / 'new' / 'ours.pth')
    checkpoint = torch.load(folder / 'new' / 'ours.pth', weights_only=True)
    assert set(checkpoint) == {'state_dict', 'meta'}
    assert checkpoint['meta']['converted_from'] == 'release.bin'
    assert checkpoint['meta']['options']['num_graph_layers'] == 2
    table = checkpoint['state_dict']['text_encoder.tower.positional_embedding']
    assert len(table) == 9
    printed = capsys.readouterr().out
    assert 'graph_type: rgat' in printed
    assert 'converted frame_pe -> head.frame_embedding' in printed
    assert 'dropped clip.logit_scale: CLIP' in printed
    assert [p.name for p in (folder / 'new').iterdir()] == ['ours.pth']


def test_with_config_the_model_is_filled(convert, folder, capsys):
    convert(
        folder / 'release.bin',
        folder / 'ours.pth',
        '--config',
        folder / 'config.py',
    )
    assert 'head.noise_table' in capsys.readouterr().out
    model = MODELS.build(model_config())
    load_checkpoint(model, str(folder / 'ours.pth'))
    release = torch.load(folder / 'release.bin', weights_only=True)
    assert torch.equal(model.head.frame_embedding, release['frame_pe'])
    assert torch.equal(
        model.text_encoder.tower.positional_embedding,
        release['clip.positional_embedding'][:MAX_WORDS],
    )


def test_config_of_another_model(convert, folder):
    other = model_config(frame_embedding=False)
    Config(dict(model=other)).dump(folder / 'other.py')
    with pytest.raises(ValueError, match=r'unexpected: head\.frame_embedding'):
        convert(
            folder / 'release.bin',
            folder / 'ours.pth',
            '--config',
            folder / 'other.py',
        )
    assert not (folder / 'ours.pth').exists()


def test_input_as_output(convert, folder, capsys):
    with pytest.raises(SystemExit):
        convert(folder / 'release.bin', folder / 'release.bin')
    assert 'is the input' in capsys.readouterr().err
    release = torch.load(folder / 'release.bin', weights_only=True)
    assert 'frame_pe' in release
