"""What the benchmarks share: options, heads, features, timing.

The benchmarks run from a checkout, since they compare with the brute-force
reference in ``reference``, which is not installed. Importing this
module makes the checkout importable, so it has to be imported first.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
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


def make_parser(
    description: str, *, several_dtypes: bool = False, **defaults: Any
) -> argparse.ArgumentParser:
    """Make a parser with the options of all benchmarks.

    Args:
        description (str): Docstring of the benchmark.
        several_dtypes (bool): Whether ``--dtype`` is a list, for
            :func:`each_dtype`. Default: False.
        **defaults (Any): Of the common options, where they differ.
    """
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('--dim', type=int, default=512, help='width D of the features')
    add('--frames', type=int, help='frames F of a video')
    add('--candidates', type=int, default=20, help='text candidates S')
    add('--heads', type=int, default=4, help='heads H of the graph')
    add('--layers', type=int, default=2, help='layers of the graph')
    add('--threads', type=int, help='of one process; default: all cores')
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
    add('--json', type=Path, metavar='FILE', help='where to write the result')
    parser.set_defaults(**defaults)
    return parser


def start(args: argparse.Namespace) -> torch.device:
    """Apply the options that hold for the whole process.

    Raises:
        SystemExit: If the device is not there.
    """
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
    runs: Mapping[str, tuple[Callable[[], Any], int]],
    repeats: int,
    device: torch.device,
) -> dict[str, float]:
    """Time several things in turn, so that all meet the same disturbances.

    Args:
        runs (Mapping): By name, what to run and how often in each round.
        repeats (int): Rounds.
        device (torch.device): What to wait for.

    Returns:
        dict[str, float]: Median seconds of a run.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(max(1, repeats)):
        for name, (run, count) in runs.items():
            times[name] += [seconds(run, device) for _ in range(count)]
    return {name: statistics.median(values) for name, values in times.items()}


def unless_out_of_memory(
    what: str, run: Callable[[], Any], skipped: list[str]
) -> Any:
    """Run something that may not fit on the card.

    Args:
        what (str): What it is, for the note.
        run (Callable): What to run.
        skipped (list[str]): Gets a note if it does not fit.

    Returns:
        Any: The result, or None if it does not fit.
    """
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


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Add up the bytes of tensors."""
    return sum(x.numel() * x.element_size() for x in tensors)
