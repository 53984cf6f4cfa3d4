from __future__ import annotations

import pytest

from eaglenet_mm.utils import progress
from eaglenet_mm.utils.progress import Progress


@pytest.fixture(params=[True, False], ids=['terminal', 'file'])
def is_terminal(request, monkeypatch):
    monkeypatch.setattr(progress, 'is_terminal', lambda: request.param)
    return request.param


def test_the_end_is_shown_without_a_flood(capsys, is_terminal):
    bar = Progress('captions', 10_000)
    for _ in range(10_000):
        bar.update(1)
    bar.close()
    shown = capsys.readouterr().out
    assert shown.startswith('captions')
    assert shown.endswith('\n')
    if is_terminal:
        assert '10000/10000' in shown
        assert 20 < shown.count('\r') < 50
    else:
        assert '\r' not in shown
        lines = shown.splitlines()
        assert [line.split(',')[0] for line in lines] == [
            f'captions: {done} of 10000' for done in (2500, 5000, 7500, 10000)
        ]


@pytest.mark.parametrize(('main', 'total'), [(False, 5), (True, 0)])
def test_nothing_is_drawn(capsys, monkeypatch, is_terminal, main, total):
    monkeypatch.setattr(progress, 'is_main_process', lambda: main)
    bar = Progress('captions', total)
    bar.update(1)
    bar.close()
    assert capsys.readouterr().out == ''


def test_a_share_is_completed_on_closing(capsys, is_terminal):
    """The main process of two counts half of the items."""
    bar = Progress('captions', 8)
    bar.update(4)
    bar.close()
    expected = '8/8' if is_terminal else '8 of 8'
    assert expected in capsys.readouterr().out
