r"""A whole training iteration, split into its parts.

    python tools/benchmark/training_iteration.py --json training_iteration.json
    python tools/benchmark/training_iteration.py --arch ViT-B-32 --batch 8 \
        --json training_iteration_vit-b32.json

Times data, preprocessor, both encoders, the head's forward and backward, the
encoders' backward and the optimizer, and then the same iteration with the
brute-force objective in place of the head, in turn; on a GPU peak memory as
well. Several --dtype and --checkpointing are measured one after the other.
float16 trains with a loss scaler, which needs a GPU. Run it from a checkout.

The first form takes model, data and optimizer of a config; its data set must
be there (the toy one: python tools/dataset_converters/toy.py --out data/toy).
Data are loaded in this process, so the figure is their full cost; a training
hides it behind workers. With --arch the towers are CLIP's, with random
weights, the head is that of the recipe, and random pixels of 224 x 224 and
random words stand in for the data.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from harness import (
    REPOSITORY,
    cuda_peak,
    make_parser,
    measure_cases,
    precision,
    print_table,
    quotient,
    start,
    synchronize,
    unless_out_of_memory,
)
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import Tensor
from training_batches import arch_config, loaded_batches, random_batches

from eaglenet_mm.config.reading import open_config
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from tools.benchmark.reference.brute_force_training import BruteForceObjective

PARTS = (
    'data',
    'preprocessor',
    'text encoder',
    'video encoder',
    'head forward',
    'head backward',
    'encoders backward',
    'optimizer',
)
HEAD_PARTS = ('head forward', 'head backward')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__, several_dtypes=True, repeats=3)
    add = parser.add_argument
    add(
        '--config',
        default=str(REPOSITORY / 'configs' / 'eaglenet_toy.py'),
        help='default: the toy config',
    )
    add(
        '--data-root',
        help='folder of the data set, instead of the one of the config',
    )
    add('--batch', type=int, help='default: that of the config; 8 of --arch')
    add(
        '--arch',
        help='a CLIP of open_clip, for example ViT-B-32, on random pixels',
    )
    add(
        '--checkpointing',
        choices=('as in the config', 'off', 'on'),
        nargs='+',
        default=['as in the config'],
        help='gradient checkpointing of the encoders; several are measured',
    )
    args = parser.parse_args()
    if 'float16' in args.dtype and torch.device(args.device).type == 'cpu':
        parser.error('--dtype float16 needs a GPU, for its loss scaler.')
    return args


class Clock:
    """Adds up the time of parts, waiting for the GPU in between."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.spent = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Book the time of a block on a part."""
        synchronize(self.device)
        begin = time.perf_counter()
        yield
        synchronize(self.device)
        self.spent[part] += time.perf_counter() - begin


class Iteration:
    """One way to train."""

    def __init__(
        self,
        model: Any,
        optim_wrapper: dict,
        brute_force: bool,
        args: argparse.Namespace,
    ) -> None:
        self.model = model
        self.args = args
        self.brute_force = brute_force
        if brute_force:
            model.head = BruteForceObjective(model.head)
        self.model.train()
        optim_wrapper = copy.deepcopy(optim_wrapper)
        if args.dtype == 'float16':
            # low enough for random weights not to skip the first steps
            scale = dict(init_scale=2.0**10)
            optim_wrapper.update(
                type='AmpOptimWrapper', dtype='float16', loss_scale=scale
            )
        self.optimizer = build_optim_wrapper(model, optim_wrapper)

    def loss_scale(self) -> float | None:
        """Give the scale of the loss, if there is a scaler."""
        scaler = getattr(self.optimizer, 'loss_scaler', None)
        return None if scaler is None else scaler.get_scale()

    def head_loss(self, text: Tensor, frames: Tensor, mask: Tensor) -> Tensor:
        """Add up the losses of the head."""
        if self.brute_force:
            losses = self.model.head(text.float(), frames.float())
        else:
            losses = self.model.head.loss(
                TextFeatures(text), VideoFeatures(frames, mask)
            )
        return sum(v.float() for k, v in losses.items() if 'loss' in k)

    def run(self, batches: Iterator[dict], device: torch.device) -> Clock:
        """Train one step and give the time of its parts."""
        clock, model = Clock(device), self.model
        with clock('data'):
            batch = next(batches)
        with clock('preprocessor'):
            inputs = model.data_preprocessor(batch, True)['inputs']
        mask = inputs['frame_mask']
        with precision(self.args):
            with clock('text encoder'):
                text = model.encode_text(inputs['token_ids']).embeds
            with clock('video encoder'):
                frames = model.encode_video(inputs['pixels'], mask).frames
            sides = [x.detach().requires_grad_() for x in (text, frames)]
            with clock('head forward'):
                loss = self.head_loss(*sides, mask)
        with clock('head backward'):  # scales the loss for a scaler
            self.optimizer.backward(loss)
        with clock('encoders backward'):
            gradients = [side.grad for side in sides]
            torch.autograd.backward((text, frames), gradients)
        with clock('optimizer'):
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.loss = float(loss.detach())
        return clock


def measure(
    config: Config,
    batches: Iterator[dict],
    sizes: dict[str, int],
    checkpointing: str,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Measure and print ours and, where it fits, the reference."""
    device = torch.device(args.device)
    model_config = copy.deepcopy(config.model)
    if checkpointing != 'as in the config':
        for tower in ('text_encoder', 'video_encoder'):
            model_config[tower].gradient_checkpointing = checkpointing == 'on'
    torch.manual_seed(args.seed)
    model = MODELS.build(model_config)
    ways: dict[str, Iteration] = {}
    peak: dict[str, int | None] = {}
    unfit: list[str] = []

    def add(name: str) -> None:
        is_cuda = device.type == 'cuda'
        others = torch.cuda.memory_allocated(device) if is_cuda else 0
        way = Iteration(
            copy.deepcopy(model).to(device),
            config.optim_wrapper,
            name == 'reference',
            args,
        )
        way.run(batches, device)  # warm-up
        # with weights and optimizer, without what the other way holds
        before = torch.cuda.memory_allocated(device) - others if is_cuda else 0
        extra = cuda_peak(lambda: way.run(batches, device), device)
        peak[name] = None if extra is None else before + extra
        ways[name] = way

    add('ours')
    unless_out_of_memory('the reference', lambda: add('reference'), unfit)
    clocks: dict[str, list[Clock]] = {name: [] for name in ways}
    for _ in range(args.repeats):
        for name, way in ways.items():
            clocks[name].append(way.run(batches, device))
    spent = {
        name: {
            part: statistics.median(clock.spent[part] for clock in found)
            for part in PARTS
        }
        for name, found in clocks.items()
    }
    total = {name: sum(parts.values()) for name, parts in spent.items()}
    head = {
        name: sum(parts[part] for part in HEAD_PARTS)
        for name, parts in spent.items()
    }
    case = dict(
        dtype=args.dtype,
        checkpointing=checkpointing,
        seconds=spent,
        total_seconds=total,
        head_seconds=head,
        head_percent={k: 100 * head[k] / total[k] for k in total},
        ratio=quotient(total.get('reference'), total['ours']),
        head_ratio=quotient(head.get('reference'), head['ours']),
        peak_bytes=peak,
        reference_note=unfit,
        losses_finite=all(math.isfinite(way.loss) for way in ways.values()),
        # lowered by every step that was skipped
        loss_scale={name: way.loss_scale() for name, way in ways.items()},
    )
    report(case, sizes)
    return case


def report(case: dict, sizes: dict[str, int]) -> None:
    """Print a case."""
    rows = []
    for part in (*PARTS, 'all'):
        row: dict[str, Any] = {'part': part}
        for name, total in case['total_seconds'].items():
            spent = case['seconds'][name].get(part, total)
            row.update({f'{name} s': spent, f'{name} %': 100 * spent / total})
        rows.append(row)
    print_table(
        f'Training iteration, {case["dtype"]}, checkpointing '
        f'{case["checkpointing"]}, '
        + ', '.join(f'{key} {value}' for key, value in sizes.items()),
        rows,
    )
    if case['ratio'] is not None:
        print(
            f'the iteration is {case["ratio"]:.2f} times, the head '
            f'{case["head_ratio"]:.2f} times as fast as with the reference'
        )


def main() -> None:
    """Measure, print and write."""
    args = parse_args()
    bench = start(args)
    device = bench.device
    init_default_scope('eaglenet_mm')
    if args.arch:
        config = arch_config(args)
        batches = random_batches(
            args.batch or 8,
            config.model.data_preprocessor.num_frames,
            args.seed,
            device,
        )
    else:
        config = open_config(args.config)
        batches = loaded_batches(config.train_dataloader, args)
    inputs = next(batches)['inputs']
    head = config.model.head
    sizes = dict(
        batch=len(inputs['frames']),
        frames=head.num_frames,
        dim=head.embed_dim,
        candidates=head.num_candidates,
        pixels=inputs['frames'][0].shape[-1],
    )
    bench.about = dict(sizes=sizes)
    run = partial(measure, config, batches, sizes)
    measure_cases(bench, args.checkpointing, run, 'checkpointing {}')


if __name__ == '__main__':
    main()
