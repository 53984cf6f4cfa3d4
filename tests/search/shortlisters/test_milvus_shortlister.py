"""The first stage in a database: what stays, what must not mix, errors."""

from __future__ import annotations

import multiprocessing
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from eaglenet_mm.search.shortlisters import (
    MilvusShortlister,
    build_shortlister,
    milvus_connection,
    milvus_shortlister,
)
from tests.search.shortlisters.conftest import need, serve
from tests.search.shortlisters.reference import (
    WIDTH,
    brute_force,
    coarse_vectors,
)

_OTHER_PROCESS = """
import sys, torch
from eaglenet_mm.search.shortlisters import build_shortlister
shortlister = build_shortlister(
    'milvus', embed_dim=8, num_rows=9, folder=sys.argv[1], model='abc'
)
{body}
shortlister.close()
"""


@pytest.fixture(autouse=True)
def _packages() -> None:
    need('milvus')


def embedded(folder: Path, **options: Any) -> MilvusShortlister:
    options = dict(dict(model='abc', folder=str(folder)), **options)
    return MilvusShortlister(WIDTH, **options)


def in_other_process(folder: Path, body: str) -> str:
    done = subprocess.run(
        [sys.executable, '-c', _OTHER_PROCESS.format(body=body), folder],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.nightly
def test_rows_stay_between_processes(tmp_path: Path) -> None:
    torch.manual_seed(1)
    vectors = coarse_vectors(40)
    in_other_process(
        tmp_path,
        'torch.manual_seed(1)\n'
        'vectors = torch.randint(-1, 2, (40, 8)).float() / 4\n'
        'shortlister.add(torch.arange(40), vectors)\n'
        'shortlister.remove(torch.tensor([3, 4]))\n',
    )
    held = dict(enumerate(vectors))
    del held[3], held[4]

    with_rows = embedded(tmp_path)

    query = coarse_vectors(2)
    assert with_rows.row_ids().tolist() == sorted(held)
    scores, row_ids = with_rows.search(query, 9)
    assert (scores.tolist(), row_ids.tolist()) == brute_force(held, query, 9)
    # rows that came back from the disk can be removed, and stay so
    with_rows.remove(torch.tensor([0]))
    with_rows.close()
    found = in_other_process(
        tmp_path, 'print(len(shortlister), shortlister.row_ids()[0])'
    )
    assert '37 tensor(1)' in found


@pytest.mark.nightly
def test_one_process_at_a_time_may_open_it(tmp_path: Path) -> None:
    first = embedded(tmp_path)

    found = in_other_process(tmp_path, '')

    assert 'ConnectionError: The embedded database' in found
    assert 'close the other' in found
    first.close()
    assert 'Error' not in in_other_process(tmp_path, '')


@pytest.mark.nightly
def test_what_is_forked_after_a_search_has_no_client(tmp_path: Path) -> None:
    """gRPC has threads, and complains of a fork or stops."""
    told = in_other_process(
        tmp_path,
        'from eaglenet_mm.datasets.isolated_workers import run_isolated\n'
        'shortlister.add(torch.arange(9), torch.zeros(9, 8))\n'
        'shortlister.search(torch.zeros(1, 8), 3)\n'
        'for _ in run_isolated(abs, [-1] * 9, num_workers=3, time_limit=60):\n'
        '    len(shortlister)\n'
        'print({"grpc", "pymilvus", "milvus_lite"}.intersection(sys.modules))',
    )

    assert told == 'set()\n'


def client_process(shortlister: MilvusShortlister) -> subprocess.Popen:
    return shortlister._connection._process._end.peek()[2][0]


@pytest.mark.nightly
def test_a_fork_does_not_hold_the_database_open(tmp_path: Path) -> None:
    shortlister = embedded(tmp_path)
    process = client_process(shortlister)
    context = multiprocessing.get_context('fork')
    end = context.Event()
    fork = context.Process(target=end.wait)
    fork.start()

    shortlister.close()

    assert process.returncode == 0  # and not that of a kill
    end.set()
    fork.join()


@pytest.mark.nightly
def test_a_client_that_dies_is_replaced(tmp_path: Path) -> None:
    shortlister = embedded(tmp_path)
    shortlister.add(torch.arange(3), coarse_vectors(3))
    client_process(shortlister).kill()

    with pytest.raises(ConnectionError, match='of its client died'):
        len(shortlister)

    assert len(shortlister) == 3
    shortlister.close()


@pytest.mark.nightly
def test_an_interrupted_call_leaves_no_answer_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shortlister = embedded(tmp_path)
    shortlister.add(torch.arange(3), coarse_vectors(3))

    def interrupt(stream: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(milvus_connection.pickle, 'load', interrupt)
        with pytest.raises(KeyboardInterrupt):
            shortlister.row_ids()

    assert len(shortlister) == 3
    shortlister.close()


@pytest.mark.nightly
def test_a_killed_process_leaves_the_database_to_others(
    tmp_path: Path,
) -> None:
    told = in_other_process(
        tmp_path, 'import os, signal; os.kill(os.getpid(), signal.SIGKILL)'
    )
    assert told == ''

    for _ in range(100):
        try:
            shortlister = embedded(tmp_path)
            break
        except ConnectionError:  # until its client has noticed
            time.sleep(0.1)

    shortlister.close()


def test_two_of_one_process_share_it(tmp_path: Path) -> None:
    first, second = embedded(tmp_path), embedded(tmp_path, model='other')
    first.add(torch.arange(3), coarse_vectors(3))
    second.add(torch.arange(5), coarse_vectors(5))

    first.close()

    assert len(second) == 5  # another model, another collection
    third = embedded(tmp_path)
    assert len(third) == 3
    second.close()
    third.close()
    with pytest.raises(ValueError, match='was closed'):
        len(third)


@pytest.mark.nightly
def test_refuses_a_collection_of_others(tmp_path: Path) -> None:
    mine = embedded(tmp_path, collection='holidays')
    mine.add(torch.arange(3), coarse_vectors(3))

    with pytest.raises(ValueError, match='vectors of another model'):
        embedded(tmp_path, collection='holidays', model='other')
    with pytest.raises(ValueError, match='of width 8, not 9'):
        MilvusShortlister(
            9, folder=str(tmp_path), collection='holidays', model='abc'
        )

    assert len(mine) == 3
    mine.close()


@pytest.mark.nightly
def test_more_rows_come_back_than_a_search_gives(tmp_path: Path) -> None:
    first = embedded(tmp_path)
    first.add(torch.arange(17_000), torch.zeros(17_000, WIDTH))
    first.close()

    second = embedded(tmp_path)

    assert second.row_ids().tolist() == list(range(17_000))
    second.close()


@pytest.mark.nightly
def test_synchronise_notices_vectors_of_another_index(
    tmp_path: Path,
) -> None:
    vectors, other = coarse_vectors(50), coarse_vectors(50)
    shortlister = embedded(tmp_path)
    shortlister.synchronise(torch.arange(50), lambda rows: vectors[rows])
    shortlister.synchronise(torch.arange(40), lambda rows: vectors[rows])
    shortlister.close()
    shortlister = embedded(tmp_path)

    with pytest.raises(ValueError, match='not those of the index'):
        shortlister.synchronise(torch.arange(40), lambda rows: other[rows])

    shortlister.close()


@pytest.mark.nightly
def test_a_server_keeps_the_rows_of_an_index(
    tmp_path: Path, milvus_server: str
) -> None:
    def connect(folder: str | None, model: str = 'abc') -> Any:
        return build_shortlister(
            f'milvus:{milvus_server}',
            embed_dim=WIDTH,
            num_rows=9,
            folder=folder,
            model=model,
        )

    first = connect(str(tmp_path / 'first'))
    assert first.index_type == 'AUTOINDEX'
    assert not first.exact
    first.add(torch.arange(6), coarse_vectors(6))
    second = connect(str(tmp_path / 'first'))  # another client, same index
    assert len(second) == 6
    second.remove(torch.tensor([0]))
    assert first.row_ids().tolist() == [1, 2, 3, 4, 5]
    for other in (
        connect(str(tmp_path / 'other')),
        connect(str(tmp_path / 'first'), model='def'),
    ):
        assert len(other) == 0
        other.close()
    first.close()
    second.close()
    again = connect(str(tmp_path / 'first'))
    assert len(again) == 5
    again.close()


@pytest.mark.nightly
def test_rows_of_no_index_are_dropped(milvus_server: str) -> None:
    first = MilvusShortlister(WIDTH, uri=milvus_server)
    first.add(torch.arange(3), coarse_vectors(3))
    name = first.collection
    first.close()

    second = MilvusShortlister(WIDTH, uri=milvus_server)

    assert second.collection != name
    second.collection = name
    assert not second._call('has_collection')
    second.close()


def test_an_unreachable_server_is_named() -> None:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        address = f'http://127.0.0.1:{free.getsockname()[1]}'

    with pytest.raises(ConnectionError, match=f'answers at {address}'):
        MilvusShortlister(WIDTH, uri=address, timeout=1)


@pytest.mark.nightly
def test_a_server_that_went_away_is_named(tmp_path: Path) -> None:
    with serve(tmp_path / 'data') as address:
        shortlister = MilvusShortlister(
            WIDTH, uri=address, collection='a', timeout=2
        )
        shortlister.add(torch.arange(3), coarse_vectors(3))

    with pytest.raises(ConnectionError, match=f'Milvus at {address} did not'):
        shortlister.search(coarse_vectors(1), 2)

    shortlister.close()


@pytest.mark.nightly
def test_refuses_more_rows_than_milvus_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus_shortlister, 'MAX_COUNT', 20)
    vectors: Tensor = coarse_vectors(30)
    shortlister = embedded(tmp_path)
    shortlister.add(torch.arange(20), vectors[:20])
    assert shortlister.search(vectors[:1], 99)[0].shape == (1, 20)
    shortlister.add(torch.arange(20, 30), vectors[20:])

    with pytest.raises(ValueError, match='at most, but 30 were asked for'):
        shortlister.search(vectors[:1], 99)

    assert shortlister.row_ids().tolist() == list(range(30))
    shortlister.close()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(uri='localhost:19530'), 'as http://host:19530, not'),
        (dict(model='no/name'), 'letters, digits and underscores'),
    ],
)
def test_refuses_options(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MilvusShortlister(WIDTH, **options)


@pytest.mark.parametrize('package', ['pymilvus', 'milvus_lite'])
def test_without_a_package_says_what_to_install(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(ImportError, match=r'eaglenet_mm\[milvus\]'):
        MilvusShortlister(WIDTH)
