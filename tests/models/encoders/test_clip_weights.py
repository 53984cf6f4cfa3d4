import pytest
import torch
from safetensors.torch import save_file

from eaglenet_mm.models.encoders import clip_weights
from eaglenet_mm.models.encoders.clip_weights import (
    load_clip_weights,
)
from tests.models.encoders.tiny_clip import openai_archive, reference_clip

ARCH = 'ViT-B-32-quickgelu'


@pytest.fixture
def state_dict():
    return reference_clip().state_dict()


def check(path, state_dict, *, is_openai=False):
    weights = load_clip_weights(str(path), {})
    assert weights.path == str(path)
    assert weights.is_openai is is_openai
    assert set(weights.tensors) == set(state_dict)
    for name, value in state_dict.items():
        assert torch.equal(weights.tensors[name], value)


def test_plain_state_dict(tmp_path, state_dict):
    torch.save(state_dict, tmp_path / 'clip.pt')
    check(tmp_path / 'clip.pt', state_dict)


def test_state_dict_of_a_training_run(tmp_path, state_dict):
    wrapped = {f'module.{k}': v for k, v in state_dict.items()}
    torch.save({'state_dict': wrapped, 'epoch': 3}, tmp_path / 'clip.pt')
    check(tmp_path / 'clip.pt', state_dict)


def test_safetensors(tmp_path, state_dict):
    save_file(dict(state_dict), tmp_path / 'clip.safetensors')
    check(tmp_path / 'clip.safetensors', state_dict)


@pytest.mark.filterwarnings('ignore:.*torch.jit')
def test_archive_of_openai(tmp_path):
    weights = openai_archive(str(tmp_path / 'clip.pt'))
    for name in ('input_resolution', 'context_length', 'vocab_size'):
        del weights[name]
    check(tmp_path / 'clip.pt', weights, is_openai=True)


def test_masks_are_no_weights(tmp_path, state_dict):
    masks = {
        'attn_mask': torch.zeros(9, 9),
        'transformer.resblocks.0.attn_mask': torch.zeros(9, 9),
    }
    torch.save({**state_dict, **masks}, tmp_path / 'clip.pt')
    check(tmp_path / 'clip.pt', state_dict)


def test_state_dict_of_openai(tmp_path, state_dict):
    sizes = dict.fromkeys(
        ('input_resolution', 'context_length', 'vocab_size'), torch.tensor(7)
    )
    torch.save({**state_dict, **sizes}, tmp_path / 'clip.pt')
    check(tmp_path / 'clip.pt', state_dict, is_openai=True)


def test_tag(tmp_path, state_dict, monkeypatch):
    torch.save(state_dict, tmp_path / 'clip.pt')
    asked = []

    def fetch(place, names):
        asked.append(place)
        return str(tmp_path / 'clip.pt')

    monkeypatch.setattr(clip_weights, 'fetch_from_hub', fetch)
    weights = load_clip_weights('openai', 'ViT-B/32-quickgelu')
    assert weights.is_openai
    assert len(asked) == 1
    assert not load_clip_weights('laion400m_e31', ARCH).is_openai


def test_tag_that_cannot_be_fetched(monkeypatch):
    def fetch(place, names):
        raise OSError('no network')

    monkeypatch.setattr(clip_weights, 'fetch_from_hub', fetch)
    with pytest.raises(
        FileNotFoundError, match=r"'openai'.*no network.*its path"
    ):
        load_clip_weights('openai', ARCH)


def test_neither_tag_nor_file():
    with pytest.raises(FileNotFoundError, match=r"'opanai'.*'openai'"):
        load_clip_weights('opanai', ARCH)
    with pytest.raises(FileNotFoundError, match='custom architecture'):
        load_clip_weights('openai', dict(embed_dim=4))


def test_damaged_files(tmp_path):
    (tmp_path / 'a.pt').write_bytes(b'nothing')
    (tmp_path / 'a.safetensors').write_bytes(b'nothing')
    with pytest.raises(ValueError, match=r'a\.pt'):
        load_clip_weights(str(tmp_path / 'a.pt'), ARCH)
    with pytest.raises(ValueError, match=r'a\.safetensors.*safetensors'):
        load_clip_weights(str(tmp_path / 'a.safetensors'), ARCH)


def test_file_that_would_run_code(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / 'module.pt')
    with pytest.raises(ValueError, match='Linear'):
        load_clip_weights(str(tmp_path / 'module.pt'), ARCH)


@pytest.mark.parametrize('content', [[torch.zeros(2)], {}])
def test_no_state_dict(tmp_path, content):
    torch.save(content, tmp_path / 'a.pt')
    with pytest.raises(ValueError, match='not a state dict of tensors'):
        load_clip_weights(str(tmp_path / 'a.pt'), ARCH)


def test_entries_that_are_no_tensors(tmp_path):
    torch.save({'visual.proj': torch.zeros(2), 'lr': 1.0}, tmp_path / 'a.pt')
    with pytest.raises(ValueError, match='lr are not tensors'):
        load_clip_weights(str(tmp_path / 'a.pt'), ARCH)
