"""What a Lance dataset promises beside what both stores do."""

from __future__ import annotations

import datetime
import os
import pickle
import random
import sqlite3
import sys
import time
from pathlib import Path

import pytest
import torch

from eaglenet_mm.search import lance_store, moment_store
from eaglenet_mm.search.errors import DamagedIndexError, VideoIndexError
from eaglenet_mm.search.lance_store import LanceStore
from eaglenet_mm.search.records import (
    MOMENT_PARTS,
    PARTS,
    IndexedFile,
    MomentFilter,
)
from eaglenet_mm.search.shortlisters import TorchShortlister, build_shortlister
from eaglenet_mm.search.video_index import VideoIndex
from tests.search.index_rows import make_file, make_index, make_moments
from tests.search.test_stores import ABOUT, read_all, rows

lance = pytest.importorskip('lance')


@pytest.fixture
def store(tmp_path):
    return LanceStore.create(str(tmp_path / 'a.lance'), ABOUT)


def files_below(folder):
    return {path for path in Path(folder).rglob('*') if path.is_file()}


class TestCommit:
    def test_what_others_have_written(self, store):
        """As workers do: written elsewhere, committed together."""
        store.replace([(IndexedFile('/0', 1, 1), rows(5, 9))])
        worker = LanceStore.open(store.where, writable=True)
        written = [
            worker.write([(IndexedFile(f'/{n}', 1, 1), rows(2, n))])
            for n in range(3)
        ]
        assert set(read_all(LanceStore.open(store.where))) == {'/0'}
        before = store.version()
        store.commit(pickle.loads(pickle.dumps(written)))
        assert store.version() == before + 1
        assert {path: own for path, (_, own) in read_all(store).items()} == {
            f'/{n}': rows(2, n) for n in range(3)
        }
        assert store.verify() == {}

    def test_replacing_is_one_commit(self, store):
        store.replace([(IndexedFile(f'/{n}', 1, 1), rows(3)) for n in '012'])
        before = store.version()
        store.replace([(IndexedFile('/1', 1, 2), rows(2))])
        assert store.version() == before + 1

    def test_small_fragments_are_joined(self, store, monkeypatch):
        monkeypatch.setattr(lance_store, '_MANY_SMALL', 10)
        monkeypatch.setattr(lance_store, '_KEPT', datetime.timedelta(0))
        reader = LanceStore.open(store.where)
        ids = []
        for number in range(24):
            ids += store.replace(
                [(IndexedFile(f'/{number}', 1, 1), rows(2, number))]
            )
        assert len(store._dataset.get_fragments()) < 10
        assert len(files_below(Path(store.where) / 'data')) < 20
        assert store.ids().tolist() == ids
        assert {path: own for path, (_, own) in read_all(store).items()} == {
            f'/{n}': rows(2, n) for n in range(24)
        }
        # a reader whose version is gone goes on with the last one
        assert reader.ids().tolist() == ids
        assert len(reader.vectors(ids)) == len(ids)

    def test_what_was_never_committed_is_deleted(self, store):
        store.replace([(IndexedFile('/a', 1, 1), rows(3))])
        before = files_below(store.where)
        store.write([(IndexedFile('/b', 1, 1), rows(3))])
        (orphan,) = files_below(store.where) - before
        store.tidy()
        assert orphan.exists()  # somebody may be about to commit it
        week_ago = time.time() - 8 * 86400
        os.utime(orphan, (week_ago, week_ago))
        store.tidy()
        assert not orphan.exists()
        assert set(read_all(store)) == {'/a'}
        assert store.verify() == {}


@pytest.mark.parametrize('part', MOMENT_PARTS)
def test_parts_of_two_rows_are_not_mixed_up(store, part, monkeypatch):
    ids = store.replace([(IndexedFile(f'/{n}', 1, 1), rows(1, n))
                         for n in range(3)])  # fmt: skip
    scan, own = store._scan, [*PARTS[part], f'{part}_crc']

    def mixed(names, condition, **options):
        table = scan(names, condition, **options)
        for name in set(own) & set(table.column_names):
            place = table.column_names.index(name)
            column = table[name].take(list(range(len(table)))[::-1])
            table = table.set_column(place, table.field(name), column)
        return table

    monkeypatch.setattr(store, '_scan', mixed)
    read = dict(
        moments=store.moments,
        vectors=store.vectors,
        features=lambda ids: store.take(ids, thumbnails=False),
        thumbnails=lambda ids: store.take(ids, thumbnails=True),
    )
    with pytest.raises(DamagedIndexError):
        read[part](ids)


class TestAddress:
    def test_a_dataset_of_another_program(self, tmp_path):
        import pyarrow

        where = str(tmp_path / 'a.lance')
        lance.write_dataset(pyarrow.table({'a': [1]}), where)
        with pytest.raises(DamagedIndexError, match='another program'):
            LanceStore.open(where)

    def test_an_index_of_a_later_release(self, store, monkeypatch):
        monkeypatch.setattr(moment_store, 'VERSION', 3)
        with pytest.raises(DamagedIndexError, match=r'version 2.*version 3'):
            LanceStore.open(store.where)

    def test_without_pylance(self, store, monkeypatch):
        monkeypatch.setitem(sys.modules, 'lance', None)
        with pytest.raises(ImportError, match=r'eaglenet_mm\[ray\]'):
            LanceStore.open(store.where)

    @pytest.mark.parametrize(
        ('where', 'words'),
        [
            ('s3://there-is-no-such-bucket/a', 'AWS_ACCESS_KEY_ID'),
            ('az://container/a', 'AZURE'),
            ('gopher://a/b', 'gopher'),
        ],
    )
    def test_what_cannot_be_reached(self, where, words, monkeypatch):
        for name in [x for x in os.environ if x.startswith('AWS')]:
            monkeypatch.delenv(name)
        monkeypatch.setenv('AWS_ENDPOINT_URL', 'http://127.0.0.1:9')
        monkeypatch.setenv('AWS_ALLOW_HTTP', 'true')
        monkeypatch.setenv('AWS_EC2_METADATA_DISABLED', 'true')
        begin = time.monotonic()
        for open_it in (
            LanceStore.open,
            lambda x: LanceStore.create(x, ABOUT),
        ):
            with pytest.raises(VideoIndexError, match=words) as told:
                open_it(where)
            assert len(str(told.value)) < 800
        assert time.monotonic() - begin < 60

    def test_object_storage(self, object_storage):
        where = f'{object_storage}/index'
        with pytest.raises(FileNotFoundError, match=where):
            LanceStore.open(where)
        store = LanceStore.create(where, ABOUT)
        other = LanceStore.open(where, writable=True)
        for number, writer in enumerate((store, other, store)):
            writer.replace(
                [
                    (IndexedFile(f'/{number}', 1, 1), rows(2, number)),
                    (IndexedFile('/same', 1, number), rows(1, number)),
                ]
            )
        other.set_tags(['/1'], ['x'])
        store.version()
        found = read_all(store)
        assert found['/same'][1] == rows(1, 2)
        assert found['/1'] == (
            IndexedFile('/1', 1, 1, tags=('x',)),
            rows(2, 1),
        )
        assert store.verify() == {}
        store.tidy()
        assert read_all(store) == found


def test_patterns_mean_what_they_mean_to_sqlite(store):
    """Drawn from signs that mean something, against SQLite itself."""
    draw = random.Random(0)
    names = {
        '/' + ''.join(draw.choices('ab-]^[*?.\\é\n', k=draw.randrange(6)))
        for _ in range(150)
    }
    store.replace([(IndexedFile(name, 1, 1), rows(1)) for name in names])
    run = sqlite3.connect(':memory:').execute
    tried = 0
    while tried < 150:
        where = MomentFilter(
            ''.join(draw.choices('/ab-]^[[**?.\\é\n', k=draw.randrange(1, 9)))
        )
        if not where.glob:
            continue
        tried += 1
        ids = store.ids(where).tolist()
        found = {moment.file.path for moment in store.moments(ids)}
        assert found == {
            name
            for name in names
            if run('SELECT ? GLOB ?', (name, where.glob)).fetchone()[0]
        }, where.path


class TestLanceShortlister:
    @pytest.fixture
    def index(self, tmp_path):
        index = make_index(tmp_path / 'a.lance')
        torch.manual_seed(0)
        moments = make_moments(0, count=40)
        centres = torch.randn(8, moments.vectors.shape[1])
        for number in range(30):
            picked = torch.randint(8, (40,))
            vectors = (
                centres[picked]
                + 0.3 * torch.randn(40, 8)[:, : centres.shape[1]]
            )
            moments.vectors = torch.nn.functional.normalize(vectors, dim=1)
            index.add(make_file(number, duration=number), moments)
        return index

    def test_there_is_no_index(self, tmp_path):
        with pytest.raises(VideoIndexError, match='--build-ann'):
            build_shortlister('lance', make_index(tmp_path / 'a.lance'))
        with pytest.raises(VideoIndexError, match='--build-ann'):
            build_shortlister('lance', make_index())
        few = make_index(tmp_path / 'b.lance')
        with pytest.raises(VideoIndexError, match='at least 1000'):
            few.store.build_ann()

    def test_it_finds_what_a_comparison_with_all_finds(self, index):
        index.store.build_ann()
        # some that are not in it yet, one that is gone, one with a new tag
        index.add(make_file(77, duration=3), make_moments(77, count=2))
        index.add(make_file(78), None)
        index.remove([make_file(4).path])
        index.set_tags([make_file(5).path], ['new'])
        assert index.has_ann
        shortlister = build_shortlister('lance', index)
        exact = TorchShortlister(index)
        queries = torch.nn.functional.normalize(
            torch.randn(20, index.vectors().shape[1]), dim=1
        )
        for where in (
            None,
            MomentFilter(max_duration=9),
            MomentFilter(tags=('new',)),
            MomentFilter('*77*'),
            MomentFilter('*nothing*'),
        ):
            shares = []
            for (scores, ids), (wanted_scores, wanted) in zip(
                shortlister.search(queries, 50, where),
                exact.search(queries, 50, where),
                strict=True,
            ):
                assert len(ids) == len(wanted)
                assert len(set(ids.tolist())) == len(ids)
                assert scores.tolist() == sorted(scores.tolist())[::-1]
                common = set(ids.tolist()) & set(wanted.tolist())
                shares.append(len(common) / max(1, len(wanted)))
                if shares[-1] == 1:
                    assert torch.equal(scores, wanted_scores)
            if len(wanted):
                assert sum(shares) / len(shares) > 0.98
        index.store.tidy()
        assert index.has_ann
        assert len(shortlister.search(queries, 50)[0][1]) == 50


def test_an_index_is_copied_between_stores(tmp_path):
    index = make_index(tmp_path / 'a.lance')
    index.add(make_file(1), make_moments(1, count=3))
    index.add(make_file(2), None)
    index.save(tmp_path / 'b.index')
    VideoIndex.load(tmp_path / 'b.index').save(tmp_path / 'c.lance')
    copies = [VideoIndex.load(tmp_path / x) for x in ('b.index', 'c.lance')]
    assert read_all(copies[0].store) == read_all(index.store)
    assert read_all(copies[1].store) == read_all(index.store)
