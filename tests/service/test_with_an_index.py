"""The service of a real index: what is found, what others write into it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from eaglenet_mm.apis import RetrievalInferencer
from eaglenet_mm.search.video_index import VideoIndex
from tests.service.conftest import FILM, MARKUP, MOMENT

testclient = pytest.importorskip('starlette.testclient')
service = pytest.importorskip('eaglenet_mm.service')

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def where(
    videos: Path, index: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An index of copies: ``index`` is of files that are gone."""
    folder = tmp_path_factory.mktemp('copies')
    for name in (MARKUP, 'film.webm', 'page.html', 'old.avi'):
        shutil.copyfile(videos / name, folder / name)
    maker = RetrievalInferencer(
        'eaglenet_story', untrained=True, num_workers=1
    )
    where = tmp_path_factory.mktemp('index') / 'films.index'
    with maker.new_index(where, segment=float(MOMENT)) as made:
        # a file of any name is indexed if it is given by its name
        maker.encode_videos([folder, folder / 'page.html'], index=made)
        assert not maker.report.unreadable
        made.store.set_tags([str(folder / 'film.webm')], ['long'])
    return where


@pytest.fixture(scope='module')
def client(where: Path) -> Any:
    inferencer = RetrievalInferencer.of_index(where, num_workers=1)
    settings = service.Settings(max_upload=1)
    app = service.make_app(inferencer, settings)
    return testclient.TestClient(
        app, 'http://127.0.0.1', raise_server_exceptions=False
    )


def search(client: Any, **asked: Any) -> Any:
    response = client.post('/v1/search', json=asked)
    assert response.status_code == 200, response.text
    return response.json()


def test_hits_of_an_index(client: Any) -> None:
    answer = search(client, text='a red square moves left')
    assert len(answer['hits']) == answer['total'] == 3 + FILM // MOMENT
    assert answer['scored'] == answer['total']
    scores = [hit['score'] for hit in answer['hits']]
    assert scores == sorted(scores, reverse=True)
    for hit in answer['hits']:
        assert hit['problem'] == ''
        assert hit['start'] <= hit['best_time'] <= hit['end']
        assert client.get(hit['thumbnail']).content[:2] == b'\xff\xd8'
        moment = client.get(f'/v1/moments/{hit["moment_id"]}').json()
        assert moment['path'] == hit['path']
        assert moment['start'] == hit['start']
        assert moment['score'] is None
    grouped = search(client, text='a red square moves left', per_video=1)
    assert len(grouped['hits']) == 4
    several = search(client, texts=['a red square moves left', 'a ring'])
    assert [hit['moment_id'] for hit in several['answers'][0]['hits']] == [
        hit['moment_id'] for hit in answer['hits']
    ]
    tagged = search(client, text='a ring', filter={'tags': ['long']})
    assert {hit['name'] for hit in tagged['hits']} == {'film.webm'}


def test_what_is_cut_is_told(client: Any) -> None:
    query = 'a red ring grows and then ' * 50
    answer = search(client, text=query)
    assert 0 < answer['cut_at'] < 400
    again = search(client, text=query[: answer['cut_at']])
    assert again['cut_at'] is None
    assert again['hits'] == answer['hits']


@pytest.mark.parametrize(
    'query',
    [
        '犬が海に走って行く',
        '👩‍👩‍👧 ñandú',
        'a\x00b',
        'ab' * 10_000,
        '犬' * 10_000,
    ],
)
def test_any_text_is_a_query(client: Any, query: str) -> None:
    assert len(search(client, text=query, k=2)['hits']) == 2


def test_questions_that_the_index_refuses(client: Any) -> None:
    for asked in (
        dict(text=' '),
        dict(texts=['a', '']),
        dict(text='a', reject=0.1),  # is not calibrated
        dict(text='a', filter={'path': 'a\0b'}),
    ):
        response = client.post('/v1/search', json=asked)
        assert response.status_code == 400
        assert response.json()['error']
    for number in ('9223372036854775808', '9999999999999999999', '0'):
        response = client.get(f'/v1/moments/{number}/thumbnail')
        assert response.status_code == 404


def test_a_clip_finds_itself(client: Any, videos: Path) -> None:
    content = (videos / MARKUP).read_bytes()
    answer = client.post(
        '/v1/search_video',
        files={'clip': ('../a.mp4', content)},
        data={'k': '2', 'filter': '{"path": "*.mp4"}'},
    ).json()
    best = answer['hits'][0]
    assert best['name'] == MARKUP
    assert best['similarity'] == pytest.approx(1, abs=1e-4)
    assert {hit['name'][-4:] for hit in answer['hits']} == {'.mp4'}


PLAYLIST = '#EXTM3U\n#EXTINF:8,\nfile://{}\n#EXT-X-ENDLIST\n'
CONCAT = 'ffconcat version 1.0\nfile {}\n'


@pytest.mark.parametrize(
    'content',
    ['no film', '\0\0\0\x20ftypisom' + '\0' * 500, PLAYLIST, CONCAT],
)
@pytest.mark.parametrize('name', ['clip.mp4', 'clip.m3u8'])
def test_clips_that_are_no_videos(
    client: Any, videos: Path, content: str, name: str
) -> None:
    """Some name other files, of this machine or others."""
    body = content.format(videos / 'film.webm').encode()
    response = client.post('/v1/search_video', files={'clip': (name, body)})
    assert response.status_code == 422
    assert 'cannot be read as a video' in response.json()['error']


def test_what_another_process_writes_is_seen(client: Any, where: Path) -> None:
    before = client.get('/v1/about').json()
    hit = search(client, text='a ring', filter={'path': '*.avi'})['hits'][0]
    with VideoIndex.load(where, writable=True) as index:
        index.remove([hit['path']])
    answer = search(client, text='a ring')
    assert hit['path'] not in {one['path'] for one in answer['hits']}
    after = client.get('/v1/about').json()
    assert after['files'] == before['files'] - 1
    assert after['moments'] == answer['total'] == before['moments'] - 1
    for name in ('', '/video', '/thumbnail'):
        gone = client.get(f'/v1/moments/{hit["moment_id"]}{name}')
        assert gone.status_code == 404


def test_a_damaged_index_is_told(where: Path, tmp_path: Path) -> None:
    copy = tmp_path / 'films.index'
    shutil.copyfile(where, copy)
    inferencer = RetrievalInferencer.of_index(copy, num_workers=1)
    client = testclient.TestClient(
        service.make_app(inferencer),
        'http://127.0.0.1',
        raise_server_exceptions=False,
    )
    copy.write_bytes(b'')
    response = client.post('/v1/search', json={'text': 'a ring'})
    assert response.status_code == 500
    assert response.json()['error']
