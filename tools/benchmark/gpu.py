r"""Everything a GPU can tell, in one command.

    python tools/benchmark/gpu.py OUT_DIR
    python tools/benchmark/gpu.py OUT_DIR --stages tests,golden
    python tools/benchmark/gpu.py OUT_DIR --smoke

Runs stages, the most valuable first. Each has processes of its own and a time
limit, prints one line and writes one JSON file to OUT_DIR, so a stage that
fails or hangs costs itself alone. Time that a stage leaves is there for later
ones. ``gpu_tables.py OUT_DIR`` then brings the figures into the pages. --smoke
runs every stage in small on a CPU.

Exit code: 0 if all is well, 1 if a stage failed, ran out of time or had sizes
that did not fit on the GPU, 2 if nothing could be started, 130 after Ctrl-C or
SIGTERM, which keep what was measured.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpu_tables import notes_of
from tables import cell

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
#: Seconds between asking a process to stop and killing it.
GRACE = 5.0
#: Characters of the output of a failed process that are kept.
TAIL = 6000
#: What the stages import; looked for before the first of them.
NEEDED = (
    'torch', 'torchvision', 'mmengine', 'mmcv', 'mmaction', 'open_clip', 'av',
    'cv2', 'matplotlib', 'platformdirs', 'pytest', 'pytest_timeout',
    'hypothesis',
)  # fmt: skip
INTERRUPTED = 'interrupted'

Report = dict[str, Any]


class Stage(NamedTuple):
    """A stage: its seconds, and its commands in full and in small."""

    name: str
    seconds: float
    full: Sequence[str]
    smoke: Sequence[str]


#: The most valuable first; within scoring the compiler, which takes longest,
#: last. Loaders have small batches, since workers keep two each in memory.
STAGES = [
    Stage(name, *stage)
    for name, stage in json.loads(
        (HERE / 'gpu_stages.json').read_text()
    ).items()
]
#: Sizes of the head with --smoke.
TINY = '--dim 16 --candidates 4 --repeats 1 --frames 3'


def parse_args(stages: Sequence[Stage]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [stage.name for stage in stages]
    add = parser.add_argument
    add('out_dir', type=Path, help='folder of the JSON files')
    add('--stages', help=f'some of {",".join(names)}')
    add('--smoke', action='store_true', help='in small, on a CPU')
    add('--golden-dir', type=Path, help='golden data, if they lie elsewhere')
    args = parser.parse_args()
    chosen = args.stages.split(',') if args.stages else names
    unknown = sorted(set(chosen) - set(names))
    if unknown:
        parser.error(
            f'--stages: there is no {", ".join(unknown)}; choose from '
            f'{",".join(names)}.'
        )
    if args.golden_dir and not args.golden_dir.is_dir():
        parser.error(f'--golden-dir: {args.golden_dir} is no folder.')
    args.stages = [stage for stage in stages if stage.name in chosen]
    missing = [name for name in NEEDED if not importlib.util.find_spec(name)]
    missing += [x for x in ('timeout',) if not shutil.which(x)]  # coreutils
    if missing:
        parser.error(f'not installed here: {", ".join(missing)}.')
    if not args.smoke:
        # here, since torch takes seconds to import
        import torch

        if not torch.cuda.is_available():
            parser.error('torch sees no GPU. --smoke tries all on a CPU.')
    return args


def command_line(
    command: str, file: Path, args: argparse.Namespace
) -> list[str]:
    """Write out a command; a benchmark leaves its report in the file."""
    command = command.format(scratch=file.parent, tiny=TINY)
    name, *options = shlex.split(command)
    if name == 'pytest':
        options = ['-m', name, '-p', 'no:cacheprovider', *options]
        if args.golden_dir:
            options += ['--golden-dir', str(args.golden_dir.resolve())]
        return [sys.executable, *options]
    if args.smoke:
        options += ['--threads', '1']
    script = str(HERE / f'{name}.py')
    return [sys.executable, script, *options, '--json', str(file)]


def read_report(command: list[str], file: Path, output: str) -> Report | None:
    """Read the JSON of a benchmark, or the summary that pytest printed."""
    if 'pytest' not in command:
        return json.loads(file.read_text()) if file.is_file() else None
    lines = output.splitlines()
    *_, summary = ['', *(x for x in lines if re.search(r' in [\d.]+s', x))]
    counts = {
        outcome: int(number)
        for number, outcome in re.findall(r'(\d+) ([a-z]+?)s?\b', summary)
    }
    row = {x: counts.get(x, 0) for x in ('passed', 'failed', 'skipped')}
    row['failed'] += counts.get('error', 0)
    notes = [x[:300] for x in lines if x.startswith(('FAILED ', 'ERROR '))]
    return dict(rows=[row], notes=notes) if summary else None


def run_command(
    command: list[str], file: Path, seconds: float
) -> dict[str, Any]:
    """Run a process, and end it with all its children at the time limit."""
    begin = time.perf_counter()
    paths = filter(None, [str(REPOSITORY), os.environ.get('PYTHONPATH')])
    environment = dict(
        HF_HUB_OFFLINE='1',
        PYTHONUNBUFFERED='1',
        PYTHONPATH=os.pathsep.join(paths),
    )
    # at SIGINT pytest and the benchmarks write what they have
    limit = ['timeout', '-s', 'INT', '-k', f'{GRACE}', f'{seconds}']
    status = 'done'
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            limit + command,
            cwd=REPOSITORY,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait()
            if code < 0:
                status = f'ended by {signal.Signals(-code).name}'
            elif code:
                status = f'failed with exit code {code}'
            if code and time.perf_counter() - begin > seconds:
                status = f'stopped after {seconds:.0f} s'
        except KeyboardInterrupt:
            status = INTERRUPTED
            process.send_signal(signal.SIGINT)
            process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        log.seek(0)
        output = log.read().decode(errors='replace')
    report = None
    try:
        report = read_report(command, file, output)
    except ValueError as error:
        status = f'{status}, unreadable report: {error}'
    if status == 'done' and report is None:
        status = 'left no report'
    elif status == 'done' and report.get('skipped'):
        status = 'measured in part'
    return dict(
        status=status,
        seconds=time.perf_counter() - begin,
        command=[Path(x).name for x in command[1:]],
        report=report,
        output=None if status == 'done' else output[-TAIL:],
    )


def run_stage(
    stage: Stage, args: argparse.Namespace, seconds: float
) -> dict[str, Any]:
    """Run a stage; its JSON file is written after each of its processes."""
    begin = time.perf_counter()
    parts: list[dict[str, Any]] = []
    result: dict[str, Any] = dict(
        stage=stage.name, smoke=args.smoke, status='unfinished', parts=parts
    )

    def write() -> None:
        text = json.dumps(result, indent=1)
        (args.out_dir / f'{stage.name}.json').write_text(text + '\n')

    with tempfile.TemporaryDirectory() as scratch:
        for number, command in enumerate(
            stage.smoke if args.smoke else stage.full
        ):
            file = Path(scratch) / f'{number}.json'
            left = seconds - (time.perf_counter() - begin)
            part = dict(status='not run, no time left', report=None)
            if left > 0:
                part = run_command(
                    command_line(command, file, args), file, left
                )
            parts.append(part)
            write()
            if part['status'] == INTERRUPTED:
                break
    troubles = [part['status'] for part in parts if part['status'] != 'done']
    result.update(
        status='; '.join(troubles) or 'done',
        seconds=time.perf_counter() - begin,
        line='; '.join(line_of(x['report']) for x in parts if x['report']),
    )
    write()
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
    """Run the stages."""
    args = parse_args(stages)
    args.out_dir.mkdir(parents=True, exist_ok=True)
    # a job that is ended must not leave its stage behind on the GPU
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    begin, planned, code = time.perf_counter(), 0.0, 0
    for stage in args.stages:
        planned += stage.seconds
        left = planned - (time.perf_counter() - begin)
        result = run_stage(stage, args, left)
        print(
            f'{stage.name}: {result["status"]}, {result["seconds"]:.0f} s. '
            f'{result["line"]}',
            flush=True,
        )
        code = max(code, int(result['status'] != 'done'))
        if INTERRUPTED in result['status']:
            return 130
    print(f'{time.perf_counter() - begin:.0f} s in all; see {args.out_dir}')
    return code


if __name__ == '__main__':
    sys.exit(main())
