"""Every first stage, for one body of tests."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from eaglenet_mm.registry import SHORTLISTERS
from eaglenet_mm.search.shortlisters import Shortlister
from eaglenet_mm.search.shortlisters.milvus_connection import MilvusConnection

KINDS: dict[str, dict[str, Any]] = {
    'torch': dict(type='TorchShortlister'),
    # one query and one panel of 64 rows at once
    'torch-blocks': dict(type='TorchShortlister', memory_budget=1),
    'torch-half': dict(type='TorchShortlister', dtype='float16'),
    'faiss-flat': dict(type='FaissShortlister'),
    # turns into cells within the tests, and goes through all of them
    'faiss-cells': dict(type='FaissShortlister', flat_rows=99, nprobe=10**6),
    'milvus-embedded': dict(type='MilvusShortlister'),
    'milvus-server': dict(type='MilvusShortlister', index_type='FLAT'),
}
_PACKAGES = {'faiss': ['faiss'], 'milvus': ['pymilvus', 'milvus_lite']}

_SERVER = """
import sys
from milvus_lite.adapter.grpc.server import start_server_in_thread
server, database, port = start_server_in_thread(sys.argv[1])
print(port, flush=True)
sys.stdin.read()
server.stop(grace=1).wait()
database.close()
"""

Make = Callable[[int], Shortlister]


def need(kind: str) -> None:
    for package in _PACKAGES.get(kind.partition('-')[0], []):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f'{package} is not installed')


@pytest.fixture(scope='session')
def milvus_server(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """Address of milvus-lite behind its gRPC port; not the real server."""
    need('milvus')
    with serve(tmp_path_factory.mktemp('server') / 'data') as address:
        # while it is open, the others need no process of their own
        connection = MilvusConnection(address)
        yield address
        connection.close()


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Start a server in a process of its own: other tests fork this one."""
    with subprocess.Popen(
        [sys.executable, '-c', _SERVER, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        yield f'http://127.0.0.1:{int(server.stdout.readline())}'


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Make a first stage of a width; it is closed after the test."""
    need(request.param)
    made: list[Shortlister] = []

    def build(width: int) -> Shortlister:
        config = dict(KINDS[request.param], embed_dim=width)
        if request.param == 'milvus-server':
            config['uri'] = request.getfixturevalue('milvus_server')
        if request.param == 'milvus-embedded':
            folder = tmp_path / f'index{len(made)}'
            folder.mkdir()
            config['folder'] = str(folder)
        made.append(SHORTLISTERS.build(config))
        return made[-1]

    yield build
    for shortlister in made:
        shortlister.close()
