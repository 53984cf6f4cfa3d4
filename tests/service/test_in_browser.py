"""The page in a real browser: type, search, see hits, play them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.demo.conftest import FILM, MARKUP, MOMENT

playwright_api = pytest.importorskip('playwright.sync_api')
BROWSER = next(
    filter(
        None,
        map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome')),
    ),
    None,
)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason='no chromium and no google-chrome is installed'
)


@pytest.fixture(scope='module')
def browser() -> Iterator[Any]:
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=BROWSER, args=['--no-sandbox']
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, port: int) -> Iterator[Any]:
    """Open the page; in the end nothing may have gone wrong there."""
    home = f'http://127.0.0.1:{port}/'
    contexts, errors, requests, dialogs = [], [], [], []

    def open_page(width: int = 1240, height: int = 900) -> Any:
        context = browser.new_context(
            viewport=dict(width=width, height=height)
        )
        context.set_default_timeout(15_000)
        contexts.append(context)
        page = context.new_page()
        page.on('console', lambda message: errors.append(message.text))
        page.on('pageerror', lambda error: errors.append(str(error)))
        page.on('request', lambda request: requests.append(request.url))
        page.on('dialog', lambda dialog: dialogs.append(dialog.message))
        page.goto(home)
        page.wait_for_selector('.samples img')
        return page

    open_page.errors = errors
    yield open_page
    for context in contexts:
        context.close()
    assert not errors
    assert not dialogs
    assert not [url for url in requests if not url.startswith(home)]


def ask(page: Any, query: str) -> None:
    """Type a query, and wait for what becomes of it."""
    page.fill('#query', query)
    page.press('#query', 'Enter')
    page.wait_for_selector('body:not(.busy)')


def card_of(page: Any, name: str) -> Any:
    """Find the first card of a file."""
    title = page.get_by_role('heading', name=name, exact=True)
    return page.locator('.card').filter(has=title).first


def test_type_search_and_see_hits(open_page: Any) -> None:
    page = open_page()
    assert 'films.index' in page.inner_text('#about')
    assert page.is_visible('#welcome')
    ask(page, 'a red square moves left')
    assert page.locator('.card').count() == 7 + FILM // MOMENT
    assert not page.is_visible('#welcome')
    assert page.inner_text('#summary') == (
        f'{7 + FILM // MOMENT} moments for “a red square moves left”'
    )
    ranks = page.locator('.rank').all_inner_texts()
    assert ranks == [str(n + 1) for n in range(len(ranks))]
    moments = page.locator('.moment').all_inner_texts()
    assert any(f'0:00 to 0:0{MOMENT}, best at' in text for text in moments)
    assert 'similarity' in page.locator('.numbers').first.inner_text()
    assert page.locator('.card h2').first.get_attribute('title')[0] == '/'
    page.select_option('#count', '6')
    ask(page, 'a red square moves left')
    assert page.locator('.card').count() == 6


def test_random_weights_are_told(open_page: Any) -> None:
    page = open_page()
    assert 'order of the hits means nothing' in page.inner_text('#untrained')


def test_a_hit_plays_from_its_best_moment(open_page: Any) -> None:
    page = open_page()
    ask(page, 'a ring grows')
    start = f'0:0{MOMENT} to 0:0{FILM}'
    card = page.locator('.card').filter(has_text=start)
    card.scroll_into_view_if_needed()
    # the frame at the best moment is there before anything is clicked
    page.wait_for_function(
        'card => !card.querySelector("video").hasAttribute("poster")',
        arg=card.element_handle(),
    )
    video = card.locator('video')
    shown = video.evaluate('video => [video.currentTime, video.videoWidth]')
    words = card.locator('.best').inner_text()
    best = float(words.partition(':')[2])
    assert shown[0] == pytest.approx(best, abs=0.1)
    assert shown[1] == 96
    assert video.evaluate('video => video.paused')
    card.locator('.play').click()
    page.wait_for_function(
        '([video, from]) => !video.paused && video.currentTime > from + 0.2',
        arg=[video.element_handle(), min(best, FILM - 2)],
    )
    assert video.evaluate('video => video.controls')
    assert not card.locator('.play').is_visible()
    now = video.evaluate('video => video.currentTime')
    assert MOMENT <= now <= FILM
    # the beginning of the moment, with the button of its times
    card.locator('.start').click()
    page.wait_for_function(
        f'video => !video.paused && video.currentTime < {MOMENT + 1.5}',
        arg=video.element_handle(),
    )
    assert video.evaluate('video => video.currentTime') >= MOMENT


def test_one_video_plays_at_a_time(open_page: Any) -> None:
    page = open_page()
    ask(page, 'a ring grows')
    films = page.locator('.card').filter(has_text='film.webm')
    for number in range(2):
        films.nth(number).locator('.start').click()
        page.wait_for_function(
            '([card, other]) => !card.querySelector("video").paused'
            ' && other.querySelector("video").paused',
            arg=[
                films.nth(number).element_handle(),
                films.nth(1 - number).element_handle(),
            ],
        )


def test_the_keyboard_is_enough(open_page: Any) -> None:
    page = open_page()
    page.keyboard.type('a ring')  # the field has the focus
    page.keyboard.press('Enter')
    page.wait_for_selector('.card')
    reached = []
    for _ in range(12):
        page.keyboard.press('Tab')
        reached.append(
            page.evaluate(
                '(document.activeElement.className || '
                'document.activeElement.id)'
            )
        )
        if reached[-1] == 'play':
            break
    assert reached[-1] == 'play', reached
    assert 'clip' in reached
    name = page.evaluate('document.activeElement.ariaLabel')
    assert name.startswith('Play ')
    page.keyboard.press('Enter')
    page.wait_for_selector('.card.playing')
    assert page.evaluate('document.activeElement.tagName') == 'VIDEO'


@pytest.mark.parametrize('query', ['', '   '])
def test_an_empty_query(open_page: Any, query: str) -> None:
    page = open_page()
    ask(page, 'a red ring')
    ask(page, query)
    assert 'The query is empty' in page.inner_text('#error')
    assert not page.locator('.card').count()
    ask(page, 'a ring')
    assert not page.is_visible('#error')
    assert page.locator('.card').count()


def test_a_long_query_is_cut_and_says_so(open_page: Any) -> None:
    page = open_page(400)
    ask(page, 'a dog runs ' * 909)
    cut = page.inner_text('#cut')
    assert 'of 9\u202f999 characters counted, up to “…' in cut
    assert page.locator('.card').count()
    assert page.evaluate('document.documentElement.scrollWidth') == 400
    ask(page, 'a ring')
    assert not page.is_visible('#cut')


def test_a_query_that_is_too_long(open_page: Any) -> None:
    page = open_page()
    ask(page, 'x' * 20_001)
    assert 'at most 20000 characters' in page.inner_text('#error')
    assert not page.locator('.card').count()
    # a browser writes down every answer that is an error
    assert len(open_page.errors) == 1
    assert 'status of 413' in open_page.errors.pop()


@pytest.mark.parametrize(
    'query',
    [
        '<img src=x onerror=alert(1)>',
        '<script>alert(1)</script>',
        '"><svg onload=alert(1)>',
        '犬が海に走って行く',
        'كلب يجري إلى البحر',
        '👩‍👩‍👧 ñandú',
    ],
)
def test_queries_stay_text(open_page: Any, query: str) -> None:
    page = open_page()
    ask(page, query)
    assert f'for “{query}”' in page.inner_text('#summary')
    assert page.locator('#summary *').count() == 0
    assert page.locator('.card').count()


def test_names_of_files_stay_text(open_page: Any) -> None:
    page = open_page()
    ask(page, 'a ring')
    card = card_of(page, MARKUP)
    assert card.locator('h2').inner_text() == MARKUP
    assert card.locator('h2 *').count() == 0
    assert page.locator('[onerror], img[src="x"]').count() == 0
    card.locator('.play').click()
    page.wait_for_function(
        'card => card.querySelector("video").readyState >= 2',
        arg=card.element_handle(),
    )


def test_what_cannot_be_played_says_why(open_page: Any) -> None:
    page = open_page()
    ask(page, 'a ring')
    for name, words in (
        ('gone.mp4', 'gone.mp4 is gone'),
        ('changed.mp4', 'has changed since it was indexed'),
        ('old.avi', 'Browsers do not play this kind of file'),
        ('page.html', 'Browsers do not play this kind of file'),
    ):
        card = card_of(page, name)
        assert words in card.locator('.trouble').inner_text()
        assert card.locator('video').count() == 0
        image = card.locator('.screen img')
        image.scroll_into_view_if_needed()
        page.wait_for_function(
            'image => image.complete && image.naturalWidth > 0',
            arg=image.element_handle(),
        )


def test_a_video_that_is_deleted_after_the_search(
    open_page: Any, videos: Path, tmp_path: Path
) -> None:
    page = open_page(height=300)  # no card is near, no video loads yet
    page.evaluate('near.disconnect()')
    page.evaluate('near.observe = () => {}')
    ask(page, 'a ring')
    path = videos / 'below/plain.mp4'
    path.rename(tmp_path / 'aside.mp4')
    try:
        card = card_of(page, 'plain.mp4')
        card.locator('.play').click()
        trouble = card.locator('.trouble')
        trouble.wait_for(state='visible')
        assert 'plain.mp4 is gone' in trouble.inner_text()
    finally:
        (tmp_path / 'aside.mp4').rename(path)
    assert all('410' in error for error in open_page.errors)
    open_page.errors.clear()


def test_search_by_a_clip(open_page: Any, videos: Path) -> None:
    page = open_page()
    page.set_input_files('#clip', videos / MARKUP)
    page.wait_for_selector('.card')
    assert f'like {MARKUP}' in page.inner_text('#summary')
    assert page.locator('.card h2').first.inner_text() == MARKUP
    assert 'score' not in page.locator('.numbers').first.inner_text()


def test_a_clip_is_dropped(open_page: Any) -> None:
    page = open_page()
    carried = page.evaluate_handle(
        """async number => {
            const answer = await fetch('/video/' + number);
            const carried = new DataTransfer();
            carried.items.add(new File([await answer.blob()], 'dropped'));
            return carried;
        }""",
        0,
    )
    page.dispatch_event('body', 'dragover', {'dataTransfer': carried})
    assert page.is_visible('#drop')
    page.dispatch_event('body', 'drop', {'dataTransfer': carried})
    page.wait_for_selector('.card')
    assert not page.is_visible('#drop')
    assert 'like dropped' in page.inner_text('#summary')


@pytest.mark.parametrize(
    ('content', 'words', 'status'),
    [
        (b'no video', 'cannot be read as a video', 422),
        (b'', 'is empty', 422),
        (bytes(2**20 + 1), 'too large: at most 1 MB', None),
    ],
)
def test_a_clip_that_is_no_video(
    open_page: Any, content: bytes, words: str, status: int | None
) -> None:
    page = open_page()
    page.set_input_files(
        '#clip',
        dict(name='<b>x</b>.mp4', mimeType='video/mp4', buffer=content),
    )
    page.wait_for_selector('#error:not([hidden])')
    assert words in page.inner_text('#error')
    assert page.locator('#error *').count() == 0
    if status is not None:
        assert f'status of {status}' in open_page.errors.pop()


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_a_narrow_screen(open_page: Any, scheme: str) -> None:
    page = open_page(400, 800)
    page.emulate_media(color_scheme=scheme)
    ask(page, 'a_very_long_word_' * 20)
    assert page.locator('.card').count()
    assert page.evaluate('document.documentElement.scrollWidth') == 400
    ground = page.evaluate('getComputedStyle(document.body).backgroundColor')
    brightness = sum(map(int, ground[4:-1].split(',')))
    assert brightness > 600 if scheme == 'light' else brightness < 150


def test_a_server_that_is_gone(open_page: Any) -> None:
    page = open_page()
    page.route('**/api/search', lambda route: route.abort())
    ask(page, 'a ring')
    assert 'The server does not answer' in page.inner_text('#error')
    assert all('ERR_FAILED' in error for error in open_page.errors)
    open_page.errors.clear()
