"""The page in a real browser: type, search, see hits, play them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import FILM, FIRST_ID, MARKUP, MOMENT, served

SHAPES = [(1280, 900), (390, 844)]

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
            executable_path=BROWSER,
            args=['--no-sandbox', '--disable-background-networking'],
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, port: int) -> Iterator[Any]:
    """Open the page; in the end nothing may have gone wrong there."""
    home = f'http://127.0.0.1:{port}/'
    contexts, errors, requests, dialogs = [], [], [], []

    def open_page(width: int = 1280, height: int = 900) -> Any:
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
        page.wait_for_selector('#examples a')
        return page

    open_page.errors = errors
    open_page.home = home
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


def number_of_cards(page: Any, number: int) -> None:
    page.wait_for_function(
        'n => document.querySelectorAll(".card").length === n', arg=number
    )


def test_type_search_and_see_hits(open_page: Any) -> None:
    page = open_page()
    told = page.inner_text('#about')
    assert 'films.index · 9 moments of 8 videos' in told
    assert page.is_visible('#welcome')
    ask(page, 'a red square moves left')
    # one card a video, with all of its moments
    assert page.locator('.card').count() == 8
    assert not page.is_visible('#welcome')
    assert page.inner_text('#summary') == (
        '8 videos for “a red square moves left”'
    )
    assert 'Looked closely at all 9 moments' in page.inner_text('#note')
    assert page.title() == ('a red square moves left \N{EN DASH} Video search')
    ranks = page.locator('.rank').all_inner_texts()
    assert ranks == [str(n + 1) for n in range(len(ranks))]
    moments = page.locator('.moment').all_inner_texts()
    assert any(f'0:00 to 0:0{MOMENT}, best at' in text for text in moments)
    assert 'similarity' in page.locator('.numbers').first.inner_text()
    assert page.locator('.card h2').first.get_attribute('title')[0] == '/'


def test_hits_and_grouping_act_at_once(open_page: Any) -> None:
    page = open_page(height=600)
    ask(page, 'a ring')
    page.check('#all')
    number_of_cards(page, 9)
    assert '9 moments for' in page.inner_text('#summary')
    page.select_option('#count', '6')
    number_of_cards(page, 6)
    assert 'Best 6 moments for' in page.inner_text('#summary')
    assert 'k=6' in page.url
    assert 'all=1' in page.url


@pytest.mark.parametrize('shape', SHAPES)
def test_more_by_scrolling(open_page: Any, shape: tuple[int, int]) -> None:
    page = open_page(shape[0], 500)
    page.goto(f'{open_page.home}?q=a+ring&k=6&all=1')
    number_of_cards(page, 6)
    page.locator('.card').last.scroll_into_view_if_needed()
    page.mouse.wheel(0, 5000)
    number_of_cards(page, 9)
    assert page.inner_text('#summary') == '9 moments for “a ring”'
    assert not page.is_visible('#more')
    names = page.locator('.card .moment').all_inner_texts()
    assert len(names) == 9
    ranks = page.locator('.rank').all_inner_texts()
    assert ranks == [str(n + 1) for n in range(9)]


def test_more_by_a_button_after_an_error(open_page: Any) -> None:
    page = open_page(height=500)
    page.goto(f'{open_page.home}?q=a+ring&k=6&all=1')
    number_of_cards(page, 6)
    page.route('**/v1/search', lambda route: route.abort())
    page.mouse.wheel(0, 5000)
    page.locator('#more p', has_text='not answer').wait_for()
    assert page.locator('.card').count() == 6
    page.unroute('**/v1/search')
    page.get_by_role('button', name='Show more').click()
    number_of_cards(page, 9)
    open_page.errors.clear()


@pytest.mark.parametrize('shape', SHAPES)
def test_back_forward_and_reload(
    open_page: Any, shape: tuple[int, int]
) -> None:
    page = open_page(*shape)
    page.locator('#examples a').first.click()
    page.wait_for_selector('.card')
    assert page.url.endswith('?q=a+dog+runs+into+the+sea')
    assert page.input_value('#query') == 'a dog runs into the sea'
    first = page.locator('.card h2').all_inner_texts()
    ask(page, 'a ring & <b>more</b> = 100 %')
    second = page.locator('.card h2').all_inner_texts()
    page.select_option('#count', '6')
    number_of_cards(page, 6)
    page.reload()
    number_of_cards(page, 6)
    assert page.input_value('#query') == 'a ring & <b>more</b> = 100 %'
    assert page.input_value('#count') == '6'
    page.go_back()
    number_of_cards(page, 8)
    assert page.locator('.card h2').all_inner_texts() == second
    page.go_back()
    page.wait_for_function('() => document.title.startsWith("a dog")')
    page.wait_for_selector('body:not(.busy)')
    assert page.locator('.card h2').all_inner_texts() == first
    page.go_back()
    page.wait_for_selector('#welcome:not([hidden])')
    assert page.input_value('#query') == ''
    assert not page.locator('.card').count()
    page.go_forward()
    number_of_cards(page, 8)
    page.click('#home')
    page.wait_for_selector('#welcome:not([hidden])')
    assert page.url == open_page.home


@pytest.mark.parametrize('shape', SHAPES)
def test_filters(open_page: Any, shape: tuple[int, int]) -> None:
    page = open_page(*shape)
    assert not page.is_visible('[name=folder]')
    ask(page, 'a ring')
    number_of_cards(page, 8)
    page.click('summary')
    page.fill('[name=folder]', 'below')
    page.press('[name=folder]', 'Tab')
    number_of_cards(page, 1)
    assert page.inner_text('.card h2') == 'plain.mp4'
    assert page.inner_text('.folder') == 'below'
    assert 'that pass the filters' in page.inner_text('#note')
    assert page.inner_text('#active').endswith('· 1 set')
    page.fill('[name=folder]', '*.webm')
    page.fill('[name=min]', '5s')
    page.fill('[name=tags]', 'film')
    page.fill('[name=after]', '2001-01-01')
    page.press('[name=tags]', 'Enter')
    page.wait_for_function(
        '() => document.querySelector(".card h2").textContent === "film.webm"'
    )
    page.reload()
    number_of_cards(page, 1)
    page.click('summary')
    assert page.input_value('[name=after]') == '2001-01-01'
    page.fill('[name=max]', '3s')
    page.press('[name=max]', 'Enter')
    page.locator('#summary', has_text='No video').wait_for()
    page.click('#clear')
    number_of_cards(page, 8)
    assert page.url == f'{open_page.home}?q=a+ring'
    page.go_back()
    page.locator('#summary', has_text='No video').wait_for()


def test_a_filter_that_is_none_and_the_way_back(open_page: Any) -> None:
    page = open_page()
    ask(page, 'a ring')
    page.click('summary')
    page.fill('[name=min]', 'long')
    page.press('[name=min]', 'Tab')
    page.wait_for_selector('#error:not([hidden])')
    assert '10s' in page.inner_text('#error')
    assert not page.locator('.card').count()
    page.go_back()
    number_of_cards(page, 8)
    page.go_forward()
    page.wait_for_selector('#error:not([hidden])')
    page.get_by_role('button', name='Start over').click()
    page.wait_for_selector('#welcome:not([hidden])')
    assert page.input_value('[name=min]') == ''
    assert all('400' in error for error in open_page.errors)
    open_page.errors.clear()


def test_weak_evidence_is_told(open_page: Any) -> None:
    page = open_page()
    ask(page, 'nothing like zzyx')
    told = page.inner_text('#nothing')
    assert told.startswith('Probably nothing here shows this.')
    assert page.inner_text('#words') == 'The model does not know “zzyx”.'
    assert page.locator('.card').count() == 8
    ask(page, 'a ring')
    assert not page.is_visible('#nothing')
    assert not page.is_visible('#words')


def test_moments_on_the_time_line(open_page: Any) -> None:
    page = open_page()
    ask(page, 'a ring grows')
    card = card_of(page, 'film.webm')
    marks = card.locator('.track button')
    assert marks.count() == 2
    buttons = card.locator('.moments button')
    assert buttons.all_inner_texts() == ['0:00', f'0:0{MOMENT}']
    for number in (1, 0):
        (buttons if number else marks).nth(number).click()
        page.wait_for_function(
            '([card, from]) => Math.floor('
            f'card.querySelector("video").currentTime / {MOMENT}) === from',
            arg=[card.element_handle(), number],
        )
        assert (
            f'0:0{number * MOMENT} to' in card.locator('.start').inner_text()
        )
        pressed = [
            buttons.nth(n).get_attribute('aria-pressed') for n in range(2)
        ]
        assert pressed[number] == 'true'
        assert pressed[1 - number] == 'false'


def test_random_weights_are_told(open_page: Any) -> None:
    page = open_page()
    assert 'order of the hits means nothing' in page.inner_text('#untrained')


def test_a_hit_plays_from_its_best_moment(open_page: Any) -> None:
    page = open_page()
    page.check('#all')
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
    page.check('#all')
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
    for _ in range(16):
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
    page.wait_for_selector('#error:not([hidden])')
    assert 'at most 20000 characters' in page.inner_text('#error')
    assert not page.locator('.card').count()
    # a browser writes down every answer that is an error
    assert len(open_page.errors) == 1
    assert 'status of 422' in open_page.errors.pop()


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
    page.evaluate('whenNear = () => null')
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
    assert 'like=' in page.url
    # the clip is known as long as the page is
    page.select_option('#count', '6')
    number_of_cards(page, 6)
    ask(page, 'a ring')
    page.go_back()
    number_of_cards(page, 6)
    page.reload()
    page.wait_for_selector('#error:not([hidden])')
    assert 'Choose the clip' in page.inner_text('#error')


def test_a_clip_is_dropped(open_page: Any) -> None:
    page = open_page()
    carried = page.evaluate_handle(
        """async number => {
            const answer = await fetch(`v1/moments/${number}/video`);
            const carried = new DataTransfer();
            carried.items.add(new File([await answer.blob()], 'dropped'));
            return carried;
        }""",
        str(FIRST_ID),
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
    assert page.locator('#error p *').count() == 0
    if status is not None:
        assert f'status of {status}' in open_page.errors.pop()


@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('shape', SHAPES)
def test_shapes_and_schemes(
    open_page: Any, shape: tuple[int, int], scheme: str
) -> None:
    page = open_page(*shape)
    page.emulate_media(color_scheme=scheme)
    ask(page, 'a_very_long_word_' * 20)
    assert page.locator('.card').count()
    page.click('summary')
    assert page.evaluate('document.documentElement.scrollWidth') == shape[0]
    ground = page.evaluate('getComputedStyle(document.body).backgroundColor')
    brightness = sum(map(int, ground[4:-1].split(',')))
    assert brightness > 600 if scheme == 'light' else brightness < 150


def test_buttons_are_large_enough_for_a_finger(open_page: Any) -> None:
    page = open_page(390, 844)
    heights = page.evaluate(MEASURE)
    ask(page, 'a ring')
    page.click('summary')
    heights += page.evaluate(MEASURE)
    assert len(heights) > 30
    assert not [one for one in heights if one[1] < 44]


MEASURE = """() => Array.from(
    document.querySelectorAll('button, select, input, summary, a')
).filter(x => x.checkVisibility() && x.type !== 'file').map(x => {
    const whole = x.type === 'checkbox' ? x.closest('label') : x;
    return [x.outerHTML.slice(0, 60), whole.getBoundingClientRect().height];
})"""


def test_all_that_acts_has_a_name(open_page: Any) -> None:
    page = open_page()
    ask(page, 'a ring')
    page.click('summary')
    for role in ('button', 'textbox', 'searchbox', 'combobox', 'checkbox'):
        found = page.get_by_role(role)
        named = page.get_by_role(role, name=re.compile('.'))
        assert found.count() == named.count() > 0
    status = page.get_by_role('status')
    assert '8 videos for' in status.inner_text()
    assert page.get_by_role('list', name='Hits').count() == 1


def test_a_server_that_is_gone_and_is_back(open_page: Any) -> None:
    page = open_page()
    page.route('**/v1/search', lambda route: route.abort())
    ask(page, 'a ring')
    assert 'The server does not answer' in page.inner_text('#error')
    page.unroute('**/v1/search')
    page.get_by_role('button', name='Try again').click()
    number_of_cards(page, 8)
    assert not page.is_visible('#error')
    assert all('ERR_FAILED' in error for error in open_page.errors)
    open_page.errors.clear()


def test_the_token_is_asked_for(
    browser: Any, inferencer: Any, tmp_path: Path
) -> None:
    from eaglenet_mm.service import Settings, make_app

    app = make_app(inferencer, Settings(token='0123456789abcdef'))
    with served(app) as port:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f'http://127.0.0.1:{port}/?q=a+ring')
        page.get_by_label('asks for its token').fill('wrong')
        page.get_by_role('button', name='Go on').click()
        page.wait_for_selector('#error:not([hidden])')
        assert 'not the right one' in page.inner_text('#error')
        page.get_by_label('asks for its token').fill('0123456789abcdef')
        page.get_by_role('button', name='Go on').click()
        number_of_cards(page, 8)
        card = card_of(page, 'film.webm')
        card.locator('.play').click()
        page.wait_for_function(
            'card => card.querySelector("video").readyState >= 2',
            arg=card.element_handle(),
        )
        page.reload()
        number_of_cards(page, 8)
        context.close()


def test_below_a_path_of_a_proxy(browser: Any, inferencer: Any) -> None:
    from eaglenet_mm.service import Settings, make_app

    app = make_app(inferencer, Settings(root_path='/films'))
    with served(app) as port:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f'http://127.0.0.1:{port}/films/?q=a+ring')
        number_of_cards(page, 8)
        assert page.evaluate('document.images.length') > 0
        context.close()


def test_the_description_of_the_interface(open_page: Any) -> None:
    page = open_page()
    page.goto(f'{open_page.home}docs')
    page.get_by_role('heading', name='POST /v1/search_video').wait_for()
    for name in ('SearchRequest', 'Hit', 'Filter'):
        page.get_by_role('heading', name=name, exact=True).wait_for()
