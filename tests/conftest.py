"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import eaglenet_mm  # noqa: F401  repairs of the environment come first
from tests.started import save_time

REPOSITORY = Path(__file__).resolve().parents[1]
_GOLDEN: list[tuple[str, float, float]] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        '--golden-dir',
        type=Path,
        default=None,
        help='folder of golden data; default: ../shared/golden if it is '
        'there, else the excerpts in tests/data/golden',
    )
    parser.addoption(
        '--device',
        choices=['cpu', 'cuda'],
        default=None,
        help='where golden tests and those marked gpu compute; default: the '
        'former on the CPU, the latter on CUDA if there is some',
    )
    parser.addoption(
        '--all',
        action='store_true',
        help='run the tests marked nightly too',
    )


def pytest_configure(config: pytest.Config) -> None:
    given = config.getoption('--device')
    if given == 'cuda' and not torch.cuda.is_available():
        raise pytest.UsageError(
            '--device cuda: torch sees no CUDA device. Leave the option out, '
            'or give --device cpu.'
        )


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    if not config.getoption('--all'):
        nightly = [x for x in items if x.get_closest_marker('nightly')]
        items[:] = [x for x in items if not x.get_closest_marker('nightly')]
        if nightly:
            config.hook.pytest_deselected(items=nightly)
    if config.getoption('--device') or torch.cuda.is_available():
        return
    skip = pytest.mark.skip(
        reason='torch sees no CUDA device; --device cpu runs it on the CPU'
    )
    for item in items:
        if item.get_closest_marker('gpu'):
            item.add_marker(skip)


def pytest_collection_finish() -> None:
    save_time()


@pytest.fixture
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Where a test computes, in full float32: cuDNN would take TF32."""
    is_gpu_test = request.node.get_closest_marker('gpu') is not None
    given = request.config.getoption('--device')
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    yield torch.device(given or ('cuda' if is_gpu_test else 'cpu'))
    for backend, value in zip(backends, before, strict=True):
        backend.allow_tf32 = value


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


@pytest.fixture(scope='session')
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small story set; tests read it and leave it as it is."""
    from eaglenet_mm.datasets.story import write_story_dataset

    folder = tmp_path_factory.mktemp('data') / 'story'
    write_story_dataset(folder, limit=8, workers=1)
    return folder


@pytest.fixture(autouse=True)
def _seed_everything() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  other libraries draw from it
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _fresh_mmengine_globals() -> None:
    """Keep the default scope of one test out of the next."""
    from mmengine.logging import MMLogger
    from mmengine.registry import DefaultScope, init_default_scope

    import eaglenet_mm.registry  # noqa: F401

    if DefaultScope.get_current_instance() is None:
        init_default_scope('eaglenet_mm')
    yield
    init_default_scope('eaglenet_mm')
    # a closed log file of one test must not be written to by the next
    MMLogger._instance_dict.clear()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect what golden checks measured, also from worker processes."""
    if report.when == 'call':
        _GOLDEN.extend(
            row for name, row in report.user_properties if name == 'golden'
        )


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the largest relative error of every golden array."""
    if not _GOLDEN:
        return
    largest: dict[str, tuple[float, float]] = {}
    for name, error, tolerance in _GOLDEN:
        if not error < largest.get(name, (-1.0, 0.0))[0]:
            largest[name] = (error, tolerance)
    terminalreporter.section('golden: largest relative error of each array')
    for name, (error, tolerance) in largest.items():
        terminalreporter.line(f'{error:9.2e}  (<= {tolerance:.0e})  {name}')
    worst = max(largest.items(), key=lambda item: item[1][0])
    terminalreporter.line(
        f'{len(largest)} arrays; largest {worst[1][0]:.2e} at {worst[0]}'
    )


@pytest.fixture
def object_storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket on a server that speaks the protocol of S3."""
    server_of = pytest.importorskip('moto.server')
    boto3 = pytest.importorskip('boto3')
    server = server_of.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in dict(
            AWS_ACCESS_KEY_ID='any',
            AWS_SECRET_ACCESS_KEY='any',
            AWS_REGION='us-east-1',
            AWS_ENDPOINT_URL=f'http://{host}:{port}',
            AWS_ALLOW_HTTP='true',
        ).items():
            monkeypatch.setenv(name, value)
        client = boto3.client('s3', region_name='us-east-1')
        client.create_bucket(Bucket='videos')
        yield 's3://videos'
    finally:
        server.stop()
