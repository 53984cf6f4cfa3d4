"""The chain of everything a GPU can tell, and its tables."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from eaglenet_mm.models.heads import EagleNetHead

STAGES = (
    'tests', 'golden', 'scoring', 'step', 'iteration', 'evaluation', 'loading',
)  # fmt: skip


@pytest.fixture
def benchmarks(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Any]]:
    """Import from the folder of the benchmarks for the length of a test."""
    folder = repository / 'tools' / 'benchmark'
    monkeypatch.syspath_prepend(str(folder))
    yield importlib.import_module
    for file in folder.glob('*.py'):  # their names are too plain to stay
        sys.modules.pop(file.stem, None)


@pytest.fixture
def chain(
    benchmarks: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable:
    """Run a chain of small Python programs; give exit code and results."""
    gpu = benchmarks('gpu')

    def command_line(command: tuple, file: Path, _: Any) -> list[str]:
        return [sys.executable, '-c', command[0], str(file)]

    monkeypatch.setattr(gpu, 'command_line', command_line)
    monkeypatch.setattr(gpu, 'GRACE', 1.0)

    def run(*programs: str, seconds: float = 30) -> tuple[int, list[dict]]:
        stages = [
            gpu.Stage(
                f'stage{number}', seconds, [], [(program,)],
            )
            for number, program in enumerate(programs)
        ]  # fmt: skip
        out = tmp_path / 'out'
        monkeypatch.setattr(sys, 'argv', ['gpu.py', str(out), '--smoke'])
        code = gpu.main(stages)
        return code, [
            json.loads((out / f'{stage.name}.json').read_text())
            for stage in stages
        ]

    return run


REPORT = {'rows': [{'measured': 7}]}
WRITE = f'import sys; open(sys.argv[1], "w").write({json.dumps(REPORT)!r});'


def test_a_stage_costs_itself_alone(
    chain: Callable, capsys: pytest.CaptureFixture
) -> None:
    """One raises, one is killed, one leaves nothing; the others are whole."""
    code, results = chain(
        WRITE,
        WRITE + 'raise RuntimeError("no such kernel")',
        WRITE + 'import os; os.kill(os.getpid(), 9)',
        'pass',
        WRITE,
    )
    assert code == 1
    assert [result['status'] for result in results] == [
        'done',
        'failed with exit code 1',
        'ended by SIGKILL',
        'left no report',
        'done',
    ]
    lines = capsys.readouterr().out.splitlines()
    for number in (0, 1, 2, 4):
        assert lines[number].startswith(f'stage{number}: ')
        assert lines[number].endswith('measured 7')
    (raised,) = results[1]['parts']
    assert 'no such kernel' in raised['output']
    assert raised['report'] == REPORT


@pytest.mark.nightly
def test_a_stage_that_hangs_is_ended_with_its_children(
    chain: Callable, tmp_path: Path
) -> None:
    note = tmp_path / 'child'
    hanging = (
        WRITE + 'import signal, subprocess, time;'
        'signal.signal(signal.SIGINT, signal.SIG_IGN);'
        'child = subprocess.Popen(["sleep", "600"]);'
        f'open({str(note)!r}, "w").write(str(child.pid));'
        'time.sleep(600)'
    )
    code, results = chain(hanging, WRITE, seconds=10)
    assert code == 1
    assert results[0]['status'].startswith('stopped after ')
    assert results[0]['parts'][0]['report'] == REPORT
    assert results[1]['status'] == 'done'
    child = Path('/proc') / note.read_text() / 'stat'
    # gone, or a zombie that its new parent has not collected yet
    assert not child.exists() or child.read_text().split()[2] == 'Z'


@pytest.mark.nightly
def test_time_that_was_not_used_is_there_later(chain: Callable) -> None:
    slow = WRITE + 'import time; time.sleep(11)'
    code, results = chain(WRITE, WRITE, slow, seconds=10)
    assert code == 0, results
    assert results[2]['seconds'] > 10


def test_all_is_well(chain: Callable) -> None:
    assert chain(WRITE, WRITE)[0] == 0


def test_what_pytest_says_is_read(
    benchmarks: Callable, tmp_path: Path
) -> None:
    gpu = benchmarks('gpu')
    file = tmp_path / 'test_three.py'
    file.write_text(
        'import pytest\n'
        'def test_good(): pass\n'
        'def test_bad(): assert 1 == 2\n'
        '@pytest.mark.skip\n'
        'def test_not_now(): pass\n'
        '@pytest.fixture\n'
        'def broken(): raise OSError("no card")\n'
        'def test_set_up(broken): pass\n'
    )
    part = gpu.run_command(
        [sys.executable, '-m', 'pytest', '-ra', '-p', 'no:cacheprovider',
         '--rootdir', str(tmp_path), str(file)],
        tmp_path / 'report', 60,
    )  # fmt: skip
    assert part['status'] == 'failed with exit code 1'
    found = part['report']
    assert found['rows'] == [dict(passed=1, failed=2, skipped=1)]
    line = gpu.line_of(found)
    assert 'test_bad' in line
    assert 'test_set_up' in line
    assert 'test_good' not in line


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--stages', 'scoring,speed'), 'there is no speed; choose'),
        (('--golden-dir', 'nowhere'), 'nowhere is no folder'),
        pytest.param(
            (), 'torch sees no GPU. --smoke',
            marks=pytest.mark.skipif(
                torch.cuda.is_available(), reason='there is a GPU'
            ),
        ),
    ],
)  # fmt: skip
def test_what_cannot_start_is_refused(
    benchmarks: Callable, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture, tmp_path: Path, options: tuple,
    message: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, 'argv', ['gpu.py', str(tmp_path), *options])
    with pytest.raises(SystemExit) as stop:
        benchmarks('gpu').main()
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_what_does_not_fit_is_said(
    benchmarks: Callable, call_tool: Callable, chain: Callable,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    """The largest batch runs out of memory; the others are measured."""
    benchmarks('harness')

    def limit(kind: type, name: str, most: int) -> None:
        run = getattr(kind, name)

        def call(self: Any, text: Any, *others: Any) -> Any:
            if len(text) > most:
                raise torch.cuda.OutOfMemoryError('Tried to allocate 80 GiB.')
            return run(self, text, *others)

        monkeypatch.setattr(kind, name, call)

    limit(EagleNetHead, 'loss', 3)
    training = importlib.import_module(
        'tools.benchmark.reference.brute_force_training'
    )
    limit(training.BruteForceObjective, 'forward', 2)
    file = tmp_path / 'step.json'
    threads = torch.get_num_threads()
    try:
        call_tool(
            'benchmark/training.py', 'step', '--dim', 16, '--candidates', 4,
            '--threads', 1, '--repeats', 1, '--peak-size', 32, '--frames', 3,
            '--batch', 2, 3, 4, '--json', file,
        )  # fmt: skip
    finally:
        torch.set_num_threads(threads)
    report = json.loads(file.read_text())
    # the reference does not fit at 3: no fault of ours
    assert [(row['batch'], row['head']) for row in report['rows']] == [
        (2, 'ours'),
        (2, 'reference'),
        (3, 'ours'),
    ]
    assert len(report['notes']) == 1
    (note,) = report['skipped']
    assert note.startswith('batch 4 at 3 frames in float32 does not fit')
    copy = f'import shutil, sys; shutil.copy({str(file)!r}, sys.argv[1])'
    code, (result,) = chain(copy)
    assert code == 1
    assert result['status'] == 'measured in part'
    assert 'Tried to allocate 80 GiB' in result['line']


@pytest.fixture(scope='module')
def smoke(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """Run the whole chain in small; give its folder and its lines."""
    out = tmp_path_factory.mktemp('smoke')
    result = subprocess.run(
        ['bash', 'tools/benchmark/gpu.sh', str(out), '--smoke'],
        cwd=repository,
        env={**os.environ, 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
    )
    lines = result.stdout + result.stderr
    assert result.returncode == 0, lines + ''.join(
        part.get('output') or ''
        for file in out.glob('*.json')
        for part in json.loads(file.read_text())['parts']
    )
    return out, lines


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.timeout(540)
def test_every_stage_runs_in_small(smoke: tuple[Path, str]) -> None:
    out, lines = smoke
    assert [x.split(':')[0] for x in lines.splitlines()[:-1]] == [*STAGES]
    results = {
        file.stem: json.loads(file.read_text()) for file in out.glob('*.json')
    }
    assert set(results) == set(STAGES)
    for result in results.values():
        assert result['status'] == 'done'
        assert result['smoke'] is True
        assert all(part['report'] for part in result['parts'])
    for name in ('tests', 'golden'):
        (part,) = results[name]['parts']
        (row,) = part['report']['rows']
        assert row['failed'] == 0
        assert row['passed'] > 20
    (part,) = results['step']['parts']
    assert [
        (row['batch'], row['head']) for row in part['report']['rows'][:3]
    ] == [(3, 'ours'), (3, 'reference'), (6, 'ours')]


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.timeout(540)
def test_figures_come_into_the_pages(
    smoke: tuple[Path, str], benchmarks: Callable, repository: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    tables = benchmarks('gpu_tables')
    for page in tables.PAGES:
        copy = tmp_path / 'root' / page
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text((repository / page).read_text())
    for file in smoke[0].glob('*.json'):
        # as a card would have left it
        result = json.loads(file.read_text())
        result['smoke'] = False
        for part in result['parts']:
            part['report'].get('machine', {}).update(gpu='Card 1', cuda='13.0')
            for row in part['report']['rows']:
                if 'peak GiB' in row:
                    row['peak GiB'] = 3.0
        (tmp_path / file.name).write_text(json.dumps(result))
    (tmp_path / 'loading.json').unlink()

    monkeypatch.setattr(tables, 'REPOSITORY', tmp_path / 'root')
    monkeypatch.setattr(sys, 'argv', ['', str(tmp_path)])
    tables.main()
    performance, readme = (
        (tmp_path / 'root' / page).read_text() for page in tables.PAGES
    )
    section = performance.split('<!-- gpu: begin')[1]
    assert 'Card 1, CUDA 13.0, torch ' in section
    assert '| 7x5x3 |' in section.replace('  ', '')
    # six stages have a table, the seventh is not measured
    assert section.count('**\n\n| ') == 6
    assert section.count(tables.UNKNOWN) == 1
    assert 's and 3 GiB on one Card 1 in bfloat16, ' in readme


def test_pages_say_what_is_not_measured(
    benchmarks: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pages have their markers, and smoke figures stay out."""
    tables = benchmarks('gpu_tables')
    assert tables.section({}) == tables.UNKNOWN
    for name in tables.PAGES.values():
        text = f'a <!-- {name}: begin -->old<!-- {name}: end --> b'
        new = tables.replace_between(text, name, 'new')
        assert new == text.replace('old', 'new')
        with pytest.raises(ValueError, match=f'Expected one .*{name}'):
            tables.replace_between('no marker', name, 'new')
    (tmp_path / 'step.json').write_text('{"smoke": true}')
    monkeypatch.setattr(sys, 'argv', ['', str(tmp_path)])
    with pytest.raises(SystemExit, match='is of --smoke'):
        tables.main()


@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM'])
def test_an_interrupt_keeps_what_is_measured(
    benchmarks: Callable, tmp_path: Path, name: str
) -> None:
    """The stage at work is asked for what it has, and leaves nobody behind."""
    note = tmp_path / 'child'
    working = (
        'import os, sys, time, signal;'
        'signal.signal(signal.SIGINT, signal.default_int_handler);'
        + WRITE
        + f'open({str(note)!r}, "w").write(str(os.getpid()));'
        'time.sleep(600)'
    )
    script = (
        'import sys, signal\n'
        'signal.signal(signal.SIGINT, signal.default_int_handler)\n'
        'import gpu\n'
        'gpu.command_line = lambda command, file, _: '
        '[sys.executable, "-c", command[0], str(file)]\n'
        f'programs = [{WRITE!r}, {working!r}, {WRITE!r}]\n'
        'sys.exit(gpu.main([gpu.Stage(f"stage{n}", 60, [], [(p,), (p,)])'
        ' for n, p in enumerate(programs)]))\n'
    )
    out = tmp_path / 'out'
    folder = Path(benchmarks('gpu').__file__).parent
    with subprocess.Popen(
        [sys.executable, '-c', script, out, '--smoke'],
        env={**os.environ, 'PYTHONPATH': str(folder)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        while not (note.is_file() and note.read_text()):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        process.send_signal(getattr(signal, name))
        told, _ = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert 'stage1: interrupted' in told
    assert 'measured 7' in told.splitlines()[1]
    done, stopped = (
        json.loads((out / f'stage{number}.json').read_text())
        for number in range(2)
    )
    assert done['status'] == 'done'
    (part,) = stopped['parts']
    assert part['report'] == REPORT
    assert not (out / 'stage2.json').exists()
    assert not Path('/proc', note.read_text()).exists()


def test_what_is_not_installed_is_named(
    benchmarks: Callable, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture, tmp_path: Path,
) -> None:  # fmt: skip
    gpu = benchmarks('gpu')
    monkeypatch.setattr(gpu, 'NEEDED', ('torch', 'no_such_package'))
    monkeypatch.setattr(sys, 'argv', ['gpu.py', str(tmp_path), '--smoke'])
    with pytest.raises(SystemExit) as stop:
        gpu.main()
    assert stop.value.code == 2
    assert 'not installed here: no_such_package.' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arch', 'energy'),
    [('ViT-B-16', 'BilinearEnergy'), ('ViT-B-32-quickgelu', 'MLPEnergy')],
)
def test_towers_come_with_the_head_of_their_recipe(
    benchmarks: Callable, arch: str, energy: str
) -> None:
    options = benchmarks('harness').make_parser('', 'head').parse_args([])
    options.arch = arch
    config = benchmarks('training_iteration').make_config(options)
    assert config.model.head.loss_energy.energy.type == energy
    arch = arch.removesuffix('-quickgelu') + '-quickgelu'
    assert config.model.video_encoder.arch == arch
    assert config.model.video_encoder.pretrained is None
