"""Model folders of open_clip as ``arch``: on this machine, of the Hub."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch

from eaglenet_mm.models import RetrievalDataPreprocessor
from eaglenet_mm.models.encoders import (
    CLIPTextEncoder,
    CLIPVideoEncoder,
    RegisteredEncoder,
    RegisteredTextEncoder,
)
from tests.models.encoders.model_folder import (
    MEAN,
    STD,
    change_config,
    write_hub_cache,
    write_model_folder,
)
from tests.models.encoders.tiny_clip import (
    IMAGE_SIZE,
    pixels,
    reference_clip,
    tiny_arch,
    token_ids,
)


def check(arch: str, reference: torch.nn.Module) -> None:
    """Compare all encoders with open_clip's own features."""
    frames, ids = pixels(), token_ids([3, 5, 9])
    with torch.no_grad():
        images = reference.encode_image(frames.flatten(0, 1))
        images = images.unflatten(0, frames.shape[:2])
        texts = reference.encode_text(ids)
        video = CLIPVideoEncoder(arch, shift_layers=()).eval()
        torch.testing.assert_close(video(frames).frames, images)
        text = CLIPTextEncoder(arch).eval()
        torch.testing.assert_close(text(ids).embeds, texts)
        for backbone in (
            dict(type='open_clip', arch=arch),
            dict(type=f'open_clip.{arch}'),
        ):
            other = RegisteredEncoder(backbone).eval()
            torch.testing.assert_close(other(frames).frames, images)
            assert other.image_size == (IMAGE_SIZE, IMAGE_SIZE)
            assert (other.mean, other.std) == (MEAN, STD)
            words = RegisteredTextEncoder(backbone).eval()
            torch.testing.assert_close(words(ids).embeds, texts)
    assert (video.mean, video.std) == (MEAN, STD)


@pytest.mark.parametrize(
    'safe',
    [
        True,
        *(pytest.param(s, marks=pytest.mark.nightly) for s in (False, 'both')),
    ],
)
def test_folder_on_this_machine(tmp_path: Path, safe: bool | str) -> None:
    folder = write_model_folder(
        tmp_path / 'a.b' / 'mod/el', reference_clip(), safe=safe
    )
    arch = f'local-dir:{folder}'
    check(arch, open_clip.create_model(arch).eval())


def test_weights_under_open_clips_other_names(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / 'm', reference_clip(), safe=False)
    weights = folder / 'open_clip_pytorch_model.bin'
    state = torch.load(weights, weights_only=True)
    weights.unlink()
    state = {f'module.{name}': value for name, value in state.items()}
    torch.save({'state_dict': state, 'epoch': 3}, folder / 'epoch_3.pth')
    arch = f'local-dir:{folder}'
    check(arch, open_clip.create_model(arch).eval())


def test_text_tower_of_its_own(tmp_path: Path) -> None:
    """``custom_text`` puts the text tower's names under ``text.``."""
    arch = {**tiny_arch(), 'custom_text': True}
    model = open_clip.model.CustomTextCLIP(**tiny_arch()).eval()
    folder = write_model_folder(tmp_path / 'm', model, arch)
    name = f'local-dir:{folder}'
    check(name, open_clip.create_model(name).eval())


def test_folder_of_the_hub_without_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_model_folder(tmp_path / 'm', reference_clip())
    cache = tmp_path / 'cache'
    write_hub_cache(cache, 'owner/na.me', folder)
    constants = 'huggingface_hub.constants'
    monkeypatch.setattr(f'{constants}.HF_HUB_CACHE', str(cache))
    monkeypatch.setattr(f'{constants}.HF_HUB_OFFLINE', True)
    arch = 'hf-hub:owner/na.me'
    check(arch, open_clip.create_model(arch).eval())
    with pytest.raises(
        FileNotFoundError, match=r'owner/other.*hf download owner/other'
    ):
        CLIPTextEncoder('hf-hub:owner/other')


def test_config_alone_and_weights_alone(tmp_path: Path) -> None:
    model = reference_clip()
    folder = write_model_folder(tmp_path / 'm', model)
    arch = f'local-dir:{folder}'
    (folder / 'open_clip_model.safetensors').rename(
        tmp_path / 'other.safetensors'
    )
    with pytest.raises(
        FileNotFoundError, match=r'should come with weights.*pretrained=False'
    ):
        CLIPVideoEncoder(arch, shift_layers=())
    random = CLIPVideoEncoder(arch, False, shift_layers=())
    assert not torch.equal(random.tower.proj, model.visual.proj)
    given = CLIPVideoEncoder(
        arch, str(tmp_path / 'other.safetensors'), shift_layers=()
    )
    assert torch.equal(given.tower.proj, model.visual.proj)
    with pytest.raises(FileNotFoundError, match=r"pretrained='openai'"):
        CLIPVideoEncoder(arch, 'openai', shift_layers=())
    with pytest.raises(ValueError, match='got True'):
        CLIPVideoEncoder(arch, True, shift_layers=())


def test_without_pixel_statistics_they_are_clips(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / 'm', reference_clip())
    change_config(folder, preprocess_cfg={})
    encoder = CLIPVideoEncoder(f'local-dir:{folder}', shift_layers=())
    assert encoder.mean == open_clip.OPENAI_DATASET_MEAN
    preprocessor = RetrievalDataPreprocessor(num_frames=3)
    before = preprocessor.mean.clone()
    preprocessor.follow(encoder)
    assert torch.equal(preprocessor.mean, before)


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r'there is no .*nowhere/open_clip_config'
    ):
        CLIPTextEncoder(f'local-dir:{tmp_path}/nowhere')
    folder = write_model_folder(tmp_path / 'm', reference_clip())
    config = folder / 'open_clip_config.json'
    config.write_text(json.dumps({'model_cfg': {'text_cfg': {}}}))
    with pytest.raises(KeyError, match='embed_dim'):
        CLIPTextEncoder(f'local-dir:{folder}')
    config.write_text('{')
    with pytest.raises(
        ValueError, match=r'open_clip_config.json is not valid JSON'
    ):
        CLIPTextEncoder(f'local-dir:{folder}')


def test_slashes_of_plain_names_stay_dashes() -> None:
    encoder = RegisteredTextEncoder(dict(type='open_clip.ViT-S-32-alt'))
    assert encoder.embed_dim == 256
