"""The pages in a real browser, where there is one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eaglenet_mm.visualization import compare_page, results_page
from eaglenet_mm.visualization.results_data import ShownQuery
from tests.visualization.made_results import (
    NASTY,
    make_results,
    nasty_results,
)

playwright = pytest.importorskip('playwright.sync_api')
NAMES = ('chromium', 'chromium-browser', 'google-chrome')
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason='there is no Chromium'),
]


@pytest.fixture(scope='module')
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        # a sandbox needs rights that root in a container has not
        options = ['--no-sandbox'] if os.getuid() == 0 else []
        browser = started.chromium.launch(
            executable_path=BROWSER, args=options
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, tmp_path: Path) -> Iterator[Any]:
    """Open a page; fail if it logs, raises or asks for anything."""
    complaints: list[str] = []
    page = browser.new_page()
    page.on('console', lambda said: complaints.append(said.text))
    page.on('pageerror', lambda error: complaints.append(str(error)))
    page.on('requestfailed', lambda request: complaints.append(request.url))

    def note_request(request: Any) -> None:
        if not request.url.startswith(('file:', 'data:')):
            complaints.append(request.url)

    page.on('request', note_request)

    def opened(html: str) -> Any:
        path = tmp_path / 'page.html'
        path.write_text(html, encoding='utf-8')
        page.goto(path.as_uri())
        return page

    yield opened
    page.wait_for_timeout(100)
    page.close()
    assert complaints == []


def captions(page: Any) -> list[str]:
    return page.locator('.query h3').all_inner_texts()


def test_all_queries_are_drawn(open_page) -> None:
    page = open_page(results_page(make_results()))
    assert captions(page)[0] == 'rank 1caption number 0'
    assert len(captions(page)) == 7
    assert page.locator('#status').inner_text() == '7 of 7 queries'
    cards = page.locator('.query').nth(3).locator('.card')
    assert cards.count() == 6  # the first five, and the right one at rank 7
    kinds = [cards.nth(i).get_attribute('class') for i in range(6)]
    assert kinds == ['card no'] * 5 + ['card ok']
    assert cards.nth(5).locator('.rank').inner_text() == '✓ 7'
    assert cards.nth(0).locator('.score').inner_text() == '0.9000'
    # behind the right answer nothing is wrong
    cards = page.locator('.query').nth(2).locator('.card')
    kinds = [cards.nth(i).get_attribute('class') for i in range(5)]
    assert kinds == ['card no', 'card ok'] + ['card'] * 3
    assert cards.nth(2).locator('.rank').inner_text() == '3'


def test_colours_and_frames_are_seen(open_page) -> None:
    page = open_page(results_page(make_results()))
    style = 'node => getComputedStyle(node).borderTopColor'
    right, wrong = page.locator('.card.ok').first, page.locator('.card.no')
    assert right.evaluate(style) == 'rgb(22, 128, 60)'
    assert wrong.first.evaluate(style) == 'rgb(200, 50, 43)'
    frames = page.locator('.strip i').first
    background = 'node => getComputedStyle(node).backgroundImage'
    assert frames.evaluate(background).startswith('url("data:image/jpeg')
    strip = page.locator('.strip').first.bounding_box()
    # three of four places hold frames, the fourth is padding
    assert frames.bounding_box()['width'] / strip['width'] == pytest.approx(
        0.75, abs=0.01
    )
    assert 'cannot be read now: FileNotFoundError: gone' in (
        page.locator('.strip.lost').first.inner_text()
    )


def test_the_filter_shows_only_failures(open_page) -> None:
    page = open_page(results_page(make_results()))
    page.get_by_role('button', name='Failures (3)').click()
    found = captions(page)
    assert [text[:6] for text in found] == ['rank 2', 'rank 7', 'rank 3']
    assert page.locator('#status').inner_text() == '3 of 3 queries'
    page.get_by_role('button', name='Not in the top 5 (1)').click()
    assert captions(page) == ['rank 7caption number 3']
    page.get_by_role('button', name='Right first (4)').click()
    assert {text[:6] for text in captions(page)} == {'rank 1'}
    page.get_by_role('button', name='All (7)').click()
    assert len(captions(page)) == 7


def test_order_and_search(open_page) -> None:
    page = open_page(results_page(make_results()))
    page.locator('#sort').select_option('worst rank first')
    assert captions(page)[:2] == [
        'rank 7caption number 3',
        'rank 3caption number 5',
    ]
    page.locator('#search').fill('NUMBER 5')
    assert captions(page) == ['rank 3caption number 5']
    page.locator('#search').fill('video-2')
    assert captions(page) == ['rank 2caption number 2']
    page.locator('#search').fill('nothing has this')
    assert captions(page) == []
    assert page.locator('#status').inner_text() == 'No query fits.'


def test_bars_follow_the_chosen_weights(open_page) -> None:
    page = open_page(results_page(make_results()))
    hint = page.locator('svg.weights title').first
    assert hint.text_content() == (
        'attention of the frames: 0.500  0.250  0.250  0.000'
    )
    attention = page.locator('svg.weights path').first.get_attribute('d')
    # the highest bar reaches the top, half of it the middle
    assert attention.startswith('M0.12 1V0.0000H0.88V1ZM1.12 1V0.5000H')
    page.locator('#weights').select_option('cosine')
    hint = page.locator('svg.weights title').first
    assert hint.text_content().startswith('cosine of the frames: 0.300')


def test_more_queries_come_on_request(open_page) -> None:
    results = make_results()
    for name in ('captions', 'targets', 'ranks', 'top_columns', 'top_scores'):
        setattr(results, name, getattr(results, name) * 7)
    results.queries = [
        ShownQuery(row, results.queries[row % 7].results) for row in range(56)
    ]
    page = open_page(results_page(results))
    assert len(captions(page)) == 25
    page.get_by_role('button', name='Show 25 more').click()
    page.get_by_role('button', name='Show 6 more').click()
    assert len(captions(page)) == 56
    assert page.locator('#more').is_hidden()


def test_a_result_is_enlarged(open_page) -> None:
    page = open_page(results_page(make_results()))
    page.locator('.card').nth(1).click()
    dialog = page.locator('dialog')
    assert dialog.is_visible()
    text = dialog.inner_text()
    assert 'rank 2' in text
    assert 'wrong' not in text
    assert 'cosine of the 4 frames, bars from' in text
    assert 'Captions of this video: caption number 1' in text
    page.keyboard.press('Escape')
    assert not dialog.is_visible()
    page.locator('.card.no').first.click()
    assert 'wrong, above the right one, rank 1' in dialog.inner_text()


def test_the_gap_can_be_left_out(open_page) -> None:
    results = make_results()
    centred = make_results().projections[0]
    centred.centred, centred.title = True, 'Centred'
    results.projections.append(centred)
    page = open_page(results_page(results))
    before, after = (
        page.get_by_role('heading', name=name)
        for name in ('Before', 'Centred')
    )
    assert (before.is_visible(), after.is_visible()) == (True, False)
    page.locator('.toggle input').check()
    assert (before.is_visible(), after.is_visible()) == (False, True)


@pytest.mark.parametrize('width', [480, 1280])
def test_nothing_sticks_out(open_page, width) -> None:
    results = make_results(captions=['verylong' * 40] * 8)
    results.about['checkpoint'] = 'folder/' * 60
    page = open_page(results_page(results))
    page.set_viewport_size(dict(width=width, height=900))
    assert page.evaluate('document.documentElement.scrollWidth') == width
    # a table that is wider says so
    assert page.locator('.scroll.wide').count() > (0 if width < 500 else -1)


def test_markup_in_data_stays_text(open_page) -> None:
    page = open_page(results_page(nasty_results()))
    assert page.locator('.query h3').first.inner_text() == f'rank 1{NASTY} 0'
    assert page.locator('.card .id').first.inner_text() == f'{NASTY} 0'
    page.locator('.card').first.click()
    assert NASTY in page.locator('dialog').inner_text()
    assert page.locator('img').count() == 0
    assert page.evaluate('typeof hacked') == 'undefined'


def test_models_side_by_side(open_page) -> None:
    second = make_results(ranks=[1, 2, 1, 1, 1, 4, 6, 1])
    html = compare_page([make_results(), second], ['First', NASTY])
    page = open_page(html)
    assert page.locator('.query').count() == 7
    page.get_by_role('button', name=f'First right, {NASTY} wrong (2)').click()
    assert captions(page) == ['caption number 1', 'caption number 6']
    models = page.locator('.query').first.locator('.model')
    assert models.all_inner_texts() == ['rank 1\nFirst', f'rank 2\n{NASTY}']
    page.locator('#sort').select_option('ranks differ most')
    assert captions(page) == ['caption number 6', 'caption number 1']
    assert page.evaluate('typeof hacked') == 'undefined'
