"""What the service answers, what it refuses, and in which words."""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import runpy
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eaglenet_mm.search.errors import DamagedIndexError
from eaglenet_mm.search.records import Moment
from tests.conftest import REPOSITORY
from tests.service.conftest import (
    BROKEN_UNICODE,
    FILM,
    FIRST_ID,
    MARKUP,
    MOMENT,
    PAGE,
    served,
)
from tests.service.fake_index import (
    JPEG,
    FakeIndex,
    FakeInferencer,
    moments_of,
)

testclient = pytest.importorskip('starlette.testclient')
service = pytest.importorskip('eaglenet_mm.service')
Settings, make_app = service.Settings, service.make_app


@pytest.fixture
def client(app: Any) -> Any:
    return testclient.TestClient(
        app, 'http://127.0.0.1:7860', raise_server_exceptions=False
    )


def search(client: Any, query: Any, **content: Any) -> Any:
    return client.post('/v1/search', json={'text': query, **content})


def upload(client: Any, name: str, content: bytes, **fields: Any) -> Any:
    return client.post(
        '/v1/search_video', files={'clip': (name, content)}, data=fields
    )


def error_of(response: Any, status: int) -> str:
    assert response.status_code == status, response.text
    assert set(response.json()) == {'error'}
    return response.json()['error']


# The page


@pytest.mark.parametrize(
    ('path', 'kind', 'file'),
    [
        ('/', 'text/html; charset=utf-8', 'index.html'),
        ('/docs', 'text/html; charset=utf-8', 'docs.html'),
        ('/docs.js', 'text/javascript; charset=utf-8', 'docs.js'),
        ('/page.css', 'text/css; charset=utf-8', 'page.css'),
        ('/page.js', 'text/javascript; charset=utf-8', 'page.js'),
        ('/icon.svg', 'image/svg+xml', 'icon.svg'),
    ],
)
def test_the_page_and_its_parts(
    client: Any, path: str, kind: str, file: str
) -> None:
    response = client.get(path)
    assert response.content == (PAGE / file).read_bytes()
    assert response.headers['content-type'] == kind


@pytest.mark.parametrize(
    'path',
    [
        '/',
        '/docs',
        '/healthz',
        '/v1/about',
        f'/v1/moments/{FIRST_ID}/video',
        f'/v1/moments/{FIRST_ID}/thumbnail',
        '/nothing',
    ],
)
def test_every_answer_has_security_headers(client: Any, path: str) -> None:
    headers = client.get(path).headers
    policy = headers['content-security-policy']
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert 'unsafe' not in policy
    assert '*' not in policy
    assert headers['x-content-type-options'] == 'nosniff'
    assert headers['referrer-policy'] == 'no-referrer'
    assert headers['cross-origin-resource-policy'] == 'same-origin'
    assert not [name for name in headers if name.startswith('access-control')]


@pytest.mark.parametrize('name', ['index', 'docs'])
def test_pages_ask_no_other_host_and_have_no_inline_code(name: str) -> None:
    page = (PAGE / f'{name}.html').read_text()
    name = {'index': 'page'}.get(name, name)
    script = (PAGE / f'{name}.js').read_text()
    for text in (page, script, (PAGE / 'page.css').read_text()):
        assert '://' not in text
    assert page.count('<script') == 1
    assert f'<script src="{name}.js" defer></script>' in page
    assert '<style' not in page
    assert 'style=' not in page
    for word in ('innerHTML', 'outerHTML', 'insertAdjacent', 'eval('):
        assert word not in script


def luminance(colour: str) -> float:
    digits = colour.lstrip('#')
    if len(digits) == 3:
        digits = ''.join(digit * 2 for digit in digits)
    parts = [int(digits[n : n + 2], 16) / 255 for n in (0, 2, 4)]
    linear = [
        x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4
        for x in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize('scheme', [0, 1], ids=['light', 'dark'])
@pytest.mark.parametrize(
    ('front', 'back', 'least'),
    [
        *((x, y, 4.5) for x in ('ink', 'soft') for y in ('paper', 'ground')),
        ('accent', 'paper', 4.5),
        ('on-accent', 'accent', 4.5),
        ('bad', 'bad-soft', 4.5),
        ('warn', 'warn-soft', 4.5),
        ('edge', 'paper', 3),
        ('edge', 'ground', 3),
        ('span', 'rule', 3),
        ('accent', 'rule', 3),
        ('tick', 'paper', 3),
    ],
)
def test_contrast_is_enough(
    scheme: int, front: str, back: str, least: float
) -> None:
    """Level AA of the Web Content Accessibility Guidelines."""
    css = (PAGE / 'page.css').read_text()
    blocks = re.findall(r':root \{(.*?)\}', css, re.DOTALL)
    colours = dict(re.findall(r'--([\w-]+): (#\w+)', blocks[scheme]))
    one, two = (luminance(colours[name]) + 0.05 for name in (front, back))
    assert max(one, two) / min(one, two) >= least


def test_what_the_index_is(client: Any, ids: dict[str, int]) -> None:
    about = client.get('/v1/about').json()
    assert about['index'] == 'films.index'
    assert about['files'] == len(ids) == 8
    assert about['moments'] == 7 + FILM // MOMENT
    assert about['segment'] == MOMENT
    assert about['head'] == 'FakeInferencer'
    assert about['untrained'] == ['head']
    assert about['tags'] == ['film']
    assert about['folders'] == [about['root'], f'{about["root"]}/below']
    assert len(about['samples']) == 8
    assert client.get(f'/{about["samples"][0]}').content == JPEG
    health = client.get('/healthz').json()
    assert health == {'status': 'ok', 'moments': about['moments']}


def test_the_interface_is_described(client: Any) -> None:
    told = client.get('/openapi.json').json()
    assert {
        '/healthz',
        '/v1/about',
        '/v1/search',
        '/v1/search_video',
        '/v1/moments/{moment_id}',
        '/v1/moments/{moment_id}/thumbnail',
        '/v1/moments/{moment_id}/video',
    } == set(told['paths'])
    form = told['paths']['/v1/search_video']['post']['requestBody']
    assert list(form['content']) == ['multipart/form-data']
    assert '://' not in json.dumps(told)


# Searching by a sentence


def test_hits_have_all_that_the_page_shows(client: Any, videos: Path) -> None:
    answer = search(client, 'a red square moves left', k=100).json()
    hits = answer['hits']
    assert len(hits) == 7 + FILM // MOMENT == answer['total']
    scores = [hit['score'] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    film = [hit for hit in hits if hit['name'] == 'film.webm']
    assert sorted((hit['start'], hit['end']) for hit in film) == [
        (0, MOMENT),
        (MOMENT, FILM),
    ]
    for hit in film:
        assert hit['start'] <= hit['best_time'] < hit['end']
        assert hit['path'] == str(videos / 'film.webm')
        assert hit['kind'] == 'video/webm'
        assert hit['duration'] == FILM
        assert hit['tags'] == ['film']
        assert hit['problem'] == ''
        # 2**60 + 1 is no number of JavaScript
        assert int(hit['moment_id']) >= FIRST_ID
        moment = client.get(f'/v1/moments/{hit["moment_id"]}').json()
        of_search = ('best_time', 'score', 'similarity', 'others')
        assert moment == {**hit, **{x: moment[x] for x in of_search}}
    assert not answer['has_more']
    assert answer['cut_at'] is None


def test_pages_and_groups(client: Any) -> None:
    whole = search(client, 'a ring', k=100).json()['hits']
    first, second = (
        search(client, 'a ring', k=4, offset=offset).json()
        for offset in (0, 4)
    )
    assert first['hits'] + second['hits'] == whole[:8]
    assert first['has_more']
    grouped = search(client, 'a ring', k=100, per_video=1).json()['hits']
    assert len(grouped) == 8
    film = next(hit for hit in grouped if hit['name'] == 'film.webm')
    assert [other['name'] for other in film['others']] == ['film.webm']


def test_several_texts(client: Any) -> None:
    texts = ['a ring', 'a square']
    several = client.post('/v1/search', json={'texts': texts, 'k': 2}).json()
    assert [x['hits'] for x in several['answers']] == [
        search(client, text, k=2).json()['hits'] for text in texts
    ]


@pytest.mark.parametrize(
    ('only', 'number'),
    [
        ({}, 8),
        ({'path': '*.webm'}, 1),
        ({'path': 'below'}, 1),
        ({'tags': ['film']}, 1),
        ({'tags': ['film', 'other']}, 0),
        ({'min_duration': '5s'}, 1),
        ({'max_duration': '0.1m'}, 7),
        ({'after': '2001-01-01'}, 8),
        ({'before': '2001-01-01'}, 0),
    ],
)
def test_filters(client: Any, videos: Path, only: Any, number: int) -> None:
    if only.get('path') == 'below':
        only = {'path': str(videos / 'below')}
    answer = search(client, 'a ring', filter=only, per_video=1).json()
    assert len(answer['hits']) == number
    clip = (videos / 'below/plain.mp4').read_bytes()
    fields = dict(filter=json.dumps(only), per_video='1')
    assert len(upload(client, 'a', clip, **fields).json()['hits']) == number


@pytest.mark.parametrize(
    ('only', 'status'),
    [
        ({'path': 7}, 422),
        ({'path': 'x' * 5000}, 422),
        ({'path': 'a\x00b'}, 400),
        ({'path': "'; DROP TABLE videos; --"}, 200),
        ({'path': '[[[[***???' * 20}, 200),
        ({'after': 'yesterday'}, 400),
        ({'after': '99999999-01-01'}, 400),
        ({'after': True}, 422),
        ({'min_duration': '-1'}, 400),
        ({'min_duration': '9' * 4000}, 400),
        ({'min_duration': 'nan'}, 400),
        ({'max_duration': '1e999'}, 400),
        ({'tags': 'film'}, 422),
        ({'tags': ['x'] * 99}, 422),
        ({'tags': [None]}, 422),
        ({'sql': '1=1'}, 422),
        ([], 422),
    ],
)
def test_hostile_filters(client: Any, only: Any, status: int) -> None:
    response = search(client, 'a ring', filter=only)
    if status == 200:
        assert response.json()['hits'] == []
    else:
        assert len(error_of(response, status)) <= 600
    form = upload(client, 'a', b'x', filter=json.dumps(only))
    assert form.status_code == status
    assert upload(client, 'a', b'x', filter='{').status_code == 422


def test_weak_evidence_is_told(client: Any) -> None:
    answer = search(client, 'nothing zzyx').json()
    assert answer['unknown_words'] == ['zzyx']
    assert answer['nothing_found']  # by --reject of the service
    assert not search(client, 'a ring').json()['nothing_found']
    strict = search(client, 'a ring', reject=0.9).json()
    assert strict['nothing_found']
    # a shortlist for which the index was not calibrated
    free = search(client, 'nothing', shortlist=5).json()
    assert free['p_value'] is None


def test_what_is_no_number_is_null(client: Any) -> None:
    hits = search(client, 'unscored').json()['hits']
    assert {hit['score'] for hit in hits} == {None}


def test_a_changed_index_is_seen(videos: Path) -> None:
    index = FakeIndex([])
    client = testclient.TestClient(
        make_app(FakeInferencer(index)), 'http://[::1]'
    )
    assert search(client, 'a ring').json()['hits'] == []
    assert client.get('/v1/about').json()['files'] == 0
    index.next = moments_of(videos / 'film.webm', 7, FILM)
    assert len(search(client, 'a ring').json()['hits']) == 2
    about = client.get('/v1/about').json()
    assert (about['files'], about['moments']) == (1, 2)
    index.next = []
    assert client.get('/v1/about').json()['moments'] == 0
    error_of(client.get('/v1/moments/7/video'), 404)


def test_names_of_files_are_data(client: Any) -> None:
    response = search(client, 'a ring', k=100)
    assert response.headers['content-type'] == 'application/json'
    names = {hit['name'] for hit in response.json()['hits']}
    assert {MARKUP, 'caf\N{REPLACEMENT CHARACTER}.mp4'} <= names


@pytest.mark.parametrize(
    'query',
    [
        '犬が海に走って行く',
        'كلب يجري إلى البحر',
        'собака 👩‍👩‍👧 ñandú',
        '<script>alert(1)</script>',
        '"; DROP TABLE videos; --',
        'a\x00b',
        '../../etc/passwd',
        'a ' * 5_000,
        'ab' * 10_000,
        '犬' * 10_000,
    ],
)
def test_any_text_is_a_query(client: Any, query: str) -> None:
    answer = search(client, query, k=2)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()['hits']) == 2


def test_half_a_character_is_no_query(client: Any) -> None:
    response = client.post(
        '/v1/search',
        content=b'{"text": "a \\ud800 ring", "k": 1}',
        headers={'content-type': 'application/json'},
    )
    assert 'unicode' in error_of(response, 422)


@pytest.mark.parametrize(
    ('content', 'status', 'words'),
    [
        ({'text': ''}, 400, 'The query is empty'),
        ({'text': ' \n\t '}, 400, 'The query is empty'),
        ({'text': 'x' * 20_001}, 422, 'at most 20000 characters'),
        ({'texts': ['x' * 20_001]}, 422, 'at most 20000 characters'),
        ({'texts': ['a'] * 33}, 422, 'at most 32 items'),
        ({'texts': []}, 422, 'at least 1 item'),
        ({'text': 7}, 422, 'a valid string'),
        ({}, 422, "either a 'text' or 'texts'"),
        ({'text': 'a', 'texts': ['a']}, 422, "either a 'text' or 'texts'"),
        ({'query': 'a ring'}, 422, 'query: Extra inputs'),
        ({'text': 'a', 'x' * 999: 1}, 422, 'Extra inputs'),
        (['a ring'], 422, 'a valid dictionary'),
        ({'text': 'a ring', 'k': 0}, 422, 'k: '),
        ({'text': 'a ring', 'k': 101}, 422, 'k: '),
        ({'text': 'a ring', 'k': True}, 422, 'k: '),
        ({'text': 'a ring', 'k': 1.5}, 422, 'k: '),
        ({'text': 'a ring', 'k': '1'}, 422, 'k: '),
        ({'text': 'a ring', 'k': None}, 422, 'k: '),
        ({'text': 'a ring', 'offset': -1}, 422, 'offset: '),
        ({'text': 'a ring', 'offset': 10**30}, 422, 'offset: '),
        ({'text': 'a ring', 'per_video': -1}, 422, 'per_video: '),
        ({'text': 'a ring', 'shortlist': 0}, 422, 'shortlist: '),
        ({'text': 'a ring', 'reject': 1}, 422, 'reject: '),
    ],
)
def test_bad_questions_get_a_sentence(
    client: Any, content: Any, status: int, words: str
) -> None:
    response = client.post('/v1/search', json=content)
    error = error_of(response, status)
    assert words in error
    assert len(error) < 300
    assert 'xxxx' * 30 not in error


@pytest.mark.parametrize('body', [b'', b'{', b'\xff\xfe', b'[' * 50_000])
def test_what_is_no_json(client: Any, body: bytes) -> None:
    headers = {'content-type': 'application/json'}
    response = client.post('/v1/search', content=body, headers=headers)
    assert response.status_code in (400, 422)
    assert response.json()['error']


def test_a_body_that_is_too_large(client: Any) -> None:
    headers = {'content-type': 'application/json'}
    response = client.post('/v1/search', content=bytes(2**24), headers=headers)
    assert response.status_code == 413


def test_a_form_is_no_search(client: Any) -> None:
    """A form of another site needs no leave of the browser, JSON does."""
    for kind in ('application/x-www-form-urlencoded', 'text/plain'):
        response = client.post(
            '/v1/search',
            content=b'{"text": "a ring"}',
            headers={'content-type': kind},
        )
        assert error_of(response, 422)
    assert error_of(client.get('/v1/search'), 405)


# Videos and thumbnails


def test_a_video_is_served_whole_and_in_pieces(
    client: Any, ids: dict[str, int], videos: Path
) -> None:
    content = (videos / 'film.webm').read_bytes()
    address = f'/v1/moments/{ids["film.webm"]}/video'
    whole = client.get(address)
    assert whole.status_code == 200
    assert whole.content == content
    assert whole.headers['content-type'] == 'video/webm'
    assert whole.headers['accept-ranges'] == 'bytes'
    for asked, piece in (
        ('bytes=0-0', content[:1]),
        ('bytes=100-299', content[100:300]),
        ('bytes=1000-', content[1000:]),
        ('bytes=-50', content[-50:]),
    ):
        part = client.get(address, headers={'range': asked})
        assert part.status_code == 206
        assert part.content == piece
        assert part.headers['content-range'].endswith(f'/{len(content)}')
    past = client.get(address, headers={'range': f'bytes={len(content)}-'})
    assert past.status_code == 416
    head = client.head(address)
    assert head.status_code == 200
    assert not head.content


def test_a_file_called_html_is_no_page(
    client: Any, ids: dict[str, int]
) -> None:
    response = client.get(f'/v1/moments/{ids["page.html"]}/video')
    assert response.status_code == 200
    assert response.headers['content-type'] == 'application/octet-stream'


@pytest.mark.parametrize('name', [MARKUP, BROKEN_UNICODE, 'old.avi'])
def test_odd_names_are_served(
    client: Any, ids: dict[str, int], videos: Path, name: str
) -> None:
    response = client.get(f'/v1/moments/{ids[name]}/video')
    assert response.content == (videos / name).read_bytes()


def test_every_row_has_a_thumbnail(client: Any, ids: dict[str, int]) -> None:
    for moment_id in ids.values():
        response = client.get(f'/v1/moments/{moment_id}/thumbnail')
        assert response.headers['content-type'] == 'image/jpeg'
        assert response.content[:2] == b'\xff\xd8'


@pytest.mark.parametrize(
    ('name', 'status', 'words'),
    [
        ('gone.mp4', 410, 'gone.mp4 is gone: it was moved or deleted'),
        ('changed.mp4', 409, 'has changed since it was indexed'),
    ],
)
def test_files_that_are_not_what_was_indexed(
    client: Any, ids: dict[str, int], name: str, status: int, words: str
) -> None:
    response = client.get(f'/v1/moments/{ids[name]}/video')
    assert words in error_of(response, status)
    hits = search(client, 'a ring', k=100).json()['hits']
    hit = next(hit for hit in hits if hit['name'] == name)
    assert words in hit['problem']


def test_a_link_in_the_place_of_a_video(
    client: Any, ids: dict[str, int], videos: Path, tmp_path: Path
) -> None:
    """What a path leads to later is not what was indexed."""
    path, aside = videos / 'below/plain.mp4', tmp_path / 'aside'
    secret = tmp_path / 'secret'
    secret.write_bytes(b'secret')
    path.rename(aside)
    try:
        for target in (secret, tmp_path):
            path.symlink_to(target)
            response = client.get(f'/v1/moments/{ids["plain.mp4"]}/video')
            assert 'has changed' in error_of(response, 409)
            path.unlink()
    finally:
        aside.rename(path)
    assert (
        client.get(f'/v1/moments/{ids["plain.mp4"]}/video').status_code == 200
    )


TRAVERSALS = [
    '/v1/moments/../../etc/passwd',
    '/v1/moments/../../../../../../etc/passwd',
    '/v1/moments/%2e%2e/%2e%2e/etc/passwd',
    '/v1/moments/..%2f..%2fetc%2fpasswd',
    '/v1/moments/%252e%252e%252fetc%252fpasswd',
    '/v1/moments//etc/passwd',
    '/v1/moments/%2fetc%2fpasswd',
    '/v1/moments/..%5c..%5cetc%5cpasswd',
    '/v1/moments/file:%2f%2f%2fetc%2fpasswd',
    '/v1/moments/0/../../../etc/passwd',
    '/v1/moments/0%00/etc/passwd',
    '/v1/moments/film.webm',
    '/v1/moments/',
    '/v1/moments',
    '/v1/moments/-1',
    '/v1/moments/+1',
    '/v1/moments/1.0',
    '/v1/moments/0x1',
    '/v1/moments/1e0',
    '/v1/moments/%201',
    '/v1/moments/%D9%A1',
    '/v1/moments/True',
    '/v1/moments/999999',
    '/v1/moments/9223372036854775807',
    '/v1/moments/9223372036854775808',
    '/v1/moments/' + '9' * 5_000,
    '/v1/moments/thumbnail/../video/0',
    '/v1/moments/thumbnail/-1',
    '/v1/moments/thumbnail/' + '9' * 30,
    f'/v1/moments/{FIRST_ID}/../../../etc/passwd/video',
    '/v1/moments/..%2f..%2fetc/video',
    '/v1/moments/%00/video',
    '/v1/moments/9223372036854775808/thumbnail',
    '/index.html',
    '/page/page.css',
    '/application.py',
    '/../service/application.py',
    '/%2e%2e/application.py',
    '/docs/',
    '/redoc',
    '/page.js/',
    '/..',
]


@pytest.mark.parametrize('path', TRAVERSALS)
def test_nothing_else_can_be_named(port: int, path: str) -> None:
    """Through a socket, since clients tidy such paths up."""
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=20)
    connection.request('GET', path)
    response = connection.getresponse()
    content = json.loads(response.read())
    connection.close()
    assert response.status == 404
    assert set(content) == {'error'}


# Who may ask


@pytest.mark.parametrize(
    ('host', 'status'),
    [
        ('127.0.0.1:7860', 200),
        ('localhost', 200),
        ('LOCALHOST:9999', 200),
        ('[::1]:7860', 200),
        ('evil.example', 421),
        ('evil.example:7860', 421),
        ('127.0.0.1.evil.example', 421),
        ('localhost.evil.example', 421),
        ('localhost@evil.example', 421),
        ('192.168.0.7:7860', 421),
        ('[::1', 421),
        ('', 421),
    ],
)
def test_the_host_must_be_known(client: Any, host: str, status: int) -> None:
    response = client.get('/v1/about', headers={'host': host})
    assert response.status_code == status
    if status == 421:
        assert 'localhost' in error_of(response, 421)


@pytest.mark.parametrize(
    ('served', 'host', 'allowed'),
    [
        ('films.lan', 'films.lan:80', True),
        ('films.lan', 'other.lan', False),
        ('0.0.0.0', '192.168.0.7:7860', True),
        ('::', '[fd00::7]:7860', True),
        ('0.0.0.0', 'evil.example', False),
        ('', '', False),
        ('::1', 'videos.example', True),
        ('::1', 'a.films.example:80', True),
        ('::1', 'films.example', False),
        ('::1', 'films.example.evil.example', False),
    ],
)
def test_other_hosts_when_asked_for(
    served: str, host: str, allowed: bool
) -> None:
    from starlette.responses import PlainTextResponse

    from eaglenet_mm.service.guards import Guard

    names = ['Videos.example', '*.films.example']
    settings = Settings(host=served, allowed_host=names)
    guard = Guard(PlainTextResponse('here'), settings)
    client = testclient.TestClient(guard)
    response = client.get('/', headers={'host': host})
    assert response.status_code == (200 if allowed else 421)


@pytest.mark.parametrize(
    ('origin', 'status'),
    [
        ('http://127.0.0.1:7860', 200),
        ('http://evil.example', 403),
        ('http://127.0.0.1:8000', 403),
        ('http://[', 403),
        ('null', 403),
    ],
)
def test_pages_of_other_sites_may_not_search(
    client: Any, origin: str, status: int
) -> None:
    response = client.post(
        '/v1/search',
        json={'text': 'a ring'},
        headers={'origin': origin},
    )
    assert response.status_code == status
    asked = client.options('/v1/search', headers={'origin': origin})
    assert asked.status_code != 200


# Searching by a clip


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The temporary folders that were made, all gone in the end."""
    made: list[str] = []

    class Recorded(tempfile.TemporaryDirectory):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self.name)

    monkeypatch.setattr(tempfile, 'TemporaryDirectory', Recorded)
    yield made
    assert not [folder for folder in made if os.path.exists(folder)]


@pytest.mark.parametrize(
    'name', ['film.webm', '../../../tmp/evil.mp4', '/etc/passwd', MARKUP]
)
def test_a_clip_is_searched_with(
    client: Any, videos: Path, temporary: list[str], name: str
) -> None:
    content = (videos / 'below/plain.mp4').read_bytes()
    whole = upload(client, name, content, k='4').json()['hits']
    assert len(whole) == 4
    part = upload(client, name, content, k='2', offset='2').json()
    assert part['hits'] == whole[2:]
    assert len(temporary) == 2
    assert not Path('/tmp/evil.mp4').exists()


@pytest.mark.parametrize(
    ('content', 'words'),
    [(b'', 'is empty'), (b'this is no video', 'cannot be read as a video')],
)
@pytest.mark.parametrize('name', ['clip.mp4', '<b>' * 99])
def test_clips_that_are_no_videos(
    client: Any, temporary: list[str], content: bytes, words: str, name: str
) -> None:
    message = error_of(upload(client, name, content), 422)
    assert words in message
    assert message.startswith(name[:20])
    assert len(message) < 220
    assert 'eaglenet_mm-' not in message


def test_large_clips_are_refused_unread(
    client: Any, temporary: list[str]
) -> None:
    response = upload(client, 'clip.mp4', bytes(2**20 + 2**18))
    assert response.status_code == 413
    assert not temporary


def send_part_of_a_clip(port: int, length: int, body: bytes = b'') -> Any:
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=10)
    connection.putrequest('POST', '/v1/search_video')
    kind = 'multipart/form-data; boundary=cut'
    connection.putheader('content-type', kind)
    connection.putheader('content-length', str(length))
    connection.endheaders(body)
    return connection


def test_a_stated_size_is_refused_before_anything_is_sent(port: int) -> None:
    connection = send_part_of_a_clip(port, 10**12)
    assert connection.getresponse().status == 413
    connection.close()


def test_an_upload_that_breaks_off(
    port: int, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger('uvicorn')
    log.addHandler(caplog.handler)
    connection = send_part_of_a_clip(port, 100000, b'--cut\r\nContent-Disp')
    time.sleep(0.2)
    connection.close()
    time.sleep(0.3)
    log.removeHandler(caplog.handler)
    assert client.get('/healthz').status_code == 200
    assert not caplog.records


def test_large_clips_of_unknown_size_are_refused(
    client: Any, temporary: list[str]
) -> None:
    """Reading ends where the limit is, whatever would still come."""

    def pieces() -> Iterator[bytes]:
        yield (
            b'--cut\r\nContent-Disposition: form-data; name="clip"; '
            b'filename="clip.mp4"\r\n\r\n'
        )
        for _ in range(64):
            yield bytes(2**16)
        yield b'\r\n--cut--\r\n'

    response = client.post(
        '/v1/search_video',
        content=pieces(),
        headers={'content-type': 'multipart/form-data; boundary=cut'},
    )
    assert response.status_code == 413
    assert not temporary


@pytest.mark.parametrize(
    'request_body',
    [
        dict(data={'k': '3'}),
        dict(files={'other': ('a.mp4', b'x')}),
        dict(files={'clip': (None, 'text')}),
        dict(files=[('clip', ('a', b'x')), ('clip', ('b', b'x'))]),
        dict(files={'clip': ('a', b'x')}, data={'k': '0'}),
        dict(files={'clip': ('a', b'x')}, data={'k': 'x'}),
        dict(files={'clip': ('a', b'x')}, data={'filter': 'x' * 2**17}),
        dict(files={'clip': ('a', b'x')}, data={'another': 'x'}),
        dict(files={'clip': ('a', b'x')}, data=dict.fromkeys('abcde', '1')),
        dict(
            content=b'--cut\r\nrubbish',
            headers={'content-type': 'multipart/form-data; boundary=cut'},
        ),
        dict(
            content=b'rubbish',
            headers={'content-type': 'multipart/form-data'},
        ),
    ],
)
def test_forms_that_are_wrong(
    client: Any, temporary: list[str], request_body: dict
) -> None:
    response = client.post('/v1/search_video', **request_body)
    assert response.status_code in (400, 422)
    assert response.json()['error']
    assert not temporary


# The model


def test_rejecting_without_a_calibration_fails_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inferencer = FakeInferencer(FakeIndex([]))

    def search(*args: Any, reject: float | None, **kwargs: Any) -> None:
        if reject is not None:
            raise ValueError('is not calibrated')

    monkeypatch.setattr(inferencer, 'search', search)
    make_app(inferencer)
    with pytest.raises(ValueError, match='not calibrated'):
        make_app(inferencer, Settings(reject=0.1))


def test_an_index_that_was_replaced(tmp_path: Path) -> None:
    """What is open is the old file, which nobody sees any longer."""
    index = FakeIndex([])
    index.where = str(tmp_path / 'a.index')
    Path(index.where).write_bytes(b'')
    client = testclient.TestClient(
        make_app(FakeInferencer(index)), 'http://localhost'
    )
    assert search(client, 'a ring').status_code == 200
    Path(index.where).rename(tmp_path / 'b.index')
    for _ in range(2):  # gone, and another one
        error = error_of(search(client, 'a ring'), 500)
        assert error.startswith('a.index is no longer the file')
        Path(index.where).write_bytes(b'')


def test_a_sample_that_goes_while_the_index_is_described(
    inferencer: FakeInferencer,
    index: FakeIndex,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = testclient.TestClient(make_app(inferencer), 'http://localhost')

    def moment(moment_id: int) -> Moment:
        if moment_id == FIRST_ID:
            raise KeyError(moment_id)
        return index.moments[moment_id]

    monkeypatch.setattr(index, 'moment', moment)
    assert len(client.get('/v1/about').json()['samples']) == 7


def test_a_row_that_goes_while_it_is_asked_for(
    client: Any, index: FakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    def thumbnail(moment_id: int) -> bytes:
        raise KeyError(moment_id)

    monkeypatch.setattr(index, 'thumbnail', thumbnail)
    response = client.get(f'/v1/moments/{FIRST_ID}/thumbnail')
    assert error_of(response, 404) == 'The index has no such moment.'


def test_the_end_of_the_service_is_no_error(
    inferencer: FakeInferencer, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(inferencer)
    free = threading.Event()
    app.state.searches._thread.submit(free.wait, 30)
    with served(app) as port:
        log = logging.getLogger('uvicorn.error')
        log.addHandler(caplog.handler)
        connection = http.client.HTTPConnection('127.0.0.1', port, timeout=20)
        headers = {'content-type': 'application/json'}
        connection.request('POST', '/v1/search', '{"text": "a"}', headers)
        time.sleep(0.3)
    response = connection.getresponse()
    assert response.status == 503
    assert b'The service ends' in response.read()
    free.set()
    log.removeHandler(caplog.handler)
    assert 'Cancel 1 running task' in caplog.text
    assert 'Traceback' not in caplog.text


def test_the_page_answers_while_the_model_works(app: Any, client: Any) -> None:
    free = threading.Event()
    app.state.searches._thread.submit(free.wait, 30)
    answers: list[Any] = []
    waiting = [
        threading.Thread(
            target=lambda: answers.append(search(client, 'a ring', k=1))
        )
        for _ in range(3)
    ]
    for thread in waiting:
        thread.start()
    try:
        for path in ('/', '/healthz', f'/v1/moments/{FIRST_ID}/thumbnail'):
            assert client.get(path).status_code == 200
        assert not answers
    finally:
        free.set()
    for thread in waiting:
        thread.join(20)
    assert [answer.status_code for answer in answers] == [200] * 3


def test_time_is_limited(inferencer: FakeInferencer) -> None:
    app = make_app(inferencer, Settings(time_limit=0.3))
    client = testclient.TestClient(app, 'http://127.0.0.1')
    free = threading.Event()
    app.state.searches._thread.submit(free.wait, 30)
    response = search(client, 'a ring')
    free.set()
    assert 'more than 0.3 seconds' in error_of(response, 503)
    assert response.headers['x-content-type-options'] == 'nosniff'
    assert search(client, 'a ring').status_code == 200


def test_a_slow_sender_is_given_up(
    inferencer: FakeInferencer, temporary: list[str]
) -> None:
    with served(make_app(inferencer, Settings(time_limit=0.3))) as port:
        connection = send_part_of_a_clip(port, 1000, b'--cut\r\nContent-')
        assert connection.getresponse().status == 503
        connection.close()


@pytest.mark.parametrize(
    ('error', 'status', 'words'),
    [
        (RuntimeError('CUDA: secret'), 500, 'failed (RuntimeError)'),
        (KeyError("['dog'] are not among"), 400, "['dog'] are not among"),
        (DamagedIndexError('part 3 is damaged'), 500, 'part 3 is damaged'),
    ],
)
def test_a_search_that_fails(
    client: Any,
    inferencer: FakeInferencer,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
    words: str,
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(inferencer, 'search', fail)
    response = search(client, 'a ring')
    message = error_of(response, status)
    assert words in message
    assert 'secret' not in message
    assert response.headers['x-content-type-options'] == 'nosniff'


# The token


TOKEN = '0123456789abcdef'


@pytest.fixture
def guarded(inferencer: FakeInferencer) -> Any:
    return testclient.TestClient(
        make_app(inferencer, Settings(token=TOKEN, max_upload=1)),
        'http://127.0.0.1',
    )


@pytest.mark.parametrize(
    'header',
    [
        None,
        '',
        'Bearer',
        'Bearer ',
        f'Bearer {TOKEN}x',
        f'Bearer {TOKEN[:-1]}',
        f'Basic {TOKEN}',
        TOKEN,
        b'Bearer \xff\xfe',
    ],
)
def test_without_the_token(guarded: Any, header: Any) -> None:
    headers = {} if header is None else {'authorization': header}
    moment = f'/v1/moments/{FIRST_ID}'
    for path in ('/v1/about', moment, f'{moment}/video', '/v1/nothing'):
        response = guarded.get(path, headers=headers)
        assert 'token' in error_of(response, 401)
        assert response.headers['www-authenticate'] == 'Bearer'
    # nothing is read of it
    large = guarded.post(
        '/v1/search_video', headers=headers, content=bytes(2**22)
    )
    assert large.status_code == 401
    for path in ('/', '/page.js', '/docs', '/openapi.json', '/healthz'):
        assert guarded.get(path, headers=headers).status_code == 200


def test_with_the_token(guarded: Any) -> None:
    guarded.headers['authorization'] = f'bearer {TOKEN}'
    first, second = search(guarded, 'a ring', k=2).json()['hits']
    del guarded.headers['authorization']
    # players send no header: the address has a key of its own
    assert guarded.get(first['thumbnail']).status_code == 200
    assert TOKEN not in first['thumbnail']
    key = first['thumbnail'].partition('?')[2]
    address = second['thumbnail'].partition('?')[0]
    error_of(guarded.get(f'{address}?{key}'), 401)
    error_of(guarded.get(f'/v1/about?{key}'), 401)
    error_of(guarded.get(f'/v1/moments/{first["moment_id"]}?{key}'), 401)
    error_of(guarded.get(first['thumbnail'].partition('?')[0]), 401)


def test_neither_keys_nor_queries_are_logged(
    inferencer: FakeInferencer, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(inferencer, Settings(token=TOKEN))
    with served(app, 'info') as port:
        log = logging.getLogger('uvicorn.access')  # set up by now
        log.addHandler(caplog.handler)
        for path in (f'/v1/about?token={TOKEN}', f'/?q={TOKEN}'):
            connection = http.client.HTTPConnection('127.0.0.1', port)
            connection.request('GET', path)
            connection.getresponse().read()
            connection.close()
    log.removeHandler(caplog.handler)
    assert '/v1/about' in caplog.text
    assert TOKEN not in caplog.text


# Settings


@pytest.mark.parametrize(
    ('wrong', 'name'),
    [
        (dict(max_upload=0), 'max_upload'),
        (dict(shortlist=-1), 'shortlist'),
        (dict(time_limit=0), 'time_limit'),
        (dict(reject=1.0), 'reject'),
        (dict(token='short'), 'token'),
        (dict(token='with a space in it'), 'token'),
    ],
)
def test_settings_are_checked(wrong: Any, name: str) -> None:
    with pytest.raises(ValueError, match=name) as caught:
        Settings(**wrong)
    assert 'space' not in str(caught.value)


def test_an_index_is_needed() -> None:
    inferencer = FakeInferencer(FakeIndex([]))
    inferencer.index = None
    with pytest.raises(ValueError, match='needs an index'):
        make_app(inferencer)


@pytest.mark.parametrize('path', ['films', '/films/', '/films'])
@pytest.mark.parametrize('sent', ['', '/films'])
def test_below_a_path_of_a_proxy(
    inferencer: FakeInferencer, path: str, sent: str
) -> None:
    """Whether the proxy takes the path away or not."""
    app = make_app(inferencer, Settings(root_path=path))
    client = testclient.TestClient(app, 'http://127.0.0.1')
    assert client.get(f'{sent}/').status_code == 200
    assert client.get(f'{sent}/page.js').status_code == 200
    assert client.get(f'{sent}/v1/about').status_code == 200
    told = client.get(f'{sent}/openapi.json').json()
    assert told['servers'] == [{'url': '/films'}]


# The command


@pytest.fixture
def serve(inferencer: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run tools/serve.py without serving; give what uvicorn would get."""
    import uvicorn

    command = runpy.run_path(str(REPOSITORY / 'tools/serve.py'))
    opened: list[Any] = []
    monkeypatch.delenv('EAGLENET_MM_TOKEN', raising=False)
    monkeypatch.setattr(
        command['RetrievalInferencer'],
        'of_index',
        lambda *args, **kwargs: opened.append((args, kwargs)) or inferencer,
    )

    def run(*options: str) -> tuple[Any, dict[str, Any]]:
        calls: list[Any] = []
        monkeypatch.setattr(
            uvicorn, 'run', lambda app, **k: calls.append((app, k))
        )
        monkeypatch.setattr(sys, 'argv', ['serve.py', 'a.index', *options])
        command['main']()
        return calls[0]

    run.opened = opened
    run.command = command
    return run


def test_only_this_machine_by_default(serve: Any, capsys: Any) -> None:
    app, settings = serve()
    assert settings['host'] == '127.0.0.1'
    assert settings['port'] == 7860
    assert settings['log_level'] == 'info'  # requests are listed
    assert app.state.searches.settings == Settings()
    said = capsys.readouterr().err
    assert 'Open http://127.0.0.1:7860' in said
    assert 'WARNING: everyone' not in said


def test_options_reach_the_service(serve: Any, capsys: Any) -> None:
    app, settings = serve(
        *('--host', '0.0.0.0', '--port', '80', '--no-access-log'),
        *('--allowed-host', 'a.example', '--allowed-host', 'b.example'),
        *('--shortlist', '0', '--reject', '0.1', '--max-upload', '3'),
        *('--example', 'a ring', '--head', 'x_pool_story', '--device', 'cpu'),
    )
    assert settings['host'] == '0.0.0.0'
    assert settings['log_level'] == 'warning'
    assert 'everyone who reaches 0.0.0.0:80 can search and watch' in (
        capsys.readouterr().err
    )
    told = app.state.searches.settings
    assert (told.shortlist, told.reject, told.max_upload) == (0, 0.1, 3)
    assert told.example == ['a ring']
    args, options = serve.opened[0]
    assert args == ('a.index', None, 'cpu')
    assert options['head'] == 'x_pool_story'
    for host in ('10.1.2.3', 'a.example', 'b.example'):
        client = testclient.TestClient(app, f'http://{host}')
        assert client.get('/v1/about').status_code == 200


def test_the_token_may_stand_in_the_environment(
    serve: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv('EAGLENET_MM_TOKEN', TOKEN)
    app, _ = serve('--host', '0.0.0.0')
    assert app.state.searches.settings.token == TOKEN
    assert 'WARNING: everyone' not in capsys.readouterr().err


def test_missing_packages_are_named(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        serve.command['main'].__globals__,
        'find_spec',
        lambda name: None if name == 'uvicorn' else object(),
    )
    with pytest.raises(ImportError, match=r'uvicorn.*eaglenet_mm\[serve\]'):
        serve()
