"""How a tool ends."""

from __future__ import annotations

import re
import sys

import pytest
import torch
from mmengine.config import Config

from eaglenet_mm.config.knobs import Request
from eaglenet_mm.launching import run_script, spare_tracebacks
from eaglenet_mm.registry import MODELS, SCOPE


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


def uncaught(monkeypatch, capsys, function):
    """Give what Python prints of an error that nothing catches."""
    monkeypatch.setattr('sys.argv', ['/some/where/train.py'])
    monkeypatch.setattr('sys.excepthook', sys.excepthook)
    spare_tracebacks()
    try:
        function()
    except BaseException:  # noqa: BLE001
        sys.excepthook(*sys.exc_info())
    return capsys.readouterr().err


def build(**settings):
    return MODELS.build(dict(_scope_=SCOPE, **settings))


@pytest.mark.parametrize(
    ('settings', 'told'),
    [
        (dict(type='MeanPooling'), 'KeyError: MeanPooling is not in the'),
        (dict(type='MeanPoolingHead', depth=1), 'TypeError: .*depth'),
        (dict(type='XPoolHead', embed_dim=8, num_heads=3), 'ValueError: '),
    ],
)
def test_errors_of_settings_have_no_traceback(
    monkeypatch, capsys, settings, told
):
    shown = uncaught(monkeypatch, capsys, lambda: build(**settings))
    assert re.match(f'train.py: {told}', shown)
    assert 'Traceback' not in shown


def test_other_errors_keep_their_traceback(monkeypatch, capsys):
    def lookup():  # KNOBS[name], in the package
        Request(Config(), 'no_knob', 1).settings()

    def library():
        torch.zeros(2).view(3)

    for function in (lookup, library, raising(ValueError('of a user'))):
        shown = uncaught(monkeypatch, capsys, function)
        assert shown.startswith('Traceback')
