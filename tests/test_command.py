"""The command eaglenet-mm: finds its tools, and runs them as scripts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import eaglenet_mm
import eaglenet_mm_cli

#: Tools that are parts of others, or for those who work on the package.
NO_COMMANDS = {
    *('quickstart_report.py', 'quickstart.sh', 'run_tests.sh'),
    *('environment.sh', 'slurm_train.sh', 'slurm_test.sh', 'build_docs.sh'),
    *('dataset_converters/command_line.py', 'model_converters/converting.py'),
}


def run(
    *words: str, setup: str = 'pass', folder: Path | None = None
) -> subprocess.CompletedProcess:
    """Run the command in a process that may change it before."""
    code = (
        f'import sys, eaglenet_mm_cli as command; {setup}; '
        f'sys.argv = ["eaglenet-mm", *{list(words)!r}]; '
        'sys.exit(command.main())'
    )
    return subprocess.run(
        [sys.executable, '-c', code],
        env={
            **os.environ,
            'PYTHONPATH': str(Path(eaglenet_mm_cli.__file__).parent),
            'OMP_NUM_THREADS': '1',
        },
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_tool_is_a_command(repository: Path) -> None:
    tools = repository / 'tools'
    there = {
        path.relative_to(tools).as_posix()
        for pattern in ('*.py', '*.sh', '*_converters/*.py')
        for path in tools.glob(pattern)
    }
    files = {file for file, _ in eaglenet_mm_cli.COMMANDS.values()}
    assert there - NO_COMMANDS - files == set()
    assert files <= there


@pytest.mark.parametrize(
    ('words', 'code'), [(['--help'], 0), (['-h'], 0), ([], 2)]
)
def test_the_list_imports_nothing_heavy(words: list[str], code: int) -> None:
    setup = (
        'import atexit; atexit.register(lambda: print('
        '{"torch", "eaglenet_mm", "mmengine"} & set(sys.modules)))'
    )
    result = run(*words, setup=setup)
    lines = result.stdout.splitlines()
    assert result.returncode == code
    assert lines[-1] == 'set()'
    for name, (_, about) in eaglenet_mm_cli.COMMANDS.items():
        assert [x for x in lines if name in x and x.endswith(about)]
    assert max(map(len, lines)) < 80


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int | str | None:
    """Run the command in this process."""
    monkeypatch.setattr(sys, 'argv', ['eaglenet-mm', *words])
    monkeypatch.setattr(sys, 'path', list(sys.path))
    monkeypatch.setitem(sys.modules, '__main__', sys.modules['__main__'])
    try:
        return eaglenet_mm_cli.main()
    except SystemExit as end:
        return end.code


def test_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert call(monkeypatch, '--version') == 0
    version = capsys.readouterr().out
    assert version == f'eaglenet_mm {eaglenet_mm.__version__}\n'


@pytest.mark.parametrize(
    ('words', 'near'),
    [
        (['trian'], 'train'),
        (['msrvtt', '--help'], 'convert msrvtt'),
        (['convert', 'msrvt', 'x'], 'convert msrvtt'),
        (['extract_features'], 'extract-features'),
        (['zzz'], 'train, test'),
    ],
)
def test_a_mistyped_command(
    words: list[str],
    near: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    assert call(monkeypatch, *words) == 2
    told = capsys.readouterr()
    assert near in told.err
    assert told.out == ''


def test_a_group_is_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert call(monkeypatch, 'convert', '--help') == 0
    shown = capsys.readouterr().out
    assert 'convert vatex' in shown
    assert 'train' not in shown


def test_a_tool_gets_its_options_and_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert call(monkeypatch, 'convert', 'story', '--help') == 0
    assert 'usage: eaglenet-mm convert story [' in capsys.readouterr().out
    assert call(monkeypatch, 'check', 'eaglenet_msrvt') == 2
    told = capsys.readouterr().err
    assert told.startswith('eaglenet-mm check: FileNotFoundError')
    assert 'eaglenet_msrvtt' in told


TOOL = """
import multiprocessing
import sys

import beside


def square(x):
    return beside.power(x)


if __name__ == '__main__':
    for start in ('spawn', 'forkserver'):
        with multiprocessing.get_context(start).Pool(2) as pool:
            print(start, pool.map(square, [1, 2, 3]))
    print(sys.argv)
    sys.exit(7)
"""


def test_started_processes_find_the_tool(tmp_path: Path) -> None:
    (tmp_path / 'some.py').write_text(TOOL)
    (tmp_path / 'beside.py').write_text('power = (2).__rpow__')
    setup = (
        'from pathlib import Path; '
        f'command._tools = lambda: Path({str(tmp_path)!r}); '
        'command.COMMANDS["some"] = ("some.py", "")'
    )
    result = run('some', '--x', 'a b', setup=setup)
    assert result.stdout.splitlines() == [
        'spawn [1, 4, 9]',
        'forkserver [1, 4, 9]',
        "['eaglenet-mm some', '--x', 'a b']",
    ], result.stderr
    assert result.returncode == 7


@pytest.mark.slow
@pytest.mark.nightly
def test_a_training_by_name_from_any_folder(
    story: Path, tmp_path: Path
) -> None:
    words = (
        *('--work-dir', 'run', '--cfg-options', f'data_root={story}/'),
        *('batch_size=2', 'train_cfg.max_epochs=1'),
        'train_cfg.val_interval=1',
        'train_dataloader.multiprocessing_context=spawn',
        'val_dataloader.multiprocessing_context=forkserver',
    )
    result = run('train', 'mean_pooling_story', *words, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    (found,) = (tmp_path / 'run').glob('best_*.pth')
    result = run(
        *('dist-test', 'mean_pooling_story', str(found), '2'),
        *words[:4],
        folder=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / 'run' / 'metrics.json').exists()
