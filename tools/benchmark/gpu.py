r"""Everything a GPU can tell, in one command.

    python tools/benchmark/gpu.py OUT_DIR
    python tools/benchmark/gpu.py OUT_DIR --stages tests,golden
    python tools/benchmark/gpu.py OUT_DIR --smoke

A chain of stages, the most valuable first. Each is made of processes of its
own with a time limit, and leaves one line here and one JSON file in OUT_DIR,
so that a stage that fails or hangs costs itself alone. Time that a stage does
not use is there for the later ones. ``gpu_tables.py OUT_DIR`` then brings the
figures into docs/performance.md. --smoke runs every stage in small on a CPU.

Exit code: 0 if all is well, 1 if a stage failed, ran out of time or had sizes
that did not fit on the card, 2 if nothing could be started, 130 after Ctrl-C
or SIGTERM, which keep what was measured.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from gpu_tables import notes_of
from tables import cell

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
#: Seconds between asking a process to stop and ending it.
GRACE = 5.0
#: Characters of the output of a failed process that are kept.
TAIL = 6000
#: What the stages import; looked for before the first of them.
NEEDED = (
    'torch', 'torchvision', 'mmengine', 'mmcv', 'mmaction', 'open_clip', 'av',
    'cv2', 'matplotlib', 'platformdirs', 'pytest', 'pytest_timeout',
    'hypothesis',
)  # fmt: skip

Report = dict[str, Any]
#: Status of what Ctrl-C or SIGTERM ended.
INTERRUPTED = 'interrupted'


class Stage(NamedTuple):
    """A link of the chain: its time, and its commands in full and in small."""

    name: str
    seconds: float
    full: Sequence[str]
    smoke: Sequence[str]


TINY = (
    '--dim 16 --candidates 4 --repeats 1 --frames 3 --peak-size 32 '
    '--dtype float32 bfloat16'
)
SCORING = (
    'pair_scoring --device cuda --texts 1000 --videos 1000 '
    '--reference-texts 8 --repeats 3 --dtype float32 tf32 bfloat16'
)
STAGES = (
    Stage(
        'tests',
        100,
        ['pytest -m gpu --device cuda tests/gpu'],
        ['pytest -m "gpu and not slow" --device cpu tests/gpu'],
    ),
    Stage(
        'golden',
        50,
        ['pytest --device cuda tests/golden'],
        ['pytest tests/golden/test_layers.py tests/golden/test_losses.py'],
    ),
    Stage(
        'scoring',
        80,
        [
            f'{SCORING} --frames 12',
            f'{SCORING} --frames 64',
            # last, since the compiler takes longest
            f'{SCORING} --frames 12 --dtype bfloat16 float32 --compiled',
        ],
        [f'pair_scoring {TINY} --texts 7 --videos 5 --reference-texts 3'],
    ),
    Stage(
        'step',
        50,
        [
            'training step --device cuda --frames 12 --batch 64 128 256 1024 '
            '--dtype bfloat16 float32 --reference-up-to 128 --count-up-to 64 '
            '--repeats 1'
        ],
        [
            f'training step {TINY} --batch 3 6 --reference-up-to 3 '
            '--count-up-to 3'
        ],
    ),
    Stage(
        'iteration',
        60,
        [
            'training_iteration --device cuda --arch ViT-B-16 --batch 64 '
            '--frames 12 --dtype bfloat16 float16 float32 '
            '--checkpointing off on'
        ],
        [
            'training_iteration --arch ViT-B-32 --batch 2 --frames 1 '
            '--repeats 1 --dtype bfloat16 --checkpointing on'
        ],
    ),
    Stage(
        'evaluation',
        110,
        [
            'multi_caption --device cuda --videos 1000 --captions 1000 '
            '--stages all_pairs',
            'video_search speed --device cuda --rows 100000 --queries 20 '
            '--index {scratch}/index',
            'multi_caption --device cuda',
        ],
        [
            'multi_caption --dim 16 --candidates 4 --repeats 1 --frames 3 '
            '--videos 12 --captions 40 --sample 9 --shortlist 4',
            'video_search speed --config eaglenet_toy --rows 600 --queries 3 '
            '--index {scratch}/index',
        ],
    ),
    Stage(
        'loading',
        30,
        # small batches: workers keep two each in shared memory
        ['video_loading loader --device cuda --batch 4 --clips 6'],
        [
            'video_loading loader --clips 2 --items 6 --batch 3 --size 32 '
            '--workers 1 --repeats 1'
        ],
    ),
)


def parse_args(stages: Sequence[Stage]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('out_dir', type=Path, help='folder of the JSON files')
    add('--stages', help='some of them, with commas: ' + _names(stages))
    add('--smoke', action='store_true', help='in small, on a CPU')
    add('--golden-dir', type=Path, help='golden data, if they lie elsewhere')
    args = parser.parse_args()
    chosen = (args.stages or _names(stages)).split(',')
    unknown = set(chosen) - {stage.name for stage in stages}
    if unknown:
        parser.error(
            f'--stages: there is no {", ".join(sorted(unknown))}; choose from '
            f'{_names(stages)}.'
        )
    if args.golden_dir and not args.golden_dir.is_dir():
        parser.error(f'--golden-dir: {args.golden_dir} is no folder.')
    args.stages = [stage for stage in stages if stage.name in chosen]
    missing = [name for name in NEEDED if not importlib.util.find_spec(name)]
    if missing:
        parser.error(f'not installed here: {", ".join(missing)}.')
    if not args.smoke:
        # here, since torch takes seconds to import
        import torch

        if not torch.cuda.is_available():
            parser.error('torch sees no GPU. --smoke tries all on a CPU.')
    return args


def _names(stages: Sequence[Stage]) -> str:
    return ','.join(stage.name for stage in stages)


def command_line(
    command: str, file: Path, args: argparse.Namespace
) -> list[str]:
    """Write out a command."""
    name, *options = shlex.split(command.format(scratch=file.parent))
    if name == 'pytest':
        options = ['-m', name, '-v', '-p', 'no:cacheprovider', *options]
        if args.golden_dir:
            options += ['--golden-dir', str(args.golden_dir.resolve())]
        return [sys.executable, *options, f'--junitxml={file}']
    if args.smoke:
        options += ['--threads', '1']
    script = str(HERE / f'{name}.py')
    return [sys.executable, script, *options, '--json', str(file)]


def read_report(file: Path) -> Report | None:
    """Read what a process has written, JSON or pytest's XML."""
    if not file.is_file():
        return None
    text = file.read_text()
    if not text.startswith('<'):
        return json.loads(text)
    cases = list(ElementTree.fromstring(text).iter('testcase'))
    failures = {
        (case.get('classname'), case.get('name')): problem.get('message', '')
        for case in cases
        for problem in case
        if problem.tag in ('failure', 'error')
    }
    skipped = sum(case.find('skipped') is not None for case in cases)
    row = dict(
        passed=len(cases) - skipped - len(failures),
        failed=len(failures),
        skipped=skipped,
    )
    notes = [
        f'{file} {name}: {message:.300}'
        for (file, name), message in failures.items()
    ]
    return dict(benchmark='pytest', rows=[row], notes=notes)


def run_command(
    command: list[str], file: Path, seconds: float
) -> dict[str, Any]:
    """Run a process, and end it with all its children at the time limit."""
    begin = time.perf_counter()
    environment = dict(os.environ, HF_HUB_OFFLINE='1', PYTHONUNBUFFERED='1')
    paths = [str(REPOSITORY), os.environ.get('PYTHONPATH', '')]
    environment['PYTHONPATH'] = os.pathsep.join(filter(None, paths))
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        status = 'done'
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = f'stopped after {seconds:.0f} s'
        except KeyboardInterrupt:
            status = INTERRUPTED
        if status != 'done':
            # pytest and the benchmarks write what they have
            end_group(process, signal.SIGINT)
        end_group(process, signal.SIGKILL)
        output.seek(max(0, output.tell() - TAIL))
        tail = output.read().decode(errors='replace')
    if status == 'done' and process.returncode:
        code = process.returncode
        status = (
            f'ended by {signal.Signals(-code).name}'
            if code < 0
            else f'failed with exit code {code}'
        )
    try:
        report = read_report(file)
    except (ValueError, ElementTree.ParseError) as error:
        report, status = None, f'{status}, unreadable report: {error}'
    if status == 'done' and report is None:
        status = 'left no report'
    if report is not None and status == 'done' and report.get('skipped'):
        status = 'measured in part'
    return dict(
        status=status,
        seconds=time.perf_counter() - begin,
        command=[Path(x).name for x in command[1:]],
        report=report,
        output=None if status == 'done' else tail,
    )


def end_group(process: subprocess.Popen, number: signal.Signals) -> None:
    """Send a signal to a process and its children, and wait for it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)


def run_stage(
    stage: Stage, args: argparse.Namespace, seconds: float
) -> dict[str, Any]:
    """Run a stage and write its JSON file, after every process of it."""
    begin = time.perf_counter()
    parts: list[dict[str, Any]] = []
    result: dict[str, Any] = dict(
        stage=stage.name, smoke=args.smoke, status='unfinished', parts=parts
    )
    file = args.out_dir / f'{stage.name}.json'
    with tempfile.TemporaryDirectory() as scratch:
        for number, command in enumerate(
            stage.smoke if args.smoke else stage.full
        ):
            report = Path(scratch) / f'{number}.report'
            left = seconds - (time.perf_counter() - begin)
            if parts and parts[-1]['status'] == INTERRUPTED:
                break
            parts.append(
                run_command(command_line(command, report, args), report, left)
                if left > 0
                else dict(status='not run, no time left', report=None)
            )
            file.write_text(json.dumps(result, indent=1) + '\n')
    troubles = [part['status'] for part in parts if part['status'] != 'done']
    result.update(
        status='; '.join(troubles) or 'done',
        seconds=time.perf_counter() - begin,
        line='; '.join(line_of(x['report']) for x in parts if x['report']),
    )
    file.write_text(json.dumps(result, indent=1) + '\n')
    return result


def line_of(report: Report) -> str:
    """Say in a line what the rows of a table tell."""
    rows = [
        ', '.join(
            f'{key} {cell(value)}'
            for key, value in row.items()
            if value is not None and not isinstance(value, dict)
        )
        for row in report['rows']
    ]
    return '; '.join([*rows, *notes_of(report)])


def main(stages: Sequence[Stage] = STAGES) -> int:
    """Run the chain."""
    args = parse_args(stages)
    args.out_dir.mkdir(parents=True, exist_ok=True)
    # a job that is ended must not leave its stage behind on the card
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    begin, planned, code = time.perf_counter(), 0.0, 0
    try:
        for stage in args.stages:
            planned += stage.seconds
            left = planned - (time.perf_counter() - begin)
            result = run_stage(stage, args, left)
            print(
                f'{stage.name}: {result["status"]}, {result["seconds"]:.0f} '
                f's. {result["line"]}',
                flush=True,
            )
            code = max(code, int(result['status'] != 'done'))
            if INTERRUPTED in result['status']:
                return 130
    finally:
        signal.signal(signal.SIGTERM, previous)
    print(f'{time.perf_counter() - begin:.0f} s in all; see {args.out_dir}')
    return code


if __name__ == '__main__':
    sys.exit(main())
