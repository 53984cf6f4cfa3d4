"""Options, features, timing, memory and reports of the benchmarks.

Import this module first: it makes the checkout importable, and with it the
brute-force reference in ``reference``, which is not installed.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tables import markdown_table

REPOSITORY = Path(__file__).resolve().parents[2]
if str(REPOSITORY) not in sys.path:
    sys.path.insert(0, str(REPOSITORY))

import eaglenet_mm.models  # noqa: E402, F401  fills the registry
from eaglenet_mm.models.heads import EagleNetHead  # noqa: E402
from eaglenet_mm.registry import MODELS  # noqa: E402
from eaglenet_mm.structures import TextFeatures, VideoFeatures  # noqa: E402

HALF = {'bfloat16': torch.bfloat16, 'float16': torch.float16}
#: Type of the operands of a product; tf32 rounds float32 within it.
DTYPES = {'float32': torch.float32, 'tf32': torch.float32, **HALF}
MIB = 2**20
#: Options of ``add_options`` by group.
OPTIONS: dict[str, dict[str, tuple]] = {
    'device': dict(device=('cpu', "'cpu', or for example 'cuda'")),
    'head': dict(
        dim=(512, 'width D of the features'),
        frames=(int, 'frames F of a video'),
        candidates=(20, 'text candidates S'),
    ),
    'dtype': dict(dtype=(['float32'], 'half ones run under autocast', DTYPES)),
}


def add_options(parser: argparse.ArgumentParser, **options: tuple) -> None:
    """Add options by default, help and choices; a type means no default."""
    for name, (default, about, *choices) in options.items():
        settings: dict[str, Any] = dict(action='store_true', help=about)
        if default is not False:
            one = default[0] if isinstance(default, list) else default
            settings = dict(type=one, help=about)
            if not isinstance(one, type):
                about = f'{about}; default: %(default)s'
                settings = dict(type=type(one), default=default, help=about)
            settings['nargs'] = '+' if isinstance(default, list) else None
            settings['choices'] = choices[0] if choices else None
        parser.add_argument(f'--{name.replace("_", "-")}', **settings)


def make_parser(
    description: str | None, *groups: str, **options: Any
) -> argparse.ArgumentParser:
    """Make a parser with the options of every benchmark and of groups.

    Further options are tuples as of ``add_options``; anything else is another
    default of an option.
    """
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    chosen = dict(
        threads=(int, 'of one process; default: all cores'),
        repeats=(5, 'timed runs, for the median'),
        json=(Path, 'where to write the result'),
    )
    for group in groups:
        chosen |= OPTIONS[group]
    parser.set_defaults(device='cpu', seed=0)
    for name, option in options.items():
        if not isinstance(option, tuple):
            if name not in chosen:
                parser.set_defaults(**{name: option})
                continue
            _, about, *choices = chosen[name]
            option = (option, about.partition('; default')[0], *choices)
        chosen[name] = option
    add_options(parser, **chosen)
    return parser


def run_mode(modes: Mapping[str, Callable[[], None]]) -> None:
    """Run the mode named first; it parses the remaining arguments."""
    parser = argparse.ArgumentParser(
        description=sys.modules['__main__'].__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('mode', choices=modes, help='see MODE --help')
    parser.add_argument('options', nargs=argparse.REMAINDER)
    mode = parser.parse_args().mode
    sys.argv[:2] = [f'{sys.argv[0]} {mode}']
    modes[mode]()


class Bench:
    """A running benchmark: its device, and its report, always on disk."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.device = set_up(args)
        self.rows: list[dict[str, Any]] = []
        #: Cases that could not be measured, and remarks on measured ones.
        self.skipped: list[str] = []
        self.notes: list[str] = []
        machine = _describe_machine(self.device)
        self.report = dict(
            benchmark=Path(sys.argv[0]).name.replace('.py', ''),
            machine=machine,
            options=vars(args),
            rows=self.rows,
            skipped=self.skipped,
            notes=self.notes,
        )
        print(', '.join(f'{key} {value}' for key, value in machine.items()))

    def write(self, **results: Any) -> None:
        """Add results to the report, and write it if a file was named."""
        self.report.update(results)
        if self.args.json is not None:
            self.args.json.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(self.report, indent=2, default=str)
            self.args.json.write_text(text + '\n')

    def add(self, row: dict[str, Any], **results: Any) -> None:
        """Add a row to the table."""
        self.rows.append(row)
        self.write(**results)

    def print_table(self, title: str) -> None:
        """Print the rows as a Markdown table."""
        if self.rows:
            print(f'\n{title}\n\n{markdown_table(self.rows)}', flush=True)

    def measure(
        self,
        cases: Sequence[Any],
        measure: Callable[[Any, argparse.Namespace], list[dict]],
        name: str = '{}',
    ) -> None:
        """Measure all cases in each ``--dtype``, as far as they fit."""
        for dtype in self.args.dtype:
            options = argparse.Namespace(**{**vars(self.args), 'dtype': dtype})
            for case in cases:
                rows = unless_out_of_memory(
                    f'{name.format(case)} in {dtype}',
                    lambda: measure(case, options),  # noqa: B023
                    self.skipped,
                )
                self.rows += rows or []
                self.write()


def start(description: str | None, *groups: str, **options: Any) -> Bench:
    """Read the command line as ``make_parser`` says, and start a benchmark."""
    parser = make_parser(description, *groups, **options)
    bench = Bench(parser.parse_args())
    bench.refuse = parser.error
    return bench


def set_up(args: argparse.Namespace) -> torch.device:
    """Apply the options of the whole process."""
    torch.set_num_threads(args.threads or os.cpu_count() or 1)
    device = torch.device(args.device)
    if device.type == 'cuda' and not torch.cuda.is_available():
        raise SystemExit(
            f'--device {args.device} was asked for, but torch sees no GPU. '
            'Leave --device out to measure on the CPU.'
        )
    # float32 means float32, in convolutions as in products
    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(args.seed)
    return device


def use_one_core() -> None:
    """Keep this process, and those it starts, to one core."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])


def _describe_machine(device: torch.device) -> dict[str, Any]:
    file = Path('/proc/cpuinfo')
    text = file.read_text() if file.is_file() else ''
    name = re.search(r'model name\s*: (.+)', text)
    about = dict(
        processor=name[1] if name else platform.processor(),
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        capability=torch.backends.cpu.get_cpu_capability(),
        torch=torch.__version__,
        python=platform.python_version(),
        device=str(device),
    )
    if device.type == 'cuda':
        about['gpu'] = torch.cuda.get_device_name(device)
        about['cuda'] = torch.version.cuda
    return about


# What is measured -----------------------------------------------------------


def build_head(
    args: argparse.Namespace, frames: int, **options: Any
) -> EagleNetHead:
    """Build the head of the recipe on the device, with random weights."""
    torch.manual_seed(args.seed)
    config = dict(
        type='EagleNetHead',
        embed_dim=args.dim,
        num_frames=frames,
        num_candidates=args.candidates,
        frame_embedding=True,
        graph=dict(num_layers=2, num_heads=4),
    )
    return MODELS.build({**config, **options}).to(args.device)


def random_features(
    args: argparse.Namespace, texts: int, videos: int, frames: int
) -> tuple[TextFeatures, VideoFeatures]:
    """Draw normal features, the same on every device."""
    generator = torch.Generator().manual_seed(args.seed)
    text = torch.randn(texts, args.dim, generator=generator)
    frame = torch.randn(videos, frames, args.dim, generator=generator)
    mask = torch.ones(videos, frames, dtype=torch.bool)
    text, frame, mask = (x.to(args.device) for x in (text, frame, mask))
    return TextFeatures(text), VideoFeatures(frame, mask)


@contextmanager
def precision(args: argparse.Namespace) -> Iterator[None]:
    """Run under autocast or with TF32, as ``--dtype`` says."""
    before = torch.get_float32_matmul_precision()
    if args.dtype == 'tf32':
        torch.set_float32_matmul_precision('high')
    half, device = HALF.get(args.dtype), torch.device(args.device).type
    try:
        with torch.autocast(device, half, enabled=half is not None):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


# Time and memory ------------------------------------------------------------


def synchronize(device: torch.device) -> None:
    """Wait for a GPU to finish."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def seconds(
    run: Callable[[], Any], device: torch.device | str = 'cpu'
) -> float:
    """Time one run."""
    device = torch.device(device)
    synchronize(device)
    begin = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - begin


def interleaved_medians(
    runs: Mapping[str, Callable[[], Any]],
    repeats: int,
    device: torch.device | str = 'cpu',
) -> dict[str, float]:
    """Time several runs in turn, so that all meet the same disturbances."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(max(1, repeats)):
        for name, run in runs.items():
            times[name].append(seconds(run, device))
    return {name: statistics.median(values) for name, values in times.items()}


def unless_out_of_memory(
    what: str, run: Callable[[], Any], notes: list[str]
) -> Any:
    """Run what may not fit on the GPU; None and a note if it does not."""
    try:
        return run()
    except torch.cuda.OutOfMemoryError as error:
        note = f'{what} does not fit: {str(error).splitlines()[0]}'
    # after the block, where the error no longer keeps tensors alive
    gc.collect()
    torch.cuda.empty_cache()
    print(note, flush=True)
    notes.append(note)
    return None


def both_ways(
    make: Callable[[bool], Any], what: str, notes: list[str]
) -> dict[str, Any]:
    """Make ours and, where it fits, the reference."""
    ways = {'ours': make(False)}
    reference = unless_out_of_memory(
        f'the reference {what}', lambda: make(True), notes
    )
    return ways if reference is None else {**ways, 'reference': reference}


def quotient(upper: float | None, lower: float | None) -> float | None:
    """Divide two figures, if both were measured."""
    return None if upper is None or lower is None else upper / lower


def cuda_allocated(device: torch.device) -> int:
    """Bytes of tensors on a GPU; 0 on a CPU."""
    return torch.cuda.memory_allocated(device) if device.type == 'cuda' else 0


def cuda_peak(
    run: Callable[[], Any], device: torch.device, before: int | None = None
) -> int | None:
    """Peak of a run in bytes above what was allocated; None on a CPU."""
    if device.type != 'cuda':
        return None
    torch.cuda.reset_peak_memory_stats(device)
    before = cuda_allocated(device) if before is None else before
    run()
    return torch.cuda.max_memory_allocated(device) - before


def extra_memory(run: Callable[[], Any], device: torch.device) -> int:
    """Peak of a run in bytes above what was there, on a CPU of the process."""
    if device.type == 'cuda':
        return cuda_peak(run, device) or 0
    gc.collect()
    try:
        Path('/proc/self/clear_refs').write_text('5')
    except OSError:
        print(
            'The earlier peak of memory could not be reset '
            '(/proc/self/clear_refs), so small figures may be too small.'
        )
    before = status('VmRSS')
    run()
    return status('VmHWM') - before


def status(key: str) -> int:
    """Bytes that Linux states of this process under a key."""
    text = Path('/proc/self/status').read_text()
    return int(re.search(rf'^{key}:\s+(\d+)', text, re.MULTILINE)[1]) * 1024
