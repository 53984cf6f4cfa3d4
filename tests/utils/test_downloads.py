"""Downloads that cannot succeed end soon and say what to set."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from eaglenet_mm.models.encoders.backbones import build_backbone
from eaglenet_mm.utils import downloads
from eaglenet_mm.utils.downloads import (
    DownloadError,
    fetch_from_hub,
    naming_keys,
    require_server,
)
from eaglenet_mm.utils.safe_checkpoint import load_checkpoint_url


@pytest.fixture
def server() -> Iterator[str]:
    """A server that knows no page."""
    handler = http.server.BaseHTTPRequestHandler
    with http.server.HTTPServer(('127.0.0.1', 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f'http://127.0.0.1:{running.server_port}/page'
        running.shutdown()


def test_an_error_is_an_answer(server: str) -> None:
    require_server(server)


def test_a_server_that_refuses(tmp_path: Path) -> None:
    url = 'http://127.0.0.1:1/weights.pth'
    with pytest.raises(DownloadError, match=r'127\.0\.0\.1:1') as caught:
        load_checkpoint_url(url, str(tmp_path))
    assert str(tmp_path / 'weights.pth') in str(caught.value)
    assert caught.value.setting == url


def test_a_name_that_is_looked_up_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr('socket.getaddrinfo', lambda *_, **__: time.sleep(60))
    monkeypatch.setattr(downloads, 'SECONDS', 0.1)
    with pytest.raises(ConnectionError, match=r'example\.org.*no response'):
        require_server('https://example.org')


def test_a_cached_file_needs_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.models.encoders.model_folder import write_hub_cache

    folder = tmp_path / 'folder'
    folder.mkdir()
    (folder / 'b.bin').write_text('weights')
    write_hub_cache(tmp_path / 'hub', 'owner/name', folder)
    monkeypatch.setattr(
        'huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'hub')
    )
    monkeypatch.setattr(downloads, 'require_hub', lambda: 1 / 0)
    found = fetch_from_hub('owner/name', ['a.safetensors', 'b.bin'])
    assert Path(found).read_text() == 'weights'
    with pytest.raises(ZeroDivisionError):
        fetch_from_hub('owner/name', ['c.bin'])


@pytest.mark.parametrize('name', ['resnet18', 'resnet18.a1_in1k'])
def test_weights_of_timm(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        'huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path)
    )
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    with pytest.raises(DownloadError, match=f'timm.{name}.*model.safetensors'):
        build_backbone(dict(type=f'timm.{name}', pretrained=True))


def test_keys_of_the_config_are_named() -> None:
    encoder = dict(
        backbone=dict(type='open_clip.hf-hub:a/b.c'),
        init_cfg=[dict(checkpoint='https://x/y.pth')],
    )
    for setting, instead, key in (
        ('hf-hub:a/b.c', 'local-dir:F', 'backbone.type=open_clip.local-dir:F'),
        ('https://x/y.pth', 'F', 'init_cfg.0.checkpoint=F'),
    ):
        with (
            pytest.raises(DownloadError, match=r'^none\. For') as caught,
            naming_keys({'model.video_encoder': encoder}),
        ):
            raise DownloadError('none.', setting, instead)
        assert str(caught.value).endswith(f' model.video_encoder.{key}')
    with (
        pytest.raises(DownloadError, match=r'^none\.$'),
        naming_keys({'model': encoder}),
    ):
        raise DownloadError('none.')
