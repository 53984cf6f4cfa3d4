"""Every tool that takes a config takes the name of a shipped one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

NAME = 'eaglenet_msrvt'
#: Words behind the tool; {file} exists, {name} is a mistyped name.
CALLS = {
    'train.py': '{name}',
    'test.py': '{name} none',
    'export.py': '{name} {file} --out {file}',
    'compare.py': '{name}',
    'index.py': '{file} --config {name} --out {file}.index',
    'search.py': '{file} query --config {name}',
    'extract_features.py': '{file} --config {name} --out {file}.safetensors',
    'cache_frames.py': '{name}',
    'check_videos.py': '{name}',
    'model_converters/eaglenet_release.py': '{file} {file}.o --config {name}',
    'model_converters/baseline_release.py': (
        'x_pool {file} {file}.o --config {name}'
    ),
}


@pytest.mark.parametrize('tool', CALLS)
def test_near_names_are_told(
    tool: str,
    call_tool: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'file').touch()
    words = CALLS[tool].format(name=NAME, file='file').split()
    with pytest.raises((FileNotFoundError, SystemExit)) as caught:
        call_tool(tool, *words)
    told = f'{caught.value} {capsys.readouterr().err}'
    assert 'Similar names: eaglenet_msrvtt, ' in told


def test_no_tool_reads_configs_in_its_own_way(repository: Path) -> None:
    """``Config.fromfile`` knows neither names nor variables."""
    readers = [
        path.name
        for path in (repository / 'tools').rglob('*.py')
        if 'fromfile(args.' in path.read_text()
    ]
    assert readers == []
