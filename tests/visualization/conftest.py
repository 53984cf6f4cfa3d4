from __future__ import annotations

from pathlib import Path

import pytest

from tests.visualization.story_evaluation import write_story


@pytest.fixture(scope='session')
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_story(tmp_path_factory.mktemp('story') / 'story')
