"""One story set for all hooks that show results."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.visualization.story_evaluation import write_story


@pytest.fixture(scope='package')
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_story(tmp_path_factory.mktemp('story') / 'story')


@pytest.fixture
def own_story(story: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(story, tmp_path / 'story')
