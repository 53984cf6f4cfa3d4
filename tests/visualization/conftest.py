from __future__ import annotations

from pathlib import Path

import pytest

from tests.visualization.toy_evaluation import write_toy


@pytest.fixture(scope='session')
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp('toy') / 'toy')
