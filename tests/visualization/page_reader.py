"""Reading pages as a browser would, without one."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any


class Page(HTMLParser):
    """Elements, texts and data of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ''
        self.scripts: list[str] = []
        self._inside = ''
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == 'script':
            self.scripts.append('')

    def handle_endtag(self, tag: str) -> None:
        self._inside = ''

    def handle_data(self, data: str) -> None:
        if self._inside == 'script':
            self.scripts[-1] += data
        elif self._inside != 'style':
            self.text += data

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.scripts[0])

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def assert_self_contained(html: str) -> None:
    """Nothing is named that a browser would have to fetch."""
    page = Page(html)
    for tag, attributes in page.tags:
        assert tag not in ('link', 'iframe', 'object', 'base', 'img')
        for name, value in attributes.items():
            assert not name.startswith('on')
            assert name not in ('src', 'srcset', 'action')
            if name in ('href', 'xlink:href'):
                assert str(value).startswith('#')
    assert page.count('script') == 2
    assert '@import' not in html
    assert 'url(' not in html.replace('url(data:image/jpeg;base64,', '')
