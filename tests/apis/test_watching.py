"""Keeping an index up to date with folders that change."""

import shutil
import sys
import threading
import time

import pytest

from eaglenet_mm.apis import watching
from eaglenet_mm.apis.index_updating import follow_videos
from eaglenet_mm.apis.watching import watch_videos

pytest.importorskip('watchfiles')


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(watching, 'SETTLED', 0.4)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / 'videos'
    folder.mkdir()
    return folder


class Watcher:
    """What is told of a folder, in another thread."""

    def __init__(self, *videos, **options):
        self.told, self.stop = [], threading.Event()
        self.thread = threading.Thread(target=self.run, args=(videos, options))
        self.thread.start()
        self.wait_for(lambda: self.told)

    def run(self, videos, options):
        for paths in watch_videos(videos, stop=self.stop, **options):
            self.told.append([time.monotonic(), *paths])

    def wait_for(self, condition, seconds=20):
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            time.sleep(0.05)
        assert condition(), self.told

    def wait_for_path(self, path):
        self.wait_for(lambda: any(str(path) in x for x in self.told))

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.stop.set()
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.mark.parametrize('poll', [False, True])
def test_what_is_told(folder, tmp_path, poll):
    with Watcher(folder, poll=poll) as watcher:
        assert watcher.told[0][1:] == []
        (folder / 'notes.txt').touch()
        (folder / '.hidden.mp4').touch()
        (folder / 'a.mp4').write_bytes(b'1')
        watcher.wait_for_path(folder / 'a.mp4')
        # a folder that is moved in, and out again
        (tmp_path / 'other').mkdir()
        (tmp_path / 'other' / 'b.MKV').write_bytes(b'1')
        (tmp_path / 'other').rename(folder / 'other')
        watcher.wait_for_path(folder / 'other' / 'b.MKV')
        watcher.told.clear()
        (folder / 'other').rename(tmp_path / 'other')
        watcher.wait_for_path(folder / 'other')
        (folder / 'a.mp4').unlink()
        watcher.wait_for_path(folder / 'a.mp4')
        every = {path for told in watcher.told for path in told[1:]}
        assert not any('notes' in x or 'hidden' in x for x in every)


def test_a_file_that_is_being_written_is_waited_for(folder):
    with Watcher(folder) as watcher:
        (folder / 'short.mp4').write_bytes(b'1')
        with open(folder / 'long.mp4', 'wb') as file:
            for _ in range(20):
                file.write(b'1')
                file.flush()
                time.sleep(0.1)
            end = time.monotonic()
        watcher.wait_for_path(folder / 'long.mp4')
        when = {
            path: told[0]
            for told in reversed(watcher.told)
            for path in told[1:]
        }
        assert when[str(folder / 'long.mp4')] > end
        assert when[str(folder / 'short.mp4')] < end


def test_one_file_by_its_name(folder):
    named = folder / 'named without an ending'
    named.touch()
    with Watcher(named) as watcher:
        (folder / 'other.mp4').touch()
        (folder / 'new').write_bytes(b'12')
        (folder / 'new').replace(named)
        watcher.wait_for_path(named)
        assert not any(str(folder / 'other.mp4') in x for x in watcher.told)


def test_without_the_package(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, 'watchfiles', None)
    with pytest.raises(ImportError, match=r'eaglenet_mm\[watch\]'):
        next(watch_videos([folder]))


@pytest.mark.parametrize('prune', [False, True])
def test_an_index_follows(inferencer, videos, folder, prune):
    shutil.copy(videos[0], folder / 'first.mp4')
    index = inferencer.new_index()
    inferencer.use(index)
    stop, reports = threading.Event(), []

    def change():
        follow = [
            lambda: shutil.copy(videos[1], folder / 'second.mp4'),
            lambda: shutil.copy(videos[2], folder / 'second.mp4'),
            lambda: (folder / 'broken.mp4').write_bytes(b'no video'),
            lambda: (folder / 'first.mp4').unlink(),
        ]
        for number, make in enumerate(follow, start=1):
            end = time.monotonic() + 30
            while len(reports) < number and time.monotonic() < end:
                time.sleep(0.05)
            make()
        while len(reports) < 5 and time.monotonic() < end:
            time.sleep(0.05)
        stop.set()

    changer = threading.Thread(target=change)
    changer.start()
    for report in follow_videos(
        inferencer, [str(folder)], tags=['x'], prune=prune, stop=stop
    ):
        reports.append(report)
    changer.join()
    first, second, broken = (
        str(folder / f'{name}.mp4') for name in ('first', 'second', 'broken')
    )
    assert [report.added for report in reports] == [
        [first], [second], [], [broken], []
    ]  # fmt: skip
    assert reports[2].updated == [second]
    assert list(reports[3].unreadable) == [broken]
    assert reports[4].gone == [first]
    kept = set() if prune else {first}
    assert set(index.files) == {second, broken} | kept
    assert all(file.tags == ('x',) for file in index.files.values())
