"""Every option of every tool tells its default."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
SCRIPTS = sorted(
    path.relative_to(TOOLS).as_posix()
    for path in TOOLS.rglob('*.py')
    if "__name__ == '__main__'" in path.read_text('utf-8')
)


class Found(BaseException):  # which no tool catches
    pass


@pytest.mark.parametrize('script', SCRIPTS)
def test_defaults_are_told(
    script: str,
    call_tool: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(parser: argparse.ArgumentParser, *_: object) -> None:
        raise Found(parser)

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', stop)
    with pytest.raises(Found) as caught:
        call_tool(script)
    parser = caught.value.args[0]
    silent = []
    for action in parser._actions:
        default = action.default
        is_flag = action.nargs == 0
        if is_flag or argparse.SUPPRESS in (action.help, default):
            continue
        if default is None or default in ('', []):
            continue
        told = parser._get_formatter()._expand_help(action)
        if f'default: {default}' not in told:
            silent.append((action.dest, default, told))
    assert not silent
