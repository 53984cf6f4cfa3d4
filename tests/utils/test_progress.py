from __future__ import annotations

import pytest

from eaglenet_mm.utils import progress
from eaglenet_mm.utils.progress import Progress


def test_the_bar_ends_complete_and_does_not_flood(capsys):
    bar = Progress('captions', 10_000)
    for _ in range(10_000):
        bar.update(1)
    bar.close()
    shown = capsys.readouterr().out
    assert shown.startswith('captions ')
    assert '10000/10000' in shown
    assert shown.endswith('\n')
    assert 20 < shown.count('\r') < 50


@pytest.mark.parametrize(('main', 'total'), [(False, 5), (True, 0)])
def test_nothing_is_drawn(capsys, monkeypatch, main, total):
    monkeypatch.setattr(progress, 'is_main_process', lambda: main)
    bar = Progress('captions', total)
    bar.update(1)
    bar.close()
    assert capsys.readouterr().out == ''


def test_a_share_is_completed_on_closing(capsys):
    """The main process of two counts half of the items."""
    bar = Progress('captions', 8)
    bar.update(4)
    bar.close()
    assert '8/8' in capsys.readouterr().out
