"""tools/index.py and tools/search.py as a user calls them."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from eaglenet_mm.apis import VideoIndex
from eaglenet_mm.datasets.story import write_story_dataset
from eaglenet_mm.search.records import parse_seconds

CONFIG = 'configs/eaglenet_story.py'


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp('data') / 'story'
    write_story_dataset(data, limit=12, workers=1)
    return data / 'videos/test'


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
    assert f'all {count} videos looked at' in ' '.join(table.split())
    assert '% of the best' in ' '.join(table.split())
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
    gone = sorted(copy.glob('test-*.mp4'))[0]
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


@pytest.mark.parametrize('where', ['row', 'pages'])
def test_damage_is_mended(
    tool: Callable, index: Path, folder: Path, where: str
) -> None:
    count = len(list(folder.iterdir()))
    content = bytearray(index.read_bytes())
    if where == 'row':
        frames = VideoIndex.load(index).store.take([3], False)[0].features
        content[content.find(frames[:64]) + 9] ^= 1
    else:
        begin = len(content) // 8192 * 6 // 10 * 8192
        content[begin : begin + 2 * 8192] = bytes(2 * 8192)
    index.write_bytes(content)
    query = 'search', index, 'a ring', '--shortlist', 0
    assert '--repair' in tool(*query, expected=2).stderr
    told = tool('index', folder, '--out', index, '--repair').stdout
    assert f'{count} videos can be searched' in told
    assert VideoIndex.load(index).store.verify() == {}


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
    assert '7 of ' in ' '.join(shown.split())


def count_videos(index: Path) -> int:
    """Look without taking part."""
    if not index.exists():
        return 0
    with contextlib.closing(sqlite3.connect(index)) as connection:
        return connection.execute('SELECT count(*) FROM videos').fetchone()[0]


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
    for _ in range(20):
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
            if count_videos(out) > before:
                break
            time.sleep(0.005)
        time.sleep(chance.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        index = VideoIndex.load(out)
        assert index.store.verify() == {}
        moments.append(len(index))
        assert len(index) == len(index.files)
        before = len(index)
        index.close()
    assert moments == sorted(moments)
    told = tool(*['index', *command[2:]]).stdout
    assert f'{moments[-1]} unchanged files' in told
    assert f'{count} videos can be searched' in told


@pytest.mark.nightly
def test_two_indexers_at_once(
    tool: Callable, folder: Path, tmp_path: Path, repository: Path
) -> None:
    """They do some of the work twice, and disturb each other in nothing."""
    out, count = tmp_path / 'index', len(list(folder.iterdir()))
    half = sorted(folder.iterdir())[: count // 2]
    tool('index', half[0], '--config', CONFIG, '--untrained', '--out', out)
    runs = [
        subprocess.Popen(
            list(
                map(
                    str,
                    [sys.executable, 'tools/index.py', *videos, '--out', out],
                )
            ),
            cwd=repository,
        )
        for videos in ([folder], half)
    ]
    assert [run.wait() for run in runs] == [0, 0]
    index = VideoIndex.load(out)
    assert len(index) == len(index.files) == count
    assert index.store.verify() == {}


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
    assert 'written as' in fails(folder, '--out', index, '--segment', '9h')
    assert len(VideoIndex.load(index)) == len(list(folder.iterdir()))


def test_what_cannot_be_searched(
    tool: Callable, index: Path, tmp_path: Path
) -> None:
    def fails(*options: object) -> str:
        told = tool('search', *options, expected=2).stderr
        assert 'Traceback' not in told
        return told

    assert 'there is none' in fails(tmp_path / 'gone', 'a ring')
    assert 'is a folder' in fails(tmp_path, 'a ring')
    assert 'query is empty' in fails(index, ' ')
    assert 'k must be at least 1' in fails(index, 'a ring', '-k', 0)
    assert 'must be a date' in fails(index, 'a ring', '--after', 'monday')
    assert 'not calibrated' in fails(index, 'a ring', '--reject', 0.1)
    other = tmp_path / 'other'
    with contextlib.closing(sqlite3.connect(other)) as connection:
        connection.execute('CREATE TABLE about (name, value)')
    assert 'of another program' in fails(other, 'a ring')
    with contextlib.closing(sqlite3.connect(index)) as connection:
        connection.execute('PRAGMA user_version = 9')
    assert 'version 9' in fails(index, 'a ring')
    index.write_bytes(b'no database at all' * 99)
    assert 'could not be read' in fails(index, 'a ring')


def test_filters_tags_and_heads(
    tool: Callable, index: Path, folder: Path
) -> None:
    paths = sorted(folder.iterdir())
    some = paths[:3]
    tool('index', *some, '--out', index, '--tag', 'red', '--tag', 'new')

    def found(*options: object) -> list[str]:
        told = tool(
            'search', index, 'a ring', '-k', 999, '--json', *options
        ).stdout
        return sorted(hit['path'] for hit in json.loads(told))

    everything = list(map(str, paths))
    assert found('--tag', 'red', '--tag', 'new') == list(map(str, some))
    assert found('--tag', 'blue') == []
    assert found('--path', folder) == everything
    assert found('--path', os.path.relpath(folder)) == everything
    assert found('--path', f'{paths[5].name[:-3]}*') == [str(paths[5])]
    assert found('--before', '2001-01-01') == []
    assert found('--min-duration', '0.1s', '--head', 'mean_pooling_story') == (
        everything
    )
    hostile = "' OR 1=1 --"
    assert found('--tag', hostile) == found('--path', hostile) == []


def test_a_folder_that_is_named_like_a_pattern(
    tool: Callable, folder: Path, tmp_path: Path
) -> None:
    videos = tmp_path / 'films [2020]'
    videos.mkdir()
    shutil.copy(sorted(folder.iterdir())[0], videos / 'a.mp4')
    out = tmp_path / 'index'
    tool('index', videos, '--config', CONFIG, '--untrained', '--out', out)
    for path in (videos, videos / 'a.mp4'):
        told = tool('search', out, 'a ring', '--path', path, '--json').stdout
        assert len(json.loads(told)) == 1


def test_captions_tell_what_good_scores_are(
    tool: Callable, index: Path, folder: Path, tmp_path: Path
) -> None:
    captions = tmp_path / 'captions.txt'
    captions.write_text('a red ring\n\na blue square moves\n' * 10)
    told = tool('index', folder, '--out', index, '--calibrate', captions)
    assert '20 captions tell' in told.stdout
    shown = tool('search', index, 'a red ring', '--reject', 0.2).stdout
    assert '% of good queries score as low' in ' '.join(shown.split())
    shown = tool('search', index, 'a zeppelin', '--reject', 0.2).stdout
    assert 'not known to the model: zeppelin' in ' '.join(shown.split())


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
