from __future__ import annotations

import re

import pytest

from eaglenet_mm.visualization.compare_page import (
    check_comparable,
    choose_names,
    compare_page,
    outcomes,
)
from tests.visualization.made_results import (
    NASTY,
    jpeg,
    make_results,
    nasty_results,
)
from tests.visualization.page_reader import Page, assert_self_contained

# of made_results: 1 1 2 7 1 3 1 1
OTHER = [1, 2, 1, 1, 1, 4, 6, 1]


def other(**changes):
    return make_results(ranks=OTHER, **changes)


def test_queries_are_sorted_by_who_is_right() -> None:
    groups = outcomes([make_results(), other()], ['A', 'B'])
    assert [(group.name, sorted(group.rows)) for group in groups] == [
        ('All', [0, 1, 2, 3, 4, 5, 6, 7]),
        ('A right, B wrong', [1, 6]),
        ('B right, A wrong', [2, 3]),
        ('Both right', [0, 4, 7]),
        ('Both wrong', [5]),
    ]


def test_of_three_models_one_may_stand_alone() -> None:
    third = make_results(ranks=[2, 2, 2, 1, 1, 1, 1, 1])
    groups = outcomes([make_results(), other(), third], ['A', 'B', 'C'])
    assert {group.name: sorted(group.rows) for group in groups} == {
        'All': list(range(8)),
        'All right': [4, 7],
        'All wrong': [],
        'Only A right': [1],
        'Only A wrong': [3],
        'Only B right': [2],
        'Only B wrong': [6],
        'Only C right': [5],
        'Only C wrong': [0],
    }


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        (
            dict(video_ids=[f'video-{x}' for x in (0, 1, 9, 3, 4, 5, 8)]),
            r"their videos differ\. 2 of 7 .* number 2: 'video-2' in 'A', "
            r"'video-9' in 'B'",
        ),
        (dict(captions=['x'] * 8), r'their captions differ\. 8 of 8'),
        (
            dict(video_ids=['v'] * 9),
            r"videos differ\. 'A' has 7, 'B' has 9\.",
        ),
        (dict(targets=[0, 1, 2, 3, 4, 5, 6, 5]), 'videos of the captions'),
    ],
)
def test_other_sets_are_refused(changes, said) -> None:
    with pytest.raises(ValueError, match=said):
        compare_page([make_results(), other(**changes)], ['A', 'B'])


@pytest.mark.parametrize('count', [1, 7])
def test_too_few_and_too_many_are_refused(count) -> None:
    with pytest.raises(ValueError, match=f'2 to 6 results, but got {count}'):
        check_comparable([make_results()] * count, ['A'] * count)


def test_names() -> None:
    results = [make_results(), other()]
    assert choose_names(results, ['a/x', 'b/y']) == [
        'EagleNet (x)',
        'EagleNet (y)',
    ]
    assert choose_names(results, ['a/x', 'b/x'])[1] == '2: EagleNet (x)'
    results[1].about['method'] = 'XPool'
    assert choose_names(results, ['a', 'b']) == ['EagleNet', 'XPool']
    assert choose_names(results, ['a', 'b'], ['1', '2']) == ['1', '2']
    for names in (['1'], ['1', '1'], ['1', '2', '3']):
        with pytest.raises(ValueError, match='as many different names'):
            choose_names(results, ['a', 'b'], names)


def test_the_page() -> None:
    second = other(videos=[], num_frames=3)
    second.queries = second.queries[1:]  # does not show the first
    html = compare_page([make_results(), second], ['A', 'B'])
    assert_self_contained(html)
    page = Page(html)
    assert 'A, B on made' in page.text
    assert page.text.count('best.pth') == page.text.count('config.py') == 2
    data = page.data
    assert data['filters'][1] == 'A right, B wrong'
    assert len(data['queries']) == 7
    first = data['queries'][0]
    assert [model['r'] for model in first['m']] == [1, 1]
    # what the other page does not show has its order, but no weights
    assert [item['v'] for item in first['m'][1]['x']] == [0, 1, 2, 3, 4]
    assert [item['f'] for item in first['m'][1]['x']] == [{}] * 5
    assert first['m'][0]['x'][0]['f']['attention'] == [0.5, 0.25, 0.25, 0]
    # of the right one behind the first five the score was not kept
    second.queries = []
    page = Page(compare_page([make_results(ranks=OTHER), second], ['A', 'B']))
    behind = page.data['queries'][6]['m'][1]['x'][5]
    assert (behind['v'], behind['r'], behind['s']) == (6, 6, None)
    by_caption = {query['c']: query for query in data['queries']}
    assert by_caption['caption number 3']['t'] == [0, 2]
    ordered = sorted(data['queries'], key=lambda query: query['s'][0])
    assert ordered[0]['c'] == 'caption number 3'  # ranks 7 and 1
    assert html.count('class="best"') == 6  # equal ones are both best


def test_low_ranks_and_high_recalls_are_best() -> None:
    one, two = make_results(), other()
    one.metrics = {'t2v/R1': 50.0, 't2v/MdR': 2.0}
    two.metrics = {'t2v/R1': 40.0, 't2v/MdR': 1.0}
    html = compare_page([one, two], ['A', 'B'])
    assert re.findall('class="best">([^<]*)<', html) == ['50.00', '1.00']


def test_frames_come_from_the_page_that_has_them() -> None:
    second = other()
    second.videos[5].strip, second.videos[5].num_images = jpeg(), 3
    second.videos[5].problem = ''
    videos = Page(compare_page([make_results(), second], ['A', 'B'])).data
    assert videos['videos']['5']['images'] == 3


def test_markup_in_data_stays_text() -> None:
    results = [nasty_results(), nasty_results()]
    html = compare_page(results, [NASTY, NASTY + '2'])
    assert_self_contained(html)
    assert '<img' not in html
    assert html.count('</script>') == 2
    assert f'{NASTY} right, {NASTY}2 wrong' in Page(html).text
