"""How a tool ends."""

from __future__ import annotations

import pytest

from eaglenet_mm.launching import run_script


def run(monkeypatch, main, **options):
    monkeypatch.setattr('sys.argv', ['/some/where/index.py'])
    run_script(main, **options)


def raising(error):
    def main():
        raise error

    return main


def test_nothing_is_said_of_success(monkeypatch, capsys):
    run(monkeypatch, lambda: None)
    run(monkeypatch, lambda: 0)
    assert capsys.readouterr() == ('', '')
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, lambda: 1)
    assert end.value.code == 1


def test_an_error_of_the_user_is_one_printable_line(monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, raising(ValueError('no\n \x1b[2J file \udcff')))
    assert end.value.code == 2
    shown = capsys.readouterr().err
    assert shown == 'index.py: ValueError: no \\x1b[2J file \\udcff\n'


def test_a_fault_of_ours_has_its_traceback(monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, raising(AttributeError('shape')))
    assert end.value.code == 2
    assert 'Traceback' in capsys.readouterr().err


@pytest.mark.parametrize('goes_on', [True, False])
def test_an_interrupt(monkeypatch, capsys, goes_on):
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, raising(KeyboardInterrupt), goes_on=goes_on)
    assert end.value.code == 130
    assert ('same command goes on' in capsys.readouterr().out) is goes_on
