"""One toy set for all hooks that show results."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.visualization.toy_evaluation import write_toy


@pytest.fixture(scope='package')
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp('toy') / 'toy')


@pytest.fixture
def own_toy(toy: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(toy, tmp_path / 'toy')
