from __future__ import annotations

import base64
import hashlib
import re

import pytest

from eaglenet_mm.visualization import results_page
from eaglenet_mm.visualization.results_data import Curves
from tests.visualization.made_results import (
    NASTY,
    make_results,
    nasty_results,
)
from tests.visualization.page_reader import Page, assert_self_contained


@pytest.mark.parametrize('make', [make_results, nasty_results])
def test_a_page_needs_nothing_beside_itself(make) -> None:
    html = results_page(make())
    assert_self_contained(html)
    assert "default-src 'none'" in html


def test_markup_in_data_stays_text() -> None:
    html = results_page(nasty_results())
    assert '<img' not in html
    assert html.count('</script>') == 2
    page = Page(html)
    for said in (f'{NASTY} on {NASTY}', f'{NASTY} 3 (rank 7)', f'{NASTY} 3'):
        assert said in page.text
    assert page.data['queries'][0]['c'] == f'{NASTY} 0'
    plain = Page(results_page(make_results()))
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in plain.tags}


def test_only_the_script_of_the_page_may_run() -> None:
    html = results_page(nasty_results())
    data, script = Page(html).scripts
    assert not set('<>&') & set(data)
    digest = hashlib.sha256(script.encode()).digest()
    policy = f"script-src 'sha256-{base64.b64encode(digest).decode()}'"
    assert policy in html


def test_a_page_is_the_same_each_time() -> None:
    assert results_page(make_results()) == results_page(make_results())


def test_what_is_stated() -> None:
    page = Page(results_page(make_results()))
    for said in (
        'EagleNet on made',
        '8 captions, 7 videos, 4 frames of each',
        '62.50',
        'Rsum 200.00',
        '7 of 8 queries are shown.',
        '1 of the 7 videos shown cannot be read now',
        'From the log of one run.',
        'Mean cosine of a pair 0.321; the plane explains 75% of the variance.',
        '3 of 8 captions return another video first',
        'weights of the sentence (first bar)',
    ):
        assert said in page.text


def test_queries_carry_their_filters_and_order() -> None:
    queries = Page(results_page(make_results())).data['queries']
    kinds = [query['t'] for query in queries]
    # ranks 1 1 2 7 1 3 1
    assert kinds == [[0, 1], [0, 1], [0, 2], [0, 2, 3], [0, 1], [0, 2], [0, 1]]
    worst = sorted(queries, key=lambda query: query['s'][0])
    assert worst[0]['c'] == 'caption number 3'
    assert worst[0]['m'][0]['r'] == 7
    assert [item['r'] for item in worst[0]['m'][0]['x']] == [1, 2, 3, 4, 5, 7]


def test_strips_are_in_the_page_once() -> None:
    html = results_page(make_results())
    assert len(re.findall(r'\.v\d+\{background-image:url', html)) == 6
    videos = Page(html).data['videos']
    assert videos['5']['problem'] == 'FileNotFoundError: gone'
    assert videos['6']['captions'] == ['caption number 6', 'caption number 7']


def test_charts() -> None:
    page = Page(results_page(make_results()))
    bars = page.text.split('text to video, rank ')[1:]
    assert bars[0].startswith('1: 62.5%')
    assert bars[1].startswith('2: 12.5%')
    hints = [attributes.get('title') for _, attributes in page.tags]
    assert 'captions of 1 with video 2: mean score 0.6, first for 1' in hints
    assert 'loss at 20: 1.5' in page.text


def test_missing_parts_are_told() -> None:
    results = make_results(
        projections=[],
        confusions=[],
        curves=Curves(note='No training log: none.'),
    )
    results.metrics.update(videos_found=7, videos_expected=9)
    page = Page(results_page(results))
    assert 'No training log: none.' in page.text
    assert 'Every caption finds its video first.' in page.text
    assert 'Not the complete set: 7 of 9 videos.' in page.text
    assert 'in the plane' not in page.text


def test_post_processing_and_intervals_are_shown() -> None:
    results = make_results()
    results.metrics.update({'t2v_dsl/R1': 71.25, 't2v/R1_low': 50.0})
    results.metrics['t2v/R1_high'] = 75.0
    page = Page(results_page(results))
    assert 'text to video after dsl' in page.text
    assert '71.25' in page.text
    assert '50.00 to 75.00' in page.text


def test_found_moments_beside_chance() -> None:
    page = Page(results_page(make_results()))
    assert 'Moments' not in page.text
    results = make_results()
    results.metrics.update(
        {
            'moments/R1_IoU0.5': 41.5,
            'moments/R1_IoU0.5_chance': 12.25,
            'moments/IoU0.5_ceiling': 93.75,
            'moments/corpus_R1_IoU0.5': 3.5,
            'moments/corpus_R1_IoU0.5_chance': 0.25,
            'moments/corpus_IoU0.5_ceiling': 92.5,
            'moments/best_time': 61.0,
            'moments/best_time_chance': 44.0,
            'moments/didemo_rank1': 21.0,
            'moments/captions': 8.0,
        }
    )
    text = ' '.join(Page(results_page(results)).text.split())
    for said in (
        'R@1, IoU ≥ 0.5 41.50 12.25 93.75',
        'R@1, IoU ≥ 0.5, among all videos 3.50 0.25 92.50',
        'best time in the moment 61.00 44.00',
        'rank@1 of DiDeMo 21.00',
        '8 captions with moments',
    ):
        assert said in text
