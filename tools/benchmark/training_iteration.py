r"""A whole training iteration, split into its parts.

    python tools/benchmark/training_iteration.py --json training_iteration.json
    python tools/benchmark/training_iteration.py --arch ViT-B-32 --batch 8 \
        --json training_iteration_vit-b32.json

Times data, preprocessor, both encoders, the head's forward and backward, the
encoders' backward and the optimizer, and then the same iteration with the
brute-force objective in place of the head, in turn. Run it from a checkout.

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
from collections.abc import Callable, Iterator
from typing import Any

import torch
from common import REPOSITORY, make_parser, precision, start, synchronize
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from reporting import (
    describe_machine,
    print_machine,
    print_table,
    write_report,
)
from torch import Tensor
from training_batches import arch_config, loaded_batches, random_batches

from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from tests.reference.brute_force_training import BruteForceObjective

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
    parser = make_parser(__doc__, repeats=3)
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
    return parser.parse_args()


class Clock:
    """Adds up the time of parts, waiting for the GPU in between.

    Args:
        device (torch.device): What to wait for.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.spent = dict.fromkeys(PARTS, 0.0)

    def __call__(self, part: str, run: Callable[[], Any]) -> Any:
        """Run something and book its time on a part."""
        synchronize(self.device)
        begin = time.perf_counter()
        result = run()
        synchronize(self.device)
        self.spent[part] += time.perf_counter() - begin
        return result


class Iteration:
    """One way to train.

    Args:
        model (TextVideoRetriever): The retriever; changed by training.
        optim_wrapper (dict): Config of the optimizer.
        brute_force (bool): Put the reference in the place of the head.
        args (argparse.Namespace): Options.
    """

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
        self.optimizer = build_optim_wrapper(
            model, copy.deepcopy(optim_wrapper)
        )

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
        batch = clock('data', lambda: next(batches))
        inputs = clock(
            'preprocessor', lambda: model.data_preprocessor(batch, True)
        )['inputs']
        with precision(self.args):
            text = clock(
                'text encoder', lambda: model.encode_text(inputs['token_ids'])
            ).embeds
            frames = clock(
                'video encoder',
                lambda: model.encode_video(
                    inputs['pixels'], inputs['frame_mask']
                ),
            ).frames
            sides = [x.detach().requires_grad_() for x in (text, frames)]
            loss = clock(
                'head forward',
                lambda: self.head_loss(
                    sides[0], sides[1], inputs['frame_mask']
                ),
            )
        clock('head backward', loss.backward)
        clock(
            'encoders backward',
            lambda: torch.autograd.backward(
                (text, frames), [side.grad for side in sides]
            ),
        )

        def step() -> None:
            self.optimizer.step()
            self.optimizer.zero_grad()

        clock('optimizer', step)
        self.loss = float(loss.detach())
        return clock


def main() -> None:
    """Measure, print and write."""
    args = parse_args()
    device = start(args)
    machine = describe_machine(device)
    print_machine(machine)
    init_default_scope('eaglenet_mm')
    if args.arch:
        config = arch_config(args)
        batches = random_batches(
            args.batch or 8,
            config.model.data_preprocessor.num_frames,
            args.seed,
        )
    else:
        config = Config.fromfile(args.config)
        batches = loaded_batches(config.train_dataloader, args)
    model = MODELS.build(config.model)
    batch = next(batches)
    sizes = dict(
        batch=len(batch['inputs']['frames']),
        frames=model.head.num_frames,
        dim=model.head.embed_dim,
        candidates=model.head.candidate_noise.num_candidates,
        pixels=batch['inputs']['frames'][0].shape[-1],
    )
    ways = {
        name: Iteration(
            copy.deepcopy(model).to(device),
            config.optim_wrapper,
            name == 'reference',
            args,
        )
        for name in ('ours', 'reference')
    }
    clocks: dict[str, list[Clock]] = {name: [] for name in ways}
    # the first round warms up
    for round_number in range(args.repeats + 1):
        for name, way in ways.items():
            clock = way.run(batches, device)
            if round_number:
                clocks[name].append(clock)
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
    write_report(
        args,
        machine,
        sizes=sizes,
        seconds=spent,
        total_seconds=total,
        head_seconds=head,
        head_percent={k: 100 * head[k] / total[k] for k in total},
        ratio=total['reference'] / total['ours'],
        head_ratio=head['reference'] / head['ours'],
        losses_finite=all(math.isfinite(way.loss) for way in ways.values()),
    )
    rows = [
        {
            'part': part,
            'ours s': spent['ours'][part],
            'ours %': 100 * spent['ours'][part] / total['ours'],
            'reference s': spent['reference'][part],
            'reference %': 100 * spent['reference'][part] / total['reference'],
        }
        for part in PARTS
    ]
    rows.append(
        {
            'part': 'all',
            'ours s': total['ours'],
            'ours %': 100.0,
            'reference s': total['reference'],
            'reference %': 100.0,
        }
    )
    print_table(
        'Training iteration, '
        + ', '.join(f'{key} {value}' for key, value in sizes.items()),
        rows,
    )
    print(
        f'the iteration is {total["reference"] / total["ours"]:.2f} times, '
        f'the head {head["reference"] / head["ours"]:.2f} times as fast as '
        'with the reference'
    )


if __name__ == '__main__':
    main()
