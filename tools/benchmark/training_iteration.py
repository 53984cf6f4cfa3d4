r"""A whole training iteration, split into its parts.

    python tools/benchmark/training_iteration.py --json training_iteration.json
    python tools/benchmark/training_iteration.py --arch ViT-B-32 --batch 8 \
        --json training_iteration_vit-b32.json

Times data, preprocessor, both encoders, forward and backward of the head,
backward of the encoders and the optimizer; in turn with it, the same iteration
with the brute-force objective in place of the head. Includes peak memory on a
GPU. float16 trains with a loss scaler, which needs a GPU.

The first form trains eaglenet_story on its data, which must be there (python
tools/dataset_converters/story.py --out data/story) and are loaded in this
process, so the figure is their full cost. With --arch the towers are CLIP's,
with random weights, the head is that of the recipe, and the data are random
pixels of 224 x 224 and random words.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import math
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import harness
import torch
from harness import REPOSITORY, quotient
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from training import Objective

from eaglenet_mm.registry import MODELS

#: By towers, the recipe that is made for them.
RECIPES = {
    None: 'eaglenet_story.py',
    'ViT-B-16': 'eaglenet_msrvtt.py',
    'ViT-B-32': 'eaglenet_msrvtt_vit-b32.py',
}
AS_IT_IS = 'as in the config'


def make_config(args: argparse.Namespace) -> Config:
    """Read the recipe; with ``--arch``, of given sizes and random weights.

    Towers without a recipe get the head of that of ViT-B/16.
    """
    name = args.arch and args.arch.removesuffix('-quickgelu')
    recipe = RECIPES.get(name, RECIPES['ViT-B-16'])
    config = Config.fromfile(str(REPOSITORY / 'configs' / recipe))
    if not name:
        return config
    frames = args.frames or config.num_frames
    for tower in ('text_encoder', 'video_encoder'):
        config.model[tower].update(arch=f'{name}-quickgelu', pretrained=None)
    config.model.data_preprocessor.num_frames = frames
    config.model.head.update(
        embed_dim=args.dim, num_frames=frames, num_candidates=args.candidates
    )
    return config


def random_batches(args: argparse.Namespace, frames: int) -> Iterator[dict]:
    """Draw batches of pixels and words on the device without end."""
    generator = torch.Generator(args.device).manual_seed(args.seed)
    options: dict = dict(generator=generator, device=args.device)
    size = args.batch or 8
    while True:
        ids = torch.randint(1, 40000, (size, 32), **options)
        ids[:, 0], ids[:, -1] = 49406, 49407
        shape = (size, frames, 3, 224, 224)
        pixels = torch.randint(256, shape, dtype=torch.uint8, **options)
        words = [row[None] for row in ids]
        yield dict(inputs=dict(frames=list(pixels), token_ids=words))


def loaded_batches(loader: dict, args: argparse.Namespace) -> Iterator[dict]:
    """Load batches of the config's training data without end."""
    loader.update(num_workers=0, persistent_workers=False)
    loader['batch_size'] = args.batch or loader['batch_size']
    if args.data_root:
        loader['dataset']['dataset']['data_root'] = args.data_root
    batches = Runner.build_dataloader(loader, seed=args.seed)
    if len(batches) == 0:
        raise SystemExit(
            f'The training data hold less than one batch of '
            f'{loader["batch_size"]}. Give a smaller --batch.'
        )
    for epoch in itertools.count():
        batches.dataset.set_epoch(epoch)  # captions are drawn anew
        yield from batches


class Iteration:
    """One way to train: a call trains a step and gives the time of parts."""

    def __init__(
        self,
        model: Any,
        brute_force: bool,
        config: Config,
        batches: Iterator[dict],
        args: argparse.Namespace,
    ) -> None:
        self.args, self.batches = args, batches
        self.model = model
        self.objective = Objective(model.head, brute_force)
        model.head = self.objective.head
        model.to(args.device).train()
        optim_wrapper = copy.deepcopy(config.optim_wrapper)
        if args.dtype == 'float16':
            # low enough for random weights not to skip the first steps
            scale = dict(init_scale=2.0**10)
            optim_wrapper.update(
                type='AmpOptimWrapper', dtype='float16', loss_scale=scale
            )
        self.optimizer = build_optim_wrapper(model, optim_wrapper)

    @contextmanager
    def clock(self, part: str) -> Iterator[None]:
        """Book the time of a block on a part."""
        device = torch.device(self.args.device)
        harness.synchronize(device)
        begin = time.perf_counter()
        yield
        harness.synchronize(device)
        self.spent[part] = time.perf_counter() - begin

    def __call__(self) -> dict[str, float]:
        """Train a step."""
        clock, model = self.clock, self.model
        self.spent: dict[str, float] = {}
        with clock('data'):
            batch = next(self.batches)
        with clock('preprocessor'):
            inputs = model.data_preprocessor(batch, True)['inputs']
        mask = inputs['frame_mask']
        with harness.precision(self.args):
            with clock('text encoder'):
                text = model.encode_text(inputs['token_ids']).embeds
            with clock('video encoder'):
                frames = model.encode_video(inputs['pixels'], mask).frames
            sides = [x.detach().requires_grad_() for x in (text, frames)]
            with clock('head forward'):
                loss = sum(self.objective(*sides, mask).values())
        with clock('head backward'):  # scales the loss for a scaler
            self.optimizer.backward(loss)
        with clock('encoders backward'):
            gradients = [side.grad for side in sides]
            torch.autograd.backward((text, frames), gradients)
        with clock('optimizer'):
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.loss = float(loss.detach())
        return self.spent


def measure(
    config: Config,
    batches: Iterator[dict],
    notes: list[str],
    checkpointing: str,
    args: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Measure ours and, where it fits, the reference."""
    device = torch.device(args.device)
    model_config = copy.deepcopy(config.model)
    if checkpointing != AS_IT_IS:
        for tower in ('text_encoder', 'video_encoder'):
            model_config[tower].gradient_checkpointing = checkpointing == 'on'
    torch.manual_seed(args.seed)
    model = MODELS.build(model_config)

    def make(brute_force: bool) -> Iteration:
        others = harness.cuda_allocated(device)
        way = Iteration(
            copy.deepcopy(model), brute_force, config, batches, args
        )
        way()  # warm-up
        # with weights and optimizer, without what the other way holds
        way.peak = harness.cuda_peak(way, device, others)
        return way

    about = f'in {args.dtype}, checkpointing {checkpointing}'
    ways = harness.both_ways(make, about, notes)
    rounds: dict[str, list[dict]] = {name: [] for name in ways}
    for _ in range(args.repeats):
        for name, way in ways.items():
            rounds[name].append(way())
    rows: list[dict[str, Any]] = []
    for name, way in ways.items():
        spent = {
            part: statistics.median(x[part] for x in rounds[name])
            for part in way.spent
        }
        total = sum(spent.values())
        head = spent['head forward'] + spent['head backward']
        scaler = getattr(way.optimizer, 'loss_scaler', None)
        row = {
            'type': args.dtype,
            'checkpointing': checkpointing,
            'head': name,
            's': total,
            **{f'{part} ms': 1000 * value for part, value in spent.items()},
            'head %': 100 * head / total,
            'peak GiB': quotient(way.peak, 2**30),
            'loss finite': math.isfinite(way.loss),
            # lowered by every step that was skipped
            'loss scale': scaler and scaler.get_scale(),
        }
        ours = rows[0] if rows else row
        row['to ours'] = total / ours['s']
        row['head to ours'] = row['to ours'] * row['head %'] / ours['head %']
        rows.append(row)
    return rows


def main() -> None:
    """Measure, print and write."""
    bench = harness.start(
        __doc__,
        'device',
        'head',
        'dtype',
        repeats=3,
        data_root=(str, 'folder of the story set, if not of the config'),
        batch=(int, 'default: that of the config; 8 of --arch'),
        arch=(str, 'a CLIP of open_clip, as ViT-B-32, on random pixels'),
        checkpointing=(
            [AS_IT_IS],
            'gradient checkpointing of the encoders; several are measured',
            (AS_IT_IS, 'off', 'on'),
        ),
    )
    args = bench.args
    if 'float16' in args.dtype and bench.device.type == 'cpu':
        bench.refuse('--dtype float16 needs a GPU, for its loss scaler.')
    init_default_scope('eaglenet_mm')
    config = make_config(args)
    head = config.model.head
    batches = random_batches(args, head.num_frames)
    if not args.arch:
        batches = loaded_batches(config.train_dataloader, args)
    inputs = next(batches)['inputs']
    sizes = dict(
        batch=len(inputs['frames']),
        frames=head.num_frames,
        dim=head.embed_dim,
        candidates=head.num_candidates,
        pixels=inputs['frames'][0].shape[-1],
    )
    bench.write(sizes=sizes)
    run = partial(measure, config, batches, bench.notes)
    bench.measure(args.checkpointing, run, 'checkpointing {}')
    about = ', '.join(f'{key} {value}' for key, value in sizes.items())
    bench.print_table(f'Training iteration, {about}')


if __name__ == '__main__':
    main()
