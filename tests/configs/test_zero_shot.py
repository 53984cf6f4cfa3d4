"""Configs that search without a checkpoint, with weights made small."""

from __future__ import annotations

import importlib.util
import json
import time
from pathlib import Path

import open_clip
import pytest
import torch
from mmengine.config import Config
from torch.nn.functional import normalize

from eaglenet_mm.apis import load_retriever
from eaglenet_mm.config import open_config
from eaglenet_mm.datasets.transforms import HuggingFaceTokenizer
from eaglenet_mm.registry import TRANSFORMS
from eaglenet_mm.utils import downloads
from eaglenet_mm.utils.downloads import DownloadError
from tests.models.encoders.model_folder import write_hub_cache

SIDE, WIDTH = 32, 16
SIDES = ('text', 'video')
CLIP = dict(
    embed_dim=WIDTH,
    quick_gelu=True,
    vision_cfg=dict(
        layers=1, width=64, head_width=64, patch_size=16, image_size=SIDE
    ),
    text_cfg=dict(
        context_length=77, vocab_size=49408, width=64, heads=1, layers=1
    ),
)
SIGLIP = dict(
    embed_dim=64,
    vision_cfg=dict(
        image_size=SIDE,
        timm_model_name='test_vit',
        timm_model_pretrained=False,
        timm_pool='map',
        timm_proj='none',
    ),
    text_cfg=dict(
        context_length=64,
        vocab_size=40,
        width=16,
        heads=2,
        layers=1,
        no_causal_mask=True,
        proj_bias=True,
        pool_type='last',
    ),
)


def check_scores(cfg: Config, reference: torch.nn.Module) -> None:
    """Scores are cosines of the reference's texts and mean frames."""
    model = load_retriever(cfg, None, 'cpu')
    assert model.untrained == []
    (tokenize,) = [
        TRANSFORMS.build(transform)
        for transform in cfg.test_dataloader.dataset.pipeline
        if transform['type'] == 'TokenizeCaptions'
    ]
    captions = ['a red square', 'a dog runs into the sea']
    ids = tokenize(dict(captions=captions))['token_ids']
    frames = torch.randn(3, cfg.num_frames, 3, SIDE, SIDE)
    mask = torch.ones(3, cfg.num_frames, dtype=torch.bool)
    with torch.no_grad():
        found = model.head(
            model.encode_text(ids), model.encode_video(frames, mask)
        )
        text = normalize(reference.encode_text(ids), dim=-1)
        video = normalize(reference.encode_image(frames.flatten(0, 1)), dim=-1)
        video = normalize(video.unflatten(0, (3, -1)).mean(1), dim=-1)
    torch.testing.assert_close(found, text @ video.T)


def test_clip(tmp_path: Path) -> None:
    arch = {**CLIP, 'text_cfg': {**CLIP['text_cfg'], 'context_length': 32}}
    reference = open_clip.model.CLIP(**CLIP).eval()
    torch.save(reference.state_dict(), tmp_path / 'clip.pt')
    cfg = open_config(
        'mean_pooling_msrvtt',
        {
            f'model.{side}_encoder.pretrained': str(tmp_path / 'clip.pt')
            for side in SIDES
        },
    )
    for side in SIDES:
        cfg.model[f'{side}_encoder'].arch = CLIP
    short = open_clip.model.CLIP(**arch).eval()
    state = reference.state_dict()
    state['positional_embedding'] = state['positional_embedding'][:32]
    short.load_state_dict(state)
    check_scores(cfg, short)


@pytest.mark.skipif(
    importlib.util.find_spec('transformers') is None,
    reason='needs transformers',
)
def test_siglip2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = open_clip.model.CustomTextCLIP(**SIGLIP).eval()
    torch.save(reference.state_dict(), tmp_path / 'siglip.pt')
    folder = tmp_path / 'tokenizer'
    folder.mkdir()
    words = ['<pad>', '<unk>', 'a', 'red', 'square', 'dog', 'runs', 'sea']
    content = dict(
        version='1.0',
        added_tokens=[],
        pre_tokenizer=dict(type='Whitespace'),
        model=dict(
            type='WordLevel',
            vocab={word: number for number, word in enumerate(words)},
            unk_token='<unk>',
        ),
    )
    (folder / 'tokenizer.json').write_text(json.dumps(content))
    about = dict(
        tokenizer_class='PreTrainedTokenizerFast',
        pad_token='<pad>',
        unk_token='<unk>',
    )
    (folder / 'tokenizer_config.json').write_text(json.dumps(about))
    write_hub_cache(tmp_path / 'hub', 'timm/ViT-B-16-SigLIP2', folder)
    monkeypatch.setattr(
        'huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'hub')
    )
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    cfg = open_config('mean_pooling_siglip2_msrvtt')
    for side in SIDES:
        cfg.model[f'{side}_encoder'].backbone = dict(
            type='open_clip',
            arch=SIGLIP,
            pretrained=str(tmp_path / 'siglip.pt'),
        )
    check_scores(cfg, reference)


@pytest.mark.parametrize(
    ('name', 'keys'),
    [
        ('mean_pooling_msrvtt', ''),
        ('mean_pooling_siglip2_msrvtt', 'backbone.'),
    ],
)
def test_without_network(
    name: str, keys: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Soon, and with the keys to set, also where nothing ever answers."""
    monkeypatch.setattr(
        'huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path)
    )
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', False)
    monkeypatch.setattr('socket.getaddrinfo', lambda *_, **__: time.sleep(60))
    monkeypatch.setattr(downloads, 'SECONDS', 0.2)
    cfg = open_config(name)
    begin = time.monotonic()
    with pytest.raises(DownloadError) as caught:
        load_retriever(cfg, None)
    assert time.monotonic() - begin < 20
    for side in SIDES:
        key = f'model.{side}_encoder.{keys}pretrained=/path/to/open_clip_'
        assert key in str(caught.value)


def test_a_tokenizer_without_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip('transformers')
    monkeypatch.setattr(
        'huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path)
    )
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    with pytest.raises(DownloadError, match='hf download owner/name'):
        HuggingFaceTokenizer('hf-hub:owner/name')
