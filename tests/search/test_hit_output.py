"""The page of ``search --html``."""

from __future__ import annotations

from types import SimpleNamespace

from eaglenet_mm.search.hit_output import hit_page
from eaglenet_mm.search.searching import SearchAnswer, SearchHit
from tests.visualization.made_results import NASTY
from tests.visualization.page_reader import Page


def test_hits_have_ranks_links_and_alternative_texts(tmp_path) -> None:
    there = tmp_path / '\'"<i> #1.mp4'
    there.touch()
    paths = [str(there), f'/gone/{NASTY}.mp4', '/gone/\udcff.mp4']
    answer = SearchAnswer(
        [SearchHit(0, path, 2.0, 63.5, 2.5, 0.5, 0.25) for path in paths],
        has_more=False,
        scored=3,
        total=3,
    )
    index = SimpleNamespace(thumbnail=lambda row: b'jpeg')
    html = hit_page(NASTY, answer, index, 'note & more')  # type: ignore[arg-type]
    html.encode()
    page = Page(html)
    links = [a['href'] for tag, a in page.tags if tag == 'a']
    assert links == [there.as_uri() + x for x in ('', '#t=2.0', '#t=2.5')]
    pictures = [a for tag, a in page.tags if tag == 'img']
    assert pictures[0]['alt'] == 'Frame of \'"<i> #1.mp4'
    assert all(a['src'] == 'data:image/jpeg;base64,anBlZw==' for a in pictures)
    assert page.count('script') == page.count('i') == 0
    assert page.text.count('file is gone') == 2
    for said in ('1', '3', NASTY, '0:02.0 to 1:03.5, best at', 'note & more'):
        assert said in page.text
