"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

import eaglenet_mm  # noqa: F401  repairs of the environment come first

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        '--golden-dir',
        type=Path,
        default=None,
        help='folder of golden data; default: ../shared/golden if it is '
        'there, else the excerpts in tests/data/golden',
    )


@pytest.fixture(scope='session')
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope='session')
def shared_dir() -> Path:
    folder = Path(
        os.environ.get('EAGLENET_MM_SHARED', REPOSITORY.parent / 'shared')
    )
    if not folder.is_dir():
        pytest.skip('the shared research data are not on this machine')
    return folder


@pytest.fixture(autouse=True)
def _seed_everything() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  other libraries draw from it
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _fresh_mmengine_globals() -> None:
    """Keep the default scope of one test out of the next."""
    from mmengine.registry import DefaultScope, init_default_scope

    import eaglenet_mm.registry  # noqa: F401

    if DefaultScope.get_current_instance() is None:
        init_default_scope('eaglenet_mm')
    yield
    init_default_scope('eaglenet_mm')
