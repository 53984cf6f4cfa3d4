"""tools/index.py and tools/search.py as a user calls them."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from eaglenet_mm.apis import VideoIndex
from eaglenet_mm.apis.index_updating import parse_seconds
from eaglenet_mm.datasets.toy import write_toy_dataset

CONFIG = 'configs/eaglenet_toy.py'


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp('data') / 'toy'
    write_toy_dataset(data, limit=12, renderings=2, workers=1)
    return data / 'videos'


@pytest.fixture
def tool(tell_tool: Callable) -> Callable:
    return tell_tool


@pytest.fixture
def index(tool: Callable, folder: Path, tmp_path: Path) -> Path:
    out = tmp_path / 'index'
    tool('index', folder, '--config', CONFIG, '--untrained', '--out', out)
    return out


def test_from_a_folder_to_hits(
    tool: Callable, index: Path, folder: Path, tmp_path: Path
) -> None:
    count = len(list(folder.iterdir()))
    again = tool('index', folder, '--out', index).stdout
    assert f'0 new, 0 changed, {count} unchanged files' in again
    assert f'{count} videos can be searched' in again
    page = tmp_path / 'hits.html'
    query = 'a red <b>square</b>'
    found = tool('search', index, query, '-k', 3, '--json', '--html', page)
    records = json.loads(found.stdout)
    assert [record['rank'] for record in records] == [1, 2, 3]
    assert all(Path(record['path']).parent == folder for record in records)
    assert all(record['exists'] for record in records)
    assert 'RANDOM WEIGHTS' in found.stderr
    text = page.read_text()
    assert text.count('data:image/jpeg;base64,') == 3
    assert 'a red &lt;b&gt;square' in text
    assert '<b>square' not in text
    assert 'http' not in text.split('</style>')[1]
    table = tool(
        'search', index, query, '-k', 999, '--shortlist', 5,
        '--check-shortlist',
    ).stdout  # fmt: skip
    assert f' of {count} videos' in ' '.join(table.split())
    assert '% of the best pass' in ' '.join(table.split())
    video = sorted(folder.iterdir())[0]
    found = tool('search', index, video, '--video', '-k', 1, '--json')
    assert json.loads(found.stdout)[0]['path'] == str(video)


def test_a_video_deleted_after_indexing(
    tool: Callable, folder: Path, tmp_path: Path
) -> None:
    copy, out = tmp_path / 'videos', tmp_path / 'index'
    shutil.copytree(folder, copy)
    broken = copy / 'broken [b].mp4'
    broken.write_bytes(b'no video')
    (copy / 'broken [b].srt').touch()
    tool('index', copy, '--config', CONFIG, '--untrained', '--out', out)
    gone = sorted(copy.glob('*-0.mp4'))[0]
    gone.unlink()
    found = tool('search', out, 'a ring', '-k', 999, '--json')
    missing = [r for r in json.loads(found.stdout) if not r['exists']]
    assert [record['path'] for record in missing] == [str(gone)]
    assert '(file is gone)' in tool('search', out, 'a ring', '-k', 99).stdout
    told = tool('index', copy, '--out', out).stdout
    assert '1 could not be read' in told
    assert str(broken) in told
    assert '1 other file (1 .srt) was not looked at' in told
    assert '1 files no longer exist and are kept (--prune' in told
    told = tool('index', copy, '--out', out, '--prune').stdout
    assert '1 files no longer exist and were taken out' in told
    found = tool('search', out, 'a ring', '-k', 999, '--json')
    assert str(gone) not in found.stdout


def test_pruning_stays_below_what_was_given(
    tool: Callable, folder: Path, tmp_path: Path
) -> None:
    """A disk that is not mounted today keeps its videos in the index."""
    one, other, out = tmp_path / 'one', tmp_path / 'other', tmp_path / 'i'
    for place, path in zip(
        (one, other), sorted(folder.iterdir()), strict=False
    ):
        place.mkdir()
        shutil.copy(path, place / 'a.mp4')
    tool('index', one, other, '--config', CONFIG, '--untrained', '--out', out)
    shutil.rmtree(other)
    (one / 'a.mp4').unlink()
    told = tool('index', one, '--out', out, '--prune').stdout
    assert '1 files no longer exist and were taken out' in told
    assert list(VideoIndex.load(out).files) == [str(other / 'a.mp4')]


def test_damage_is_mended(tool: Callable, index: Path, folder: Path) -> None:
    count = len(list(folder.iterdir()))
    part = sorted(index.glob('part-*'))[0]
    part.write_bytes(part.read_bytes()[:100])
    told = tool('index', folder, '--out', index, expected=2).stderr
    assert '--repair' in told
    told = tool('index', folder, '--out', index, '--repair').stdout
    assert f'{count} videos can be searched' in told
    VideoIndex.load(index).verify()


def test_names_that_no_terminal_can_show(
    tool: Callable, folder: Path, tmp_path: Path
) -> None:
    """Bytes that are no text, and characters that steer a terminal."""
    videos, out = tmp_path / 'videos', tmp_path / 'i'
    videos.mkdir()
    source = sorted(folder.iterdir())[0]
    raw = os.fsencode(videos)
    shutil.copy(source, raw + b'/\xff\xfe.mp4')
    shutil.copy(source, videos / '\x1b[31mred.mp4')
    (videos / '\x1b[2Jbroken.mp4').touch()
    page = tmp_path / 'hits.html'
    told = tool(
        'index', videos, '--config', CONFIG, '--untrained', '--out', out
    ).stdout
    assert '\x1b' not in told
    assert '\\x1b[2Jbroken.mp4' in told
    shown = tool('search', out, 'a ring', '--html', page).stdout
    assert '\x1b' not in shown
    for text in (shown, page.read_text('utf-8')):
        assert '\\udcff' in text.replace('\n', '')
    hits = json.loads(tool('search', out, 'a ring', '--json').stdout)
    assert all(hit['exists'] for hit in hits)


def test_the_note_counts_what_was_scored(tool: Callable, index: Path) -> None:
    shown = tool('search', index, 'a ring', '-k', 7, '--shortlist', 3).stdout
    assert 'the head scored 7 of ' in ' '.join(shown.split())


@pytest.mark.nightly
@pytest.mark.slow
def test_killed_while_indexing(
    tool: Callable, folder: Path, tmp_path: Path
) -> None:
    """The index can always be loaded, and the same command finishes it."""
    out = tmp_path / 'index'
    count = len(list(folder.iterdir()))
    command = [
        sys.executable, 'tools/index.py', folder, '--config', CONFIG,
        '--untrained', '--out', out, '--workers', '1',
    ]  # fmt: skip
    chance, before, moments = random.Random(0), 0, []
    for _ in range(10):
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=Path(__file__).parents[2],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
        )
        limit = time.monotonic() + 200
        # in the midst of it: its first new video is there
        while time.monotonic() < limit and process.poll() is None:
            if len(list(out.glob('part-*'))) > before:
                break
            time.sleep(0.005)
        time.sleep(chance.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        index = VideoIndex.load(out)
        index.verify()
        moments.append(len(index))
        assert len(index) == len(index.files)
        before = len(list(out.glob('part-*')))
    assert moments == sorted(moments)
    told = tool(*['index', *command[2:]]).stdout
    assert f'{moments[-1]} unchanged files' in told
    assert f'{count} videos can be searched' in told


def test_two_indexers_at_once(
    tool: Callable, index: Path, folder: Path
) -> None:
    with VideoIndex.load(index, writable=True):
        told = tool('index', folder, '--out', index, expected=2).stderr
    assert 'IndexInUseError: This process' in told
    assert 'Traceback' not in told


def test_what_cannot_be_indexed(
    tool: Callable, index: Path, folder: Path, tmp_path: Path
) -> None:
    def fails(*options: object) -> str:
        told = tool('index', *options, expected=2).stderr
        assert 'Traceback' not in told
        return told

    new, empty = tmp_path / 'new', tmp_path / 'empty'
    empty.mkdir()
    assert 'has no videos' in fails(empty, '--out', new)
    assert 'neither a file' in fails(tmp_path / 'gone', '--out', new)
    assert 'needs the config' in fails(folder, '--out', new)
    assert 'random numbers' in fails(folder, '--config', CONFIG, '--out', new)
    assert 'config file was expected' in fails(
        folder, '--config', 'configs/gone.py', '--out', new
    )
    assert 'checkpoint was expected' in fails(
        folder, '--config', CONFIG, '--checkpoint', 'gone.pth', '--out', new
    )
    assert '--cfg-options' in fails(
        folder, '--out', new, '--cfg-options', 'a=1'
    )
    assert not new.exists()
    assert '--segment 0.0' in fails(folder, '--out', index, '--segment', '9s')
    assert 'another model' in fails(
        folder, '--out', index, '--config', 'configs/x_pool_toy.py'
    )
    assert len(VideoIndex.load(index)) == len(list(folder.iterdir()))


def test_what_cannot_be_searched(
    tool: Callable, index: Path, tmp_path: Path
) -> None:
    def fails(*options: object) -> str:
        told = tool('search', *options, expected=2).stderr
        assert 'Traceback' not in told
        return told

    assert 'no such folder' in fails(tmp_path / 'gone', 'a ring')
    assert 'holds no index' in fails(tmp_path, 'a ring')
    assert 'query is empty' in fails(index, ' ')
    assert 'k must be at least 1' in fails(index, 'a ring', '-k', 0)
    assert 'another model' in fails(
        index, 'a ring', '--config', 'configs/x_pool_toy.py'
    )
    part = sorted(index.glob('part-*'))[0]
    content = bytearray(part.read_bytes())
    content[len(content) // 3] ^= 255
    part.write_bytes(content)
    assert 'is damaged' in fails(index, 'a ring', '--shortlist', 0)


@pytest.mark.parametrize(
    ('text', 'seconds'),
    [('10s', 10), ('10', 10), ('1.5m', 90), ('0.5 s', 0.5)],
)
def test_lengths_of_time(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize('text', ['', 's', '0', '-1s', '1h', 'ten', '1e3'])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"written as '10s'"):
        parse_seconds(text)
