from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def video_dir(shared_dir: Path) -> Path:
    folder = shared_dir / 'data' / 'videos'
    if not folder.is_dir():
        pytest.skip('the real clips are not on this machine')
    return folder
