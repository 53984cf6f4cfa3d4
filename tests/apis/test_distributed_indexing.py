"""Indexing by the workers of a local Ray of two cores."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from eaglenet_mm.apis import distributed_indexing
from eaglenet_mm.apis.distributed_indexing import RayIndexer, connected
from eaglenet_mm.search.errors import OtherModelError, VideoIndexError
from eaglenet_mm.search.video_index import VideoIndex

pytest.importorskip('lance')
ray = pytest.importorskip('ray')


@pytest.fixture(autouse=True)
def one_thread():
    """As workers of one core; more threads add up in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope='module')
def cluster():
    with connected('local', 'a.lance') as indexer:
        yield indexer


@pytest.fixture
def folder(videos, tmp_path):
    folder = tmp_path / 'videos'
    folder.mkdir()
    for path in videos[:12]:
        shutil.copy(path, folder)
    (folder / 'broken.mp4').write_bytes(b'no video')
    return folder


@pytest.fixture
def small_tasks(monkeypatch):
    monkeypatch.setattr(distributed_indexing, 'FILES_OF_A_TASK', 2)


def listed(folder):
    return sorted(map(str, folder.iterdir()))


def content(index):
    """All that an index holds, by path; numbers of rows apart."""
    found = {}
    for path, file in index.files.items():
        ids = index.store.ids_of(path)
        rows = index.store.take(ids.tolist(), thumbnails=True)
        for row, vector in zip(
            rows, index.store.vectors(ids.tolist()), strict=True
        ):
            row.vector = vector
        found[path] = file, rows
    return found


def plain_index(inferencer, folder):
    index = inferencer.new_index()
    inferencer.update(index, listed(folder))
    return content(index)


def workers():
    """Processes of Ray's workers that have loaded the model."""
    found = []
    for entry in Path('/proc').iterdir():
        try:
            words = (entry / 'cmdline').read_bytes()
        except OSError:
            continue
        if words.startswith(b'ray::EncodingWorker'):
            found.append(int(entry.name))
    return found


def test_rows_are_those_of_one_machine(
    cluster, inferencer, folder, tmp_path, small_tasks
):
    index = inferencer.new_index(tmp_path / 'a.lance')
    report = inferencer.update(index, listed(folder), indexer=cluster)
    broken = str(folder / 'broken.mp4')
    assert list(report.unreadable) == [broken]
    assert report.added == listed(folder)
    assert content(index) == plain_index(inferencer, folder)
    # the driver knows what workers have done
    again = inferencer.update(index, listed(folder), indexer=cluster)
    assert (again.unchanged, again.added) == (len(report.added), [])
    # what changes is replaced, with its tags
    changed, other = listed(folder)[1:3]
    index.set_tags([changed], ['kept'])
    shutil.copy(other, changed)
    shutil.copy(other, broken)
    report = inferencer.update(index, listed(folder), indexer=cluster)
    assert report.updated == sorted([changed, broken])
    assert index.files[changed].tags == ('kept',)
    index.set_tags([changed], [])
    assert content(index) == plain_index(inferencer, folder)
    assert index.store.verify() == {}


@pytest.mark.nightly
def test_a_worker_that_is_killed(
    cluster, inferencer, folder, tmp_path, small_tasks
):
    index = inferencer.new_index(tmp_path / 'a.lance')
    done = threading.Event()
    killed = []

    def kill():
        while not done.is_set() and len(killed) < 2:
            for process in workers():
                if process not in killed:
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)
                    break
            time.sleep(0.2)

    killer = threading.Thread(target=kill)
    killer.start()
    inferencer.update(index, listed(folder), indexer=cluster)
    done.set()
    killer.join()
    assert killed
    assert content(index) == plain_index(inferencer, folder)
    assert index.store.verify() == {}


class Thing(SimpleNamespace):
    __hash__ = object.__hash__


class DyingRay:
    """What indexing asks of Ray, in this process; some files kill workers."""

    def __init__(self, words='it was killed'):
        self.words, self.started = words, 0

    def cluster_resources(self):
        return {'CPU': 2.0}

    def remote(self, **resources):
        assert resources == dict(num_cpus=1, num_gpus=0)

        def make(kind):
            def start(*arguments, **settings):
                self.started += 1
                actor = Thing(own=kind(*arguments, **settings))
                actor.encode = Thing(
                    remote=lambda files: Thing(own=actor.own, files=files)
                )
                return actor

            return Thing(remote=start)

        return make

    def wait(self, results, num_returns):
        return results[:1], results[1:]

    def get(self, result):
        if any('deadly' in file.path for file in result.files):
            raise ray.exceptions.RayActorError(error_msg=self.words)
        return result.own.encode(result.files)

    def kill(self, actor):
        pass


class TestDyingWorkers:
    @pytest.fixture
    def dying(self, monkeypatch):
        dying = DyingRay()
        dying.exceptions = ray.exceptions
        monkeypatch.setitem(sys.modules, 'ray', dying)
        return dying

    def test_a_file_that_workers_die_of(
        self, dying, inferencer, folder, tmp_path, small_tasks
    ):
        deadly = folder / 'deadly.mp4'
        shutil.copy(listed(folder)[1], deadly)
        index = inferencer.new_index(tmp_path / 'a.lance')
        report = inferencer.update(index, listed(folder), indexer=RayIndexer)
        assert list(report.unreadable) == [
            str(folder / 'broken.mp4'),
            str(deadly),
        ]
        assert 'died' in report.unreadable[str(deadly)]
        found = content(index)
        assert found.pop(str(deadly))[1] == []
        deadly.unlink()
        assert found == plain_index(inferencer, folder)
        again = inferencer.update(index, listed(folder), indexer=RayIndexer)
        assert not again.added + again.updated

    @pytest.mark.parametrize('words', ['no more memory', 'its creation task'])
    def test_workers_that_all_die(
        self, dying, inferencer, folder, tmp_path, small_tasks, words
    ):
        """Files are not to blame then, and what was finished stays."""
        for number in range(20):
            (folder / f'deadly{number}.mp4').touch()
        dying.words = f'The actor died in {words}\nthe last line'
        index = inferencer.new_index(tmp_path / 'a.lance')
        with pytest.raises(VideoIndexError, match='the last line'):
            inferencer.update(index, listed(folder), indexer=RayIndexer)
        assert not any('deadly' in path for path in index.files)


@pytest.mark.nightly
def test_another_model_on_a_worker(cluster, inferencer, folder, tmp_path):
    index = inferencer.new_index(tmp_path / 'a.lance')
    content = torch.load(inferencer.encoder.weights)
    own = shutil.copy(inferencer.encoder.weights, tmp_path / 'weights.pth')
    name = next(x for x in content['state_dict'] if 'video_encoder' in x)
    content['state_dict'][name] += 1.0
    torch.save(content, own)
    before = inferencer.encoder.weights
    inferencer.encoder.weights = str(own)
    try:
        with pytest.raises((VideoIndexError, OtherModelError), match='model'):
            inferencer.update(index, listed(folder), indexer=cluster)
    finally:
        inferencer.encoder.weights = before
    assert len(index) == 0


@pytest.mark.nightly
@pytest.mark.parametrize('kind', [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_ends(
    inferencer, weights, folder, tmp_path, repository, kind
):
    """What was committed stays, and the same command goes on."""
    where = tmp_path / 'a.lance'
    config = str(repository / 'configs/eaglenet_story.py')
    code = f"""
import sys
from eaglenet_mm.apis import distributed_indexing
distributed_indexing.FILES_OF_A_TASK = 1
distributed_indexing.SECONDS_OF_A_COMMIT = 0.0
sys.argv = ['index.py', {str(folder)!r}, '--out', {str(where)!r}, '--ray',
            'local', '--config', {config!r}, '--checkpoint', {weights!r},
            '--workers', '0']
import runpy
runpy.run_path({str(repository / 'tools/index.py')!r}, run_name='__main__')
"""
    environment = {**os.environ, 'PYTHONPATH': str(repository)}

    def start():
        return subprocess.Popen(
            [sys.executable, '-c', code],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    driver = start()
    while driver.poll() is None:
        try:
            if VideoIndex.load(where).files:
                break
        except FileNotFoundError:
            time.sleep(0.1)
    driver.send_signal(kind)
    told = driver.communicate(timeout=120)[0]
    assert driver.returncode == (130 if kind == signal.SIGINT else -9), told
    index = VideoIndex.load(where)
    before = content(index)
    assert index.store.verify() == {}
    assert before
    driver = start()
    told = driver.communicate(timeout=300)[0]
    assert driver.returncode == 0, told
    found = content(VideoIndex.load(where))
    assert found == plain_index(inferencer, folder)
    assert before.items() <= found.items()


@pytest.mark.nightly
def test_object_storage(
    object_storage, inferencer, weights, folder, repository, monkeypatch
):
    """The tool, with two workers."""
    where = f'{object_storage}/index'
    monkeypatch.setenv('PYTHONPATH', str(repository))
    subprocess.run(
        [
            sys.executable, repository / 'tools/index.py', folder,
            '--out', where, '--ray', 'local',
            '--config', repository / 'configs/eaglenet_story.py',
            '--checkpoint', weights, '--workers', '0',
        ],
        check=True,
    )  # fmt: skip
    index = VideoIndex.load(where)
    assert content(index) == plain_index(inferencer, folder)
    assert index.store.verify() == {}


def test_no_ray_can_be_reached(tmp_path, monkeypatch):
    begin = time.monotonic()
    with (
        pytest.raises(ConnectionError, match='ray start --head'),
        connected('127.0.0.1:1', tmp_path / 'a.lance'),
    ):
        pass
    with (
        pytest.raises(VideoIndexError, match=r'\.lance'),
        connected('auto', tmp_path / 'a.index'),
    ):
        pass
    assert time.monotonic() - begin < 10
    monkeypatch.setitem(sys.modules, 'ray', None)
    with (
        pytest.raises(ImportError, match=r'eaglenet_mm\[ray\]'),
        connected('auto', tmp_path / 'a.lance'),
    ):
        pass
    assert RayIndexer.__doc__
