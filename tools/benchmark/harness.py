"""What the benchmarks share: options, features, timing, memory, reports.

The benchmarks run from a checkout, since they compare with the brute-force
reference in ``reference``, which is not installed. Importing this module makes
the checkout importable, so it has to be imported first.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
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

#: By name, the type of what a product takes; tf32 rounds float32 within it.
DTYPES = {
    'float32': torch.float32,
    'tf32': torch.float32,
    'bfloat16': torch.bfloat16,
    'float16': torch.float16,
}
MIB = 2**20
#: Options by group; see ``add_options``.
OPTIONS: dict[str, dict[str, tuple]] = {
    'device': dict(
        device=('cpu', "'cpu', or for example 'cuda'"),
        seed=(0, 'of weights and features'),
    ),
    'head': dict(
        dim=(512, 'width D of the features'),
        frames=(int, 'frames F of a video'),
        candidates=(20, 'text candidates S'),
        heads=(4, 'heads H of the graph'),
        layers=(2, 'layers of the graph'),
    ),
    'dtype': dict(
        dtype=(
            ['float32'],
            'half precision runs under autocast; weights stay float32',
            DTYPES,
        )
    ),
    'cores': dict(cores=(1, 'of the process; 0 for all')),
}


def add_options(parser: argparse.ArgumentParser, **options: tuple) -> None:
    """Add options by default and help; a type instead means no default."""
    for name, (default, about, *choices) in options.items():
        flag = f'--{name.replace("_", "-")}'
        if default is False:
            parser.add_argument(flag, action='store_true', help=about)
            continue
        one = default[0] if isinstance(default, list) else default
        is_type = isinstance(one, type)
        parser.add_argument(
            flag,
            type=one if is_type else type(one),
            default=None if is_type else default,
            nargs='+' if isinstance(default, list) else None,
            choices=choices[0] if choices else None,
            help=about if is_type else f'{about}; default: %(default)s',
        )


def make_parser(
    description: str | None, *groups: str, **defaults: Any
) -> argparse.ArgumentParser:
    """Make a parser with the options of every benchmark, and of groups."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(device='cpu', seed=0)
    add_options(
        parser,
        threads=(int, 'of one process; default: all cores'),
        repeats=(5, 'timed runs, for the median'),
        json=(Path, 'where to write the result'),
    )
    for group in groups:
        add_options(parser, **OPTIONS[group])
    parser.set_defaults(**defaults)
    return parser


def run_mode(modes: Mapping[str, Callable[[], None]]) -> None:
    """Run what the first argument names; it reads the other arguments."""
    parser = argparse.ArgumentParser(
        description=sys.modules['__main__'].__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('mode', choices=modes, help='MODE --help says more')
    parser.add_argument('options', nargs=argparse.REMAINDER)
    mode = parser.parse_args().mode
    sys.argv[:2] = [f'{sys.argv[0]} {mode}']
    modes[mode]()


class Bench:
    """A started benchmark: its device, and its report, always on disk."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.device = set_up(args)
        machine = _describe_machine(self.device)
        self.rows: list[dict[str, Any]] = []
        #: What a case could not be measured for, and what beside a case.
        self.skipped: list[str] = []
        self.notes: list[str] = []
        self.report = dict(
            benchmark=Path(sys.argv[0]).name.replace('.py', ''),
            machine=machine,
            options={
                key: str(value) if isinstance(value, Path) else value
                for key, value in vars(args).items()
            },
            rows=self.rows,
            skipped=self.skipped,
            notes=self.notes,
        )
        print(', '.join(f'{key} {value}' for key, value in machine.items()))

    def write(self, **results: Any) -> None:
        """Write all that was measured as JSON, if a file was named."""
        self.report.update(results)
        if self.args.json is not None:
            self.args.json.parent.mkdir(parents=True, exist_ok=True)
            self.args.json.write_text(json.dumps(self.report, indent=2) + '\n')

    def add(self, row: dict[str, Any], **results: Any) -> None:
        """Keep a row of the table."""
        self.rows.append(row)
        self.write(**results)

    def print_table(self, title: str) -> None:
        """Print the rows as a table in Markdown."""
        if self.rows:
            print(f'\n{title}\n\n{markdown_table(self.rows)}', flush=True)

    def measure(
        self,
        cases: Iterable[Any],
        measure: Callable[[Any, argparse.Namespace], list[dict]],
        name: str = '{}',
    ) -> None:
        """Measure all cases in each ``--dtype``, as far as they fit."""
        cases = list(cases)
        for dtype in self.args.dtype:
            options = argparse.Namespace(**{**vars(self.args), 'dtype': dtype})
            for case in cases:
                found = unless_out_of_memory(
                    f'{name.format(case)} in {dtype}',
                    lambda: measure(case, options),  # noqa: B023
                    self.skipped,
                )
                self.rows += found or []
                self.write()


def set_up(args: argparse.Namespace) -> torch.device:
    """Apply the options that hold for the whole process."""
    torch.set_num_threads(args.threads or os.cpu_count() or 1)
    if getattr(args, 'cores', 0):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
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


def _describe_machine(device: torch.device) -> dict[str, Any]:
    file = Path('/proc/cpuinfo')
    lines = file.read_text().splitlines() if file.is_file() else []
    names = [x.split(':')[1] for x in lines if x.startswith('model name')]
    about: dict[str, Any] = dict(
        processor=names[0].strip() if names else platform.processor(),
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        capability=torch.backends.cpu.get_cpu_capability(),
        torch=torch.__version__,
        python=platform.python_version(),
        device=str(device),
    )
    if device.type == 'cuda':
        name = torch.cuda.get_device_name(device)
        about.update(gpu=name, cuda=torch.version.cuda)
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
        graph=dict(num_layers=args.layers, num_heads=args.heads),
    )
    return MODELS.build({**config, **options}).to(args.device)


def random_features(
    args: argparse.Namespace, texts: int, videos: int, frames: int
) -> tuple[TextFeatures, VideoFeatures]:
    """Draw features of normal numbers, the same on every device."""
    generator = torch.Generator().manual_seed(args.seed)
    text = torch.randn(texts, args.dim, generator=generator)
    frame = torch.randn(videos, frames, args.dim, generator=generator)
    mask = torch.ones(videos, frames, dtype=torch.bool)
    return (
        TextFeatures(text.to(args.device)),
        VideoFeatures(frame.to(args.device), mask.to(args.device)),
    )


def precision(args: argparse.Namespace) -> AbstractContextManager:
    """Autocast or TF32, if that was asked for."""
    if args.dtype == 'float32':
        return nullcontext()
    if args.dtype == 'tf32':
        return _tf32()
    return torch.autocast(torch.device(args.device).type, DTYPES[args.dtype])


@contextmanager
def _tf32() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision('high')
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


# Time and memory ------------------------------------------------------------


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
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
    """Time several things in turn, so that all meet the same disturbances."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(max(1, repeats)):
        for name, run in runs.items():
            times[name].append(seconds(run, device))
    return {name: statistics.median(values) for name, values in times.items()}


def unless_out_of_memory(
    what: str, run: Callable[[], Any], notes: list[str]
) -> Any:
    """Run something that may not fit on the card; ``notes`` gets a note."""
    try:
        return run()
    except torch.cuda.OutOfMemoryError as error:
        note = f'{what} does not fit: {str(error).splitlines()[0]}'
    # behind the block, where the error no longer keeps tensors alive
    gc.collect()
    torch.cuda.empty_cache()
    print(note, flush=True)
    notes.append(note)
    return None


def quotient(upper: float | None, lower: float | None) -> float | None:
    """Divide two figures, where both were measured."""
    return None if upper is None or lower is None else upper / lower


def cuda_peak(run: Callable[[], Any], device: torch.device) -> int | None:
    """Bytes that a run takes beside what was there, on a GPU alone."""
    if device.type != 'cuda':
        return None
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    return torch.cuda.max_memory_allocated(device) - before


def extra_memory(
    run: Callable[[], Any], device: torch.device
) -> tuple[int, bool]:
    """Bytes that a run takes, of the process on a CPU; and if that is exact.

    Where the peak cannot be set back an earlier one may hide that of the run.
    """
    if device.type == 'cuda':
        return cuda_peak(run, device) or 0, True
    gc.collect()
    exact = True
    try:
        Path('/proc/self/clear_refs').write_text('5')
    except OSError:
        exact = False
    before = status('VmRSS')
    run()
    return status('VmHWM') - before, exact


def status(key: str) -> int:
    """Read a number of this process in bytes, as Linux states it."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(f'{key}:'):
            return int(line.split()[1]) * 1024
    raise KeyError(f"/proc/self/status has no '{key}'.")
