"""What the benchmarks share: options, features, timing, memory, reports.

The benchmarks run from a checkout, since they compare with the brute-force
reference in ``reference``, which is not installed. Importing this module makes
the checkout importable, so it has to be imported first.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from tables import markdown_table
from torch import Tensor

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


def plain_parser(description: str, **defaults: Any) -> argparse.ArgumentParser:
    """Make a parser with the options of every benchmark."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('--threads', type=int, help='of one process; default: all cores')
    add('--json', type=Path, metavar='FILE', help='where to write the result')
    parser.set_defaults(device='cpu', seed=0, **defaults)
    return parser


def reader_parser(
    description: str, **defaults: Any
) -> argparse.ArgumentParser:
    """Make a parser for benchmarks that read videos on some cores."""
    parser = plain_parser(description, threads=1)
    add = parser.add_argument
    add('--cores', type=int, default=1, help='of the process; 0 for all')
    add('--repeats', type=int, default=5, help='passes, for the median')
    parser.set_defaults(**defaults)
    return parser


def make_parser(
    description: str, *, several_dtypes: bool = False, **defaults: Any
) -> argparse.ArgumentParser:
    """Make a parser with the options of a head on a device."""
    parser = plain_parser(description)
    add = parser.add_argument
    add('--dim', type=int, default=512, help='width D of the features')
    add('--frames', type=int, help='frames F of a video')
    add('--candidates', type=int, default=20, help='text candidates S')
    add('--heads', type=int, default=4, help='heads H of the graph')
    add('--layers', type=int, default=2, help='layers of the graph')
    add('--repeats', type=int, default=5, help='timed runs, for the median')
    add(
        '--dtype',
        choices=DTYPES,
        nargs='+' if several_dtypes else None,
        default=['float32'] if several_dtypes else 'float32',
        help='half precision runs under autocast; weights stay float32',
    )
    add('--device', default='cpu', help="'cpu', or for example 'cuda'")
    add('--seed', type=int, default=0, help='of weights and features')
    parser.set_defaults(**defaults)
    return parser


class Bench:
    """A started benchmark: its device, and its report."""

    def __init__(self, args: argparse.Namespace, device: torch.device) -> None:
        self.args = args
        self.device = device
        self.machine = _describe_machine(device)
        self.about: dict[str, Any] = {}  # goes into every report

    def write(self, **results: Any) -> None:
        """Write options and what was measured as JSON, if a file was named."""
        if self.args.json is None:
            return
        options = {
            key: str(value) if isinstance(value, Path) else value
            for key, value in vars(self.args).items()
        }
        report = dict(
            benchmark=Path(sys.argv[0]).stem,
            machine=self.machine,
            options=options,
            **results,
        )
        self.args.json.parent.mkdir(parents=True, exist_ok=True)
        self.args.json.write_text(json.dumps(report, indent=2) + '\n')


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


def start(args: argparse.Namespace) -> Bench:
    """Apply the options, and print on what is measured."""
    bench = Bench(args, set_up(args))
    print(', '.join(f'{key} {value}' for key, value in bench.machine.items()))
    return bench


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


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows with equal keys as a table in Markdown."""
    print(f'\n{title}\n\n{markdown_table(rows)}', flush=True)


def fork_server() -> Any:
    """Give the context of processes that have run nothing but imports."""
    context = multiprocessing.get_context('forkserver')
    # imported once, in the process that all others are forked from
    context.set_forkserver_preload(['torch', 'eaglenet_mm.models'])
    return context


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


def each_dtype(args: argparse.Namespace) -> Iterator[argparse.Namespace]:
    """Give the options once for each of several ``--dtype``."""
    for dtype in args.dtype:
        yield argparse.Namespace(**{**vars(args), 'dtype': dtype})


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def seconds(run: Callable[[], Any], device: torch.device) -> float:
    """Time one run."""
    synchronize(device)
    begin = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - begin


def interleaved_medians(
    runs: Mapping[str, Callable[[], Any]],
    repeats: int,
    device: torch.device | str = 'cpu',
    counts: Mapping[str, int] | None = None,
) -> dict[str, float]:
    """Time several things in turn, so that all meet the same disturbances.

    ``counts`` says how often each runs in a round, of those not once.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(max(1, repeats)):
        for name, run in runs.items():
            for _ in range((counts or {}).get(name, 1)):
                times[name].append(seconds(run, torch.device(device)))
    return {name: statistics.median(values) for name, values in times.items()}


def unless_out_of_memory(
    what: str, run: Callable[[], Any], skipped: list[str]
) -> Any:
    """Run something that may not fit on the card; ``skipped`` gets a note."""
    try:
        return run()
    except torch.cuda.OutOfMemoryError as error:
        note = f'{what} does not fit: {str(error).splitlines()[0]}'
    # behind the block, where the error no longer keeps tensors alive
    gc.collect()
    torch.cuda.empty_cache()
    print(note, flush=True)
    skipped.append(note)
    return None


def measure_cases(
    bench: Bench,
    cases: Iterable[Any],
    measure: Callable[[Any, argparse.Namespace], dict],
    name: str = '{}',
) -> list[dict]:
    """Measure all cases in each ``--dtype``, every one on disk at once."""
    results: list[dict] = []
    skipped: list[str] = []
    cases = list(cases)
    for options in each_dtype(bench.args):
        for case in cases:
            found = unless_out_of_memory(
                f'{name.format(case)} in {options.dtype}',
                lambda: measure(case, options),  # noqa: B023
                skipped,
            )
            results += [found] if found else []
            bench.write(cases=results, skipped=skipped, **bench.about)
    return results


def quotient(upper: float | None, lower: float | None) -> float | None:
    """Divide two figures, where both were measured."""
    return None if upper is None or lower is None else upper / lower


def cuda_peak(run: Callable[[], Any], device: torch.device) -> int | None:
    """Bytes that a run takes beside what was there, on a GPU."""
    if device.type != 'cuda':
        return None
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    return torch.cuda.max_memory_allocated(device) - before


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Add up the bytes of tensors."""
    return sum(x.numel() * x.element_size() for x in tensors)


def status(key: str) -> int:
    """Read a number of this process in bytes, as Linux states it."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(f'{key}:'):
            return int(line.split()[1]) * 1024
    raise KeyError(f"/proc/self/status has no '{key}'.")


def reset_peak() -> bool:
    """Set the peak resident set back to the present one, where permitted."""
    try:
        Path('/proc/self/clear_refs').write_text('5')
    except OSError:
        return False
    return True
