"""What both stores of an index promise."""

import contextlib
import math
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from eaglenet_mm.search.errors import DamagedIndexError, IndexWriteError
from eaglenet_mm.search.moment_store import store_kind
from eaglenet_mm.search.records import (
    IndexedFile,
    MomentFilter,
    StoredMoment,
)

ABOUT = {'layout': {'vector': {'vector': ['float32', [4]]}}, 'words': 'é'}


@pytest.fixture(params=['a.index', 'a.lance'])
def where(request, tmp_path):
    if request.param == 'a.lance':
        pytest.importorskip('lance')
    return str(tmp_path / request.param)


@pytest.fixture
def store(where):
    with contextlib.closing(store_kind(where).create(where, ABOUT)) as made:
        yield made


def rows(count, seed=0):
    draw = random.Random(seed)
    return [
        StoredMoment(
            10.0 * number,
            10.0 * number + 9.5,
            *(draw.randbytes(size) for size in (16, 8, 100, 0, 50)),
        )
        for number in range(count)
    ]


def read_all(store):
    """Everything that a store gives away, by path."""
    found = {}
    for path, file in store.files().items():
        ids = store.ids_of(path).tolist()
        taken = store.take(ids, thumbnails=True)
        for row, vector in zip(taken, store.vectors(ids), strict=True):
            row.vector = vector
        for moment, row in zip(store.moments(ids), taken, strict=True):
            assert moment.file == file
            assert (moment.start, moment.end) == (row.start, row.end)
        found[path] = file, taken
    everything = [x for path in found for x in store.ids_of(path).tolist()]
    assert store.ids().tolist() == sorted(everything)
    return found


def reopened(store, writable=False):
    return contextlib.closing(type(store).open(store.where, writable))


NAMES = [
    "/v/it's; DROP TABLE videos --.mp4",
    '/v/% _ \\ "x" [a] *?.mkv',
    '/v/line\nbreak.mp4',
    '/v/日本 é.mp4',
    os.fsdecode(b'/v/no text \xff\xfe.mp4'),
    '/w/empty.mp4',
]


class TestContent:
    def test_what_was_written_is_read(self, store):
        files = [
            (IndexedFile(path, 2**40 + n, 1_700_000_000_123_456_789 + n,
                         n + 0.5, tags=("it's", 'b')[:n]), rows(n, seed=n))
            for n, path in enumerate(NAMES[:-1])
        ]  # fmt: skip
        files.append((IndexedFile(NAMES[-1], 0, 0, error='no video'), []))
        ids = store.replace(files)
        assert len(set(ids)) == sum(len(own) for _, own in files)
        with reopened(store) as other:
            for own in (store, other):
                assert read_all(own) == {
                    file.path: (file, moments) for file, moments in files
                }
                assert own.vectors(ids[::-1]) == own.vectors(ids)[::-1]
                assert own.thumbnail(ids[0]) == files[1][1][0].thumbnail
                assert own.take(ids, thumbnails=False)[0].thumbnail == b''
                assert own.about == ABOUT
                assert own.verify() == {}

    def test_an_empty_store(self, store):
        assert read_all(store) == {}
        assert store.vectors([]) == []
        assert store.replace([]) == []
        assert store.verify() == {}

    def test_numbers_are_never_used_again(self, store):
        first = store.replace([(IndexedFile('/a', 1, 1), rows(3))])
        second = store.replace([(IndexedFile('/b', 1, 1), rows(1))])
        store.remove(['/b'])
        third = store.replace([(IndexedFile('/a', 1, 2), rows(2, seed=1))])
        assert max(first) < min(second) <= max(second) < min(third)
        assert store.ids().tolist() == third
        assert read_all(store)['/a'] == (
            IndexedFile('/a', 1, 2),
            rows(2, seed=1),
        )
        for gone in (first[0], second[0]):
            with pytest.raises(KeyError, match=str(gone)):
                store.take([third[0], gone], thumbnails=False)

    @pytest.mark.parametrize('number', [-1, 12345, 2**63, 2**70])
    def test_numbers_of_nothing(self, store, number):
        store.replace([(IndexedFile('/a', 1, 1), rows(1))])
        for read in (store.moments, store.vectors):
            with pytest.raises(KeyError, match=str(number)):
                read([number])
        with pytest.raises(KeyError, match=str(number)):
            store.thumbnail(number)

    def test_no_number_is_a_moment_but_those_listed(self, store):
        store.replace([(IndexedFile('/a', 1, 1, error='bad'), [])])
        listed = set(store.replace([(IndexedFile('/b', 1, 1), rows(2))]))
        for number in set(range(10)) - listed:
            with pytest.raises(KeyError):
                store.moments([number])
            with pytest.raises(KeyError):
                store.vectors([number])

    def test_tags_change_and_numbers_stay(self, store):
        ids = store.replace(
            [(IndexedFile(path, 1, 1), rows(2)) for path in ('/a', '/b', '/c')]
        )
        store.replace([(IndexedFile('/d', 1, 1, error='bad'), [])])
        before = read_all(store)
        store.set_tags(['/b', '/d'], ["it's", 'b', "it's"])
        after = read_all(store)
        assert store.ids().tolist() == ids
        for path in '/b', '/d':
            assert after[path][0].tags == ("it's", 'b')
            assert after[path][1] == before[path][1]
        assert (after['/a'], after['/c']) == (before['/a'], before['/c'])
        assert store.verify() == {}

    def test_what_is_said_of_an_index_changes(self, store):
        store.set_about('words', ['a', {'b': 1.5}])
        store.set_about('more', None)
        with reopened(store) as other:
            assert other.about == {
                **ABOUT,
                'words': ['a', {'b': 1.5}],
                'more': None,
            }

    def test_a_store_that_is_not_open_for_writing(self, store):
        with reopened(store) as other:
            for change in (
                lambda: other.replace([(IndexedFile('/a', 1, 1), rows(1))]),
                lambda: other.remove(['/a']),
                lambda: other.set_about('a', 1),
            ):
                with pytest.raises(IndexWriteError, match='writable=True'):
                    change()


class TestAddress:
    def test_nothing_is_there(self, where):
        with pytest.raises(FileNotFoundError, match=r'tools/index\.py'):
            store_kind(where).open(where)

    def test_files_of_nothing_are_no_files(self, store):
        with pytest.raises(KeyError, match='/a'):
            store.ids_of('/a')

    def test_something_is_there(self, store):
        with pytest.raises(IndexWriteError, match='another name'):
            type(store).create(store.where, ABOUT)
        assert store.about == ABOUT

    def test_a_file_of_something_else(self, where):
        Path(where).write_bytes(b'no index at all' * 1000)
        with pytest.raises((DamagedIndexError, FileNotFoundError)):
            store_kind(where).open(where)


@pytest.fixture(scope='module', params=['a.index', 'a.lance'])
def filled(request, tmp_path_factory):
    if request.param == 'a.lance':
        pytest.importorskip('lance')
    where = str(tmp_path_factory.mktemp('filter') / request.param)
    store = store_kind(where).create(where, ABOUT)
    store.replace([(file, rows(1)) for file in TestFilter.FILES])
    return store


class TestFilter:
    FILES = tuple(
        IndexedFile(path, 1, 10**9 * n, duration=n / 4, tags=tags)
        for n, (path, tags) in enumerate(
            [(path, ()) for path in NAMES]
            + [
                ('/v', ('a',)),
                ('/v/a.mp4', ('a', "it's")),
                ('/v/a.mp4.mp4', ("'; DROP TABLE videos; --",)),
                ('/v/deep/er/b.MKV', ('a', '%')),
                ('/vv/c.mp4', ('\\', '"')),
                ('/v/a]-^b', ('A',)),
                ('/v/.+(x)|^$', ('*',)),
            ]
        )
    )
    PATHS = (
        '', '/', '/v', '/v/', '/vv', '/v/a.mp4', '/V', '/nothing', '*',
        '*.mp4', '/*.mp4', '?', '*.mk[vx]', '/v/*', '/v/?.mp4', '[^a]*.mp4',
        '*[!a]*', '*[z-a]*', '*[a-c].mp4', '[', '*[', '[]', '*[]a]*', '*[^]*',
        '*[^]]', '*[--a]*', '*[a-]*', '*[]-a]*', '*[\\]*', '*[&&x]*', '*[^',
        '*.+(x)|^$', '.*', '\\', "'", "' OR 1=1 --", "x') OR ('1'='1",
        "*'*", '*"*', '*%*', '%', '*\n*', '*日本*', '*[日]*', '/v/it\'s*',
        '{x}', '$1', '*$', 'a' * 5000, '*' * 50,
        os.fsdecode(b'/v/no text \xff\xfe.mp4'),
    )  # fmt: skip

    def found(self, store, where):
        return {
            moment.file for moment in store.moments(store.ids(where).tolist())
        }

    @pytest.mark.parametrize('path', PATHS, ids=ascii)
    def test_paths(self, filled, path):
        run = sqlite3.connect(':memory:').execute
        where = MomentFilter(path=path)

        def fits(file):
            if where.glob:
                text = file.path.encode('utf-8', 'replace').decode()
                return run('SELECT ? GLOB ?', (text, where.glob)).fetchone()[0]
            folder = path.rstrip('/')
            return file.path == folder or file.path.startswith(f'{folder}/')

        wanted = {file for file in self.FILES if not path or fits(file)}
        assert self.found(filled, where) == wanted
        assert filled.verify() == {}

    @pytest.mark.parametrize(
        'tags',
        [('a',), ('a', "it's"), ('A',), ("'; DROP TABLE videos; --",), ('%',),
         ('\\',), ('"',), ('*',), ("') OR (1=1",), ('é',), ('',)],
        ids=ascii,
    )  # fmt: skip
    def test_tags(self, filled, tags):
        assert self.found(filled, MomentFilter(tags=tags)) == {
            file for file in self.FILES if set(tags) <= set(file.tags)
        }

    @pytest.mark.parametrize('seconds', [0, 3, 2.5, 3 + 1e-7, -1, 1e300])
    def test_times_and_lengths(self, filled, seconds):
        time_ns = math.ceil(min(seconds, 9e9) * 1e9)
        length = seconds / 4
        for where, fits in (
            (dict(after=seconds), lambda x: x.changed >= time_ns),
            (dict(before=seconds), lambda x: x.changed < time_ns),
            (dict(min_duration=length), lambda x: x.duration >= length),
            (dict(max_duration=length), lambda x: x.duration <= length),
        ):
            wanted = {file for file in self.FILES if fits(file)}
            assert self.found(filled, MomentFilter(**where)) == wanted

    def test_names_that_are_no_text(self, filled):
        where = MomentFilter(path=os.fsdecode(b'*\xff*'))
        assert {x.path for x in self.found(filled, where)} == {NAMES[4]}

    @pytest.mark.parametrize(
        'values',
        [dict(path='\ud800'), dict(path='a\0'), dict(path=b'/'),
         dict(tags=('\udcff',)), dict(tags=['a']), dict(tags=(1,)),
         dict(after=10**400), dict(before=math.nan), dict(min_duration='1')],
        ids=ascii,
    )  # fmt: skip
    def test_what_is_no_filter(self, values):
        with pytest.raises(ValueError, match='filter'):
            MomentFilter(**values)

    def test_numbers_without_bounds(self, filled):
        for far in (1.7e308, 10**308):
            assert not self.found(filled, MomentFilter(after=far))
            assert self.found(filled, MomentFilter(before=far))

    def test_all_together(self, filled):
        where = MomentFilter('*.mp4', 1, 8, 0.25, 100, ('a', "it's"))
        assert {x.path for x in self.found(filled, where)} == {'/v/a.mp4'}


def write_many(where, name, count, shared, told):
    store = store_kind(where).open(where, writable=True)
    told.send('ready')
    for number in range(count):
        files = [
            (IndexedFile(f'/{name}/{number}', 1, number), rows(2, number))
        ]
        if shared:
            files.append((IndexedFile(shared, 1, number), rows(3, number)))
        store.replace(files)
        told.send(number)


def fill_the_disk(where, told):
    # what may be said of a limit: a file is too large, the disk is not full
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    store = store_kind(where).open(where, writable=True)
    large = rows(3)
    for row in large:
        row.features = random.randbytes(150_000)
    try:
        store.replace([(IndexedFile('/b', 1, 1), large)])
    except IndexWriteError as err:
        told.send(str(err))


# Lance must not be forked: children come of a process that has not seen it
PROCESSES = multiprocessing.get_context('forkserver')
PROCESSES.set_forkserver_preload([__name__, 'eaglenet_mm.search.sqlite_store'])


def start(function, *args):
    ours, theirs = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=function, args=(*args, theirs))
    process.start()
    theirs.close()
    return process, ours


def hear_out(told):
    heard = []
    with contextlib.suppress(EOFError):
        while True:
            heard.append(told.recv())
    return heard


class TestAccidents:
    @pytest.mark.parametrize('seed', range(3))
    def test_kill(self, store, seed):
        for attempt in range(2):
            writer, told = start(
                write_many, store.where, f'w{attempt}', 1000, '/same'
            )
            assert told.recv() == 'ready'
            time.sleep(random.Random(f'{seed} {attempt}').uniform(0, 0.3))
            writer.kill()
            told = hear_out(told)
            writer.join()
            with reopened(store, writable=True) as other:
                found = read_all(other)
                assert other.verify() == {}
                own = [x for x in found if x.startswith(f'/w{attempt}/')]
                # what was said is there; one more may be
                assert len(told) <= len(own) <= len(told) + 1
                for number in range(len(own)):
                    path = f'/w{attempt}/{number}'
                    assert found[path][1] == rows(2, number)
                if own:
                    last = len(own) - 1
                    assert found['/same'] == (
                        IndexedFile('/same', 1, last),
                        rows(3, last),
                    )
                other.replace([(IndexedFile('/after', 1, 1), rows(1))])

    def test_two_writers_and_a_reader(self, store):
        writers = [
            start(write_many, store.where, name, 15, '/same') for name in 'ab'
        ]
        versions = set()
        with reopened(store) as reader:
            while any(writer.is_alive() for writer, _ in writers):
                versions.add(reader.version())
                for path in reader.files():
                    ids = reader.ids_of(path).tolist()
                    assert len(ids) == (3 if path == '/same' else 2)
                    with contextlib.suppress(KeyError):  # replaced since
                        assert len(reader.vectors(ids)) == len(ids)
        for writer, told in writers:
            writer.join()
            assert hear_out(told) == ['ready', *range(15)]
        store.version()
        found = read_all(store)
        assert len(found) == 31
        assert found['/same'][1] == rows(3, 14)
        assert store.verify() == {}
        assert len(versions) > 1

    def test_versions_differ_after_each_commit(self, store):
        with reopened(store) as reader:
            seen = [reader.version()]
            for change in (
                lambda: store.replace([(IndexedFile('/a', 1, 1), rows(1))]),
                lambda: store.set_tags(['/a'], ['x']),
                lambda: store.set_about('a', 1),
                lambda: store.remove(['/a']),
            ):
                own = store.version()
                change()
                assert store.version() != own
                seen.append(reader.version())
                assert reader.version() == seen[-1]
            assert len(set(seen)) == len(seen)

    def test_threads_read_while_one_writes(self, store):
        store.replace([(IndexedFile('/a', 1, 1), rows(5))])
        errors, done = [], threading.Event()

        def read():
            try:
                while not done.is_set():
                    store.version()
                    ids = store.ids_of('/a').tolist()
                    with contextlib.suppress(KeyError):
                        assert len(store.vectors(ids)) == 5
            except BaseException as err:  # noqa: BLE001
                errors.append(err)

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(10):
            store.replace([(IndexedFile('/a', 1, number), rows(5, number))])
        done.set()
        for thread in threads:
            thread.join()
        assert not errors

    def test_disk_full(self, store):
        store.replace([(IndexedFile('/a', 1, 1), rows(5))])
        before = read_all(store)
        process, told = start(fill_the_disk, store.where)
        (words,) = hear_out(told)
        process.join()
        assert 'Make room' in words
        with reopened(store, writable=True) as other:
            assert read_all(other) == before
            other.replace([(IndexedFile('/b', 1, 1), rows(3))])
            assert set(read_all(other)) == {'/a', '/b'}
            assert other.verify() == {}

    def test_flipped_bits_are_found(self, store, tmp_path):
        store.replace(
            [(IndexedFile(f'/{n}', 9, 9, 3.0, tags=('t',)), rows(3, n))
             for n in range(8)]
        )  # fmt: skip
        store.replace([(IndexedFile('/2', 9, 10), rows(2, 2))])
        store.replace([(IndexedFile('/bad', 9, 9, error='none'), [])])
        store.close()
        whole = read_all(type(store).open(store.where))
        draw, found = random.Random(0), 0
        copy = str(tmp_path / f'copy{Path(store.where).suffix}')
        for _ in range(40):
            source = Path(store.where)
            if source.is_dir():
                shutil.copytree(source, copy)
                files = [x for x in Path(copy).rglob('*') if x.is_file()]
            else:
                shutil.copy(source, copy)
                files = [Path(copy)]
            sizes = [x.stat().st_size for x in files]
            victim = draw.choices(files, sizes)[0]
            content = bytearray(victim.read_bytes())
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
            victim.write_bytes(content)
            try:
                with contextlib.closing(type(store).open(copy)) as damaged:
                    assert read_all(damaged) == whole, victim
            except (DamagedIndexError, FileNotFoundError, KeyError):
                found += 1
            for path in Path(copy).parent.glob('copy*'):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert found

    def test_a_damaged_row_is_named(self, store):
        store.replace(
            [(IndexedFile(f'/{n}', 9, 9), rows(2, n)) for n in range(3)]
        )
        store.close()
        wanted = rows(2, 1)[1].features
        for path in [Path(store.where), *Path(store.where).rglob('*.lance')]:
            if path.is_file() and wanted in (content := path.read_bytes()):
                path.write_bytes(content.replace(wanted, wanted[::-1]))
        with reopened(store, writable=True) as other:
            assert list(other.verify()) == ['/1']
            with pytest.raises(DamagedIndexError, match='--repair'):
                other.take(other.ids_of('/1').tolist(), thumbnails=False)
            other.remove(['/1'])
            assert other.verify() == {}
            assert set(read_all(other)) == {'/0', '/2'}
