"""What the demo serves, what it refuses, and in which words."""

from __future__ import annotations

import http.client
import json
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eaglenet_mm.apis import RetrievalInferencer
from eaglenet_mm.search.errors import DamagedIndexError
from tests.demo.conftest import BROKEN_UNICODE, DEMO, FILM, MARKUP, MOMENT

testclient = pytest.importorskip('starlette.testclient')


@pytest.fixture
def client(app: Any) -> Any:
    return testclient.TestClient(
        app, 'http://127.0.0.1:7860', raise_server_exceptions=False
    )


def search(client: Any, query: Any, **content: Any) -> Any:
    return client.post('/api/search', json={'query': query, **content})


def upload(client: Any, name: str, content: bytes, **fields: Any) -> Any:
    return client.post(
        '/api/search_video', files={'clip': (name, content)}, data=fields
    )


def error_of(response: Any, status: int) -> str:
    assert response.status_code == status, response.text
    assert set(response.json()) == {'error'}
    return response.json()['error']


# The page


@pytest.mark.parametrize(
    ('path', 'kind', 'file'),
    [
        ('/', 'text/html; charset=utf-8', 'page.html'),
        ('/page.css', 'text/css; charset=utf-8', 'page.css'),
        ('/page.js', 'text/javascript; charset=utf-8', 'page.js'),
        ('/icon.svg', 'image/svg+xml', 'icon.svg'),
    ],
)
def test_the_page_and_its_parts(
    client: Any, path: str, kind: str, file: str
) -> None:
    response = client.get(path)
    assert response.content == (DEMO / 'page' / file).read_bytes()
    assert response.headers['content-type'] == kind


@pytest.mark.parametrize(
    'path', ['/', '/api/about', '/video/0', '/thumbnail/0', '/nothing']
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


def test_the_page_asks_no_other_host_and_has_no_inline_code() -> None:
    page = (DEMO / 'page/page.html').read_text()
    for name in ('page.html', 'page.css', 'page.js'):
        assert '://' not in (DEMO / 'page' / name).read_text()
    assert page.count('<script') == page.count('<script src="/page.js"') == 1
    assert '<style' not in page
    assert 'style=' not in page
    script = (DEMO / 'page/page.js').read_text()
    for word in ('innerHTML', 'outerHTML', 'insertAdjacent', 'eval('):
        assert word not in script


def test_what_the_index_is(client: Any, rows: dict[str, int]) -> None:
    about = client.get('/api/about').json()
    assert about['index'] == 'films.index'
    assert about['files'] == len(rows) == 8
    assert about['rows'] == 7 + FILM // MOMENT
    assert about['segment'] == MOMENT
    assert about['method'] == 'EagleNetHead'
    assert about['untrained']
    assert {one['name'] for one in about['samples']} == set(rows)


# Searching by a sentence


def test_hits_have_all_that_the_page_shows(client: Any, videos: Path) -> None:
    answer = search(client, 'a red square moves left', k=100).json()
    hits = answer['hits']
    assert len(hits) == 7 + FILM // MOMENT
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
        assert hit['duration'] == pytest.approx(FILM, abs=0.2)
        assert not hit['trouble']
    folders = {hit['name']: hit['folder'] for hit in hits}
    assert folders['plain.mp4'] == 'below'
    assert folders['film.webm'] == '.'
    assert 'RANDOM WEIGHTS' in answer['note']
    assert answer['read'] is None


def test_names_of_files_are_data(client: Any) -> None:
    response = search(client, 'a ring', k=100)
    assert response.headers['content-type'] == 'application/json'
    assert response.content.isascii()
    names = {hit['name'] for hit in json.loads(response.content)['hits']}
    assert {MARKUP, BROKEN_UNICODE} <= names


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


def test_half_a_character_is_a_query(client: Any) -> None:
    response = client.post(
        '/api/search',
        content=b'{"query": "a \\ud800 ring", "k": 1}',
        headers={'content-type': 'application/json'},
    )
    assert response.status_code == 200, response.text


def test_what_is_cut_is_told(client: Any) -> None:
    query = 'a red ring grows and then ' * 50
    answer = search(client, query, k=9).json()
    assert 0 < answer['read'] < 400
    again = search(client, query[: answer['read']], k=9).json()
    assert again['read'] is None
    assert again['hits'] == answer['hits']
    shorter = search(client, query[: answer['read'] - 6], k=9).json()
    assert shorter['hits'] != answer['hits']
    # a full stop is no token here, and yet nothing is lost with it
    assert search(client, 'a red ring . . .').json()['read'] is None


@pytest.mark.parametrize(
    ('content', 'status', 'words'),
    [
        ({'query': ''}, 400, 'The query is empty'),
        ({'query': ' \n\t '}, 400, 'The query is empty'),
        ({'query': 'x' * 20_001}, 413, 'at most 20000 characters'),
        ({'query': 'x' * 400_000}, 413, 'at most 20000 characters'),
        ({'query': 7}, 400, "a text as 'query'"),
        ({'text': 'a ring'}, 400, "a text as 'query'"),
        (['a ring'], 400, "a text as 'query'"),
        ({'query': 'a ring', 'k': 0}, 400, 'from 1 to 100'),
        ({'query': 'a ring', 'k': 101}, 400, 'from 1 to 100'),
        ({'query': 'a ring', 'k': True}, 400, 'from 1 to 100'),
        ({'query': 'a ring', 'k': 1.5}, 400, 'from 1 to 100'),
        ({'query': 'a ring', 'k': '-1'}, 400, 'from 1 to 100'),
        ({'query': 'a ring', 'k': '9' * 5000}, 400, 'from 1 to 100'),
        ({'query': 'a ring', 'k': None}, 400, 'from 1 to 100'),
    ],
)
def test_bad_questions_get_a_sentence(
    client: Any, content: Any, status: int, words: str
) -> None:
    response = client.post('/api/search', json=content)
    assert words in error_of(response, status)


@pytest.mark.parametrize('body', [b'', b'{', b'\xff\xfe', b'[' * 50_000])
def test_what_is_no_json(client: Any, body: bytes) -> None:
    headers = {'content-type': 'application/json'}
    response = client.post('/api/search', content=body, headers=headers)
    assert 'as JSON' in error_of(response, 400)


def test_a_form_is_no_search(client: Any) -> None:
    """A form of another site needs no leave of the browser, JSON does."""
    response = client.post('/api/search', data={'query': 'a ring'})
    assert 'application/json' in error_of(response, 415)
    assert error_of(client.get('/api/search'), 405)


# Videos and thumbnails


def test_a_video_is_served_whole_and_in_pieces(
    client: Any, rows: dict[str, int], videos: Path
) -> None:
    content = (videos / 'film.webm').read_bytes()
    address = f'/video/{rows["film.webm"]}'
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
    client: Any, rows: dict[str, int]
) -> None:
    response = client.get(f'/video/{rows["page.html"]}')
    assert response.status_code == 200
    assert response.headers['content-type'] == 'application/octet-stream'


@pytest.mark.parametrize('name', [MARKUP, BROKEN_UNICODE, 'old.avi'])
def test_odd_names_are_served(
    client: Any, rows: dict[str, int], videos: Path, name: str
) -> None:
    response = client.get(f'/video/{rows[name]}')
    assert response.content == (videos / name).read_bytes()


def test_every_row_has_a_thumbnail(client: Any, rows: dict[str, int]) -> None:
    for row_id in rows.values():
        response = client.get(f'/thumbnail/{row_id}')
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
    client: Any, rows: dict[str, int], name: str, status: int, words: str
) -> None:
    response = client.get(f'/video/{rows[name]}')
    assert words in error_of(response, status)
    hits = search(client, 'a ring', k=100).json()['hits']
    hit = next(hit for hit in hits if hit['name'] == name)
    assert words in hit['trouble']


def test_a_link_in_the_place_of_a_video(
    client: Any, rows: dict[str, int], videos: Path, tmp_path: Path
) -> None:
    """What a path leads to later is not what was indexed."""
    path, aside = videos / 'below/plain.mp4', tmp_path / 'aside'
    secret = tmp_path / 'secret'
    secret.write_bytes(b'secret')
    path.rename(aside)
    try:
        for target in (secret, tmp_path):
            path.symlink_to(target)
            response = client.get(f'/video/{rows["plain.mp4"]}')
            assert 'has changed' in error_of(response, 409)
            path.unlink()
    finally:
        aside.rename(path)
    assert client.get(f'/video/{rows["plain.mp4"]}').status_code == 200


TRAVERSALS = [
    '/video/../../etc/passwd',
    '/video/../../../../../../etc/passwd',
    '/video/%2e%2e/%2e%2e/etc/passwd',
    '/video/..%2f..%2fetc%2fpasswd',
    '/video/%252e%252e%252fetc%252fpasswd',
    '/video//etc/passwd',
    '/video/%2fetc%2fpasswd',
    '/video/..%5c..%5cetc%5cpasswd',
    '/video/file:%2f%2f%2fetc%2fpasswd',
    '/video/0/../../../etc/passwd',
    '/video/0%00/etc/passwd',
    '/video/film.webm',
    '/video/',
    '/video',
    '/video/-1',
    '/video/+1',
    '/video/1.0',
    '/video/0x1',
    '/video/1e0',
    '/video/%201',
    '/video/%D9%A1',
    '/video/True',
    '/video/999999',
    '/video/9223372036854775807',
    '/video/9223372036854775808',
    '/video/' + '9' * 5_000,
    '/thumbnail/../video/0',
    '/thumbnail/-1',
    '/thumbnail/' + '9' * 30,
    '/page.html',
    '/page/page.html',
    '/server.py',
    '/../demo/server.py',
    '/%2e%2e/app.py',
    '/docs',
    '/openapi.json',
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
    response = client.get('/api/about', headers={'host': host})
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
    ],
)
def test_other_hosts_when_asked_for(
    demo_modules: None, served: str, host: str, allowed: bool
) -> None:
    from guards import Guard
    from starlette.responses import PlainTextResponse

    client = testclient.TestClient(Guard(PlainTextResponse('here'), served))
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
        '/api/search',
        json={'query': 'a ring'},
        headers={'origin': origin},
    )
    assert response.status_code == status
    asked = client.options('/api/search', headers={'origin': origin})
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
    'name',
    ['film.webm', '../../../tmp/evil.mp4', '/etc/passwd', MARKUP, 'no ending'],
)
def test_a_clip_finds_itself(
    client: Any, videos: Path, temporary: list[str], name: str
) -> None:
    content = (videos / 'below/plain.mp4').read_bytes()
    answer = upload(client, name, content, k='2').json()
    assert len(answer['hits']) == 2
    best = answer['hits'][0]
    assert best['name'] == 'plain.mp4'
    assert best['score'] == best['similarity'] == pytest.approx(1, abs=1e-4)
    assert len(temporary) == 1
    assert not Path('/tmp/evil.mp4').exists()


PLAYLIST = '#EXTM3U\n#EXTINF:8,\nfile://{}\n#EXT-X-ENDLIST\n'
CONCAT = 'ffconcat version 1.0\nfile {}\n'


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (b'', 'is empty'),
        (b'this is no video', 'cannot be read as a video'),
        (b'\x00\x00\x00\x20ftypisom' + bytes(500), 'cannot be read'),
        # such lists name other files, of this machine or others
        (PLAYLIST, 'cannot be read'),
        (CONCAT, 'cannot be read'),
    ],
)
@pytest.mark.parametrize('name', ['clip.mp4', 'clip.m3u8', '<b>' * 99])
def test_clips_that_are_no_videos(
    client: Any,
    videos: Path,
    temporary: list[str],
    content: bytes | str,
    words: str,
    name: str,
) -> None:
    if isinstance(content, str):
        content = content.format(videos / 'film.webm').encode()
    message = error_of(upload(client, name, content), 422)
    assert words in message
    assert message.startswith(name[:20])
    assert len(message) < 220
    assert 'eaglenet_mm-' not in message


def test_large_clips_are_refused_unread(
    client: Any, temporary: list[str]
) -> None:
    response = upload(client, 'clip.mp4', bytes(2**20 + 10_000))
    assert 'at most 1 MB' in error_of(response, 413)


def test_a_stated_size_is_refused_before_anything_is_sent(port: int) -> None:
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=10)
    connection.putrequest('POST', '/api/search_video')
    kind = 'multipart/form-data; boundary=cut'
    connection.putheader('content-type', kind)
    connection.putheader('content-length', str(10**12))
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 413
    assert 'at most 1 MB' in json.loads(response.read())['error']
    connection.close()


def test_an_upload_that_breaks_off(
    port: int, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger('uvicorn')
    log.addHandler(caplog.handler)
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=10)
    connection.putrequest('POST', '/api/search_video')
    kind = 'multipart/form-data; boundary=cut'
    connection.putheader('content-type', kind)
    connection.putheader('content-length', '100000')
    connection.endheaders(b'--cut\r\nContent-Disp')
    time.sleep(0.2)
    connection.close()
    time.sleep(0.3)
    log.removeHandler(caplog.handler)
    assert client.get('/api/about').status_code == 200
    assert not caplog.records


def test_large_clips_of_unknown_size_are_refused(
    client: Any, temporary: list[str]
) -> None:
    """Reading ends where the limit is, whatever would still come."""
    sent = 0

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        yield (
            b'--cut\r\nContent-Disposition: form-data; name="clip"; '
            b'filename="clip.mp4"\r\n\r\n'
        )
        for _ in range(64):
            sent += 2**16
            yield bytes(2**16)
        yield b'\r\n--cut--\r\n'

    response = client.post(
        '/api/search_video',
        content=pieces(),
        headers={'content-type': 'multipart/form-data; boundary=cut'},
    )
    assert 'at most 1 MB' in error_of(response, 413)


@pytest.mark.parametrize(
    'request_body',
    [
        dict(data={'k': '3'}),
        dict(files={'other': ('a.mp4', b'x')}),
        dict(files={'clip': (None, 'text')}),
        dict(files=[('clip', ('a', b'x')), ('clip', ('b', b'x'))]),
        dict(files={'clip': ('a', b'x')}, data={'k': '0'}),
        dict(files={'clip': ('a', b'x')}, data={'k': 'x'}),
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
    response = client.post('/api/search_video', **request_body)
    assert response.status_code in (400, 415)
    assert response.json()['error']


# The model


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
        assert client.get('/api/about').status_code == 200
        assert client.get('/video/0').status_code == 200
        assert not answers
    finally:
        free.set()
    for thread in waiting:
        thread.join(20)
    assert [answer.status_code for answer in answers] == [200] * 3


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
    inferencer: RetrievalInferencer,
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


def test_settings_are_checked(
    demo_modules: None, inferencer: RetrievalInferencer
) -> None:
    from server import make_app

    with pytest.raises(ValueError, match='max_upload must be at least 1'):
        make_app(inferencer, max_upload=0)
    with pytest.raises(ValueError, match=r'at least 0 \(all\), but is -1'):
        make_app(inferencer, shortlist=-1)


def test_an_empty_index(
    demo_modules: None, inferencer: RetrievalInferencer
) -> None:
    from server import make_app

    full = inferencer.index
    inferencer.use(inferencer.new_index())
    try:
        client = testclient.TestClient(make_app(inferencer), 'http://[::1]')
        about = client.get('/api/about').json()
        assert (about['files'], about['rows']) == (0, 0)
        answer = search(client, 'a ring')
    finally:
        inferencer.use(full)
    assert answer.status_code == 200, answer.text
    assert answer.json()['hits'] == []


# The command


@pytest.fixture
def run_app(
    demo_modules: None, index_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Run demo/app.py without serving; give what uvicorn would get."""
    import app as command
    import uvicorn

    def run(*options: str) -> tuple[Any, dict[str, Any]]:
        calls: list[Any] = []
        monkeypatch.setattr(
            uvicorn, 'run', lambda app, **k: calls.append((app, k))
        )
        words = ['app.py', str(index_folder), *options]
        monkeypatch.setattr(sys, 'argv', words)
        command.main()
        return calls[0]

    return run


def test_only_this_machine_by_default(run_app: Any, capsys: Any) -> None:
    _, settings = run_app()
    assert settings['host'] == '127.0.0.1'
    assert settings['port'] == 7860
    said = capsys.readouterr().err
    assert 'Open http://127.0.0.1:7860' in said
    assert 'WARNING: everyone' not in said


def test_another_host_is_warned_of(run_app: Any, capsys: Any) -> None:
    app, settings = run_app('--host', '0.0.0.0', '--port', '80')
    assert settings['host'] == '0.0.0.0'
    assert 'everyone who reaches 0.0.0.0:80 can search and watch' in (
        capsys.readouterr().err
    )
    client = testclient.TestClient(app, 'http://10.1.2.3')
    assert client.get('/api/about').status_code == 200


def test_missing_packages_are_named(
    run_app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import app as command

    monkeypatch.setattr(
        command,
        'find_spec',
        lambda name: None if name == 'uvicorn' else object(),
    )
    with pytest.raises(ImportError, match=r'uvicorn.*eaglenet_mm\[demo\]'):
        run_app()
