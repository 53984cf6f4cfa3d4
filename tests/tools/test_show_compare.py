"""From tests of two models to one page."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from eaglenet_mm.visualization import read_results, write_results
from tests.visualization.made_results import make_results
from tests.visualization.story_evaluation import CONFIGS, write_story


@pytest.fixture(scope='module')
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_story(tmp_path_factory.mktemp('story') / 'story')


def arguments(story: Path, folder: Path, method: str) -> list[object]:
    return [
        *('test.py', CONFIGS / f'{method}_story.py', 'none'),
        *('--work-dir', folder / f'{method}-work'),
        *('--show-dir', folder / method, '--show-queries', 6),
        '--cfg-options',
        f'test_dataloader.dataset.data_root={story}',
        'test_dataloader.num_workers=0',
    ]


def test_from_tests_to_a_comparison(
    story, call_tool, tmp_path, capsys
) -> None:
    for method in ('eaglenet', 'x_pool'):
        call_tool(*arguments(story, tmp_path, method))
        assert (tmp_path / f'{method}-work' / 'metrics.json').is_file()
        assert len(read_results(tmp_path / method).queries) <= 6
    out = tmp_path / 'pages' / 'compare.html'
    folders = [tmp_path / method for method in ('eaglenet', 'x_pool')]
    capsys.readouterr()
    call_tool('show_compare.py', *folders, '--out', out)
    assert capsys.readouterr().out.startswith(f'Written to {out} (')
    assert 'EagleNet right, XPool wrong' in out.read_text()
    names = ('--names', 'ours', 'theirs')
    call_tool('show_compare.py', *folders, '--out', out, *names)
    assert 'theirs right, ours wrong' in out.read_text()


@pytest.mark.nightly
def test_without_the_option_nothing_is_written(
    story, call_tool, tmp_path
) -> None:
    call = arguments(story, tmp_path, 'eaglenet')
    del call[5:9]
    call_tool(*call)
    assert os.listdir(tmp_path) == ['eaglenet-work']


def test_a_full_disk_does_not_cost_the_metrics(
    story, call_tool, tmp_path, monkeypatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError('no space')

    module = 'eaglenet_mm.engine.hooks.results_page_hook'
    monkeypatch.setattr(f'{module}.write_results', fail)
    with pytest.raises(OSError, match='no space'):
        call_tool(*arguments(story, tmp_path, 'eaglenet'))
    assert (tmp_path / 'eaglenet-work' / 'metrics.json').is_file()


def test_other_queries_are_refused(call_tool, tmp_path) -> None:
    write_results(tmp_path / 'a', make_results())
    write_results(tmp_path / 'b', make_results(captions=['other'] * 8))
    out = tmp_path / 'out.html'
    with pytest.raises(ValueError, match='their captions differ'):
        call_tool('show_compare.py', tmp_path / 'a', tmp_path / 'b',
                  '--out', out)  # fmt: skip
    with pytest.raises(FileNotFoundError, match='Results were expected at'):
        call_tool('show_compare.py', tmp_path / 'a', tmp_path / 'c',
                  '--out', out)  # fmt: skip
    assert not out.exists()
