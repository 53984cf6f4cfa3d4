r"""A whole training iteration, split into its parts.

    python tools/benchmark/training_iteration.py --json training_iteration.json
    python tools/benchmark/training_iteration.py --arch ViT-B-32 --batch 8 \
        --json training_iteration_vit-b32.json

Times data, preprocessor, both encoders, the head's forward and backward, the
encoders' backward and the optimizer, and the same iteration with the
brute-force objective in place of the head, in turn; on a GPU peak memory as
well. float16 trains with a loss scaler, which needs a GPU.

The first form takes model, data and optimizer of a config; its data set must
be there (the toy one: python tools/dataset_converters/toy.py --out data/toy).
Data are loaded in this process, so the figure is their full cost. With --arch
the towers are CLIP's, with random weights, the head is that of the recipe, and
random pixels of 224 x 224 and random words stand in for the data.
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

from eaglenet_mm.config.reading import open_config
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from tools.benchmark.reference.brute_force_training import BruteForceObjective

#: By towers, the recipe that is made for them.
RECIPES = {
    'ViT-B-16': 'eaglenet_msrvtt.py',
    'ViT-B-32': 'eaglenet_msrvtt_vit-b32.py',
}
AS_IT_IS = 'as in the config'


def arch_config(args: argparse.Namespace) -> Config:
    """Take the recipe of some towers with random weights and given sizes.

    Towers that no recipe is for get the head of ViT-B/16's.
    """
    name = args.arch.removesuffix('-quickgelu')
    recipe = RECIPES.get(name, RECIPES['ViT-B-16'])
    config = Config.fromfile(str(REPOSITORY / 'configs' / recipe))
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
    loader = copy.deepcopy(loader)
    loader.update(num_workers=0, persistent_workers=False)
    loader['batch_size'] = args.batch or loader['batch_size']
    if args.data_root:
        dataset = loader['dataset']
        while 'data_root' not in dataset:
            dataset = dataset['dataset']
        dataset['data_root'] = args.data_root
    batches = Runner.build_dataloader(loader, seed=args.seed)
    if len(batches) == 0:
        raise SystemExit(
            f'The training data hold less than one batch of '
            f'{loader["batch_size"]}. Give a smaller --batch.'
        )
    for epoch in itertools.count():
        # captions are drawn anew in every epoch
        getattr(batches.dataset, 'set_epoch', lambda _: None)(epoch)
        yield from batches


class Iteration:
    """One way to train."""

    def __init__(
        self,
        model: Any,
        optim_wrapper: dict,
        batches: Iterator[dict],
        args: argparse.Namespace,
    ) -> None:
        self.model = model.train()
        self.batches = batches
        self.args = args
        optim_wrapper = copy.deepcopy(optim_wrapper)
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

    def run(self) -> dict[str, float]:
        """Train one step and give the time of its parts."""
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
                if isinstance(model.head, BruteForceObjective):
                    losses = model.head(*(side.float() for side in sides))
                else:
                    losses = model.head.loss(
                        TextFeatures(sides[0]), VideoFeatures(sides[1], mask)
                    )
                loss = sum(v.float() for k, v in losses.items() if 'loss' in k)
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
    ways: dict[str, Iteration] = {}
    peak: dict[str, int | None] = {}

    def add(name: str) -> None:
        is_cuda = device.type == 'cuda'
        others = torch.cuda.memory_allocated(device) if is_cuda else 0
        own = copy.deepcopy(model)
        if name == 'reference':
            own.head = BruteForceObjective(own.head)
        way = Iteration(own.to(device), config.optim_wrapper, batches, args)
        way.run()  # warm-up
        # with weights and optimizer, without what the other way holds
        before = torch.cuda.memory_allocated(device) - others if is_cuda else 0
        extra = harness.cuda_peak(way.run, device)
        peak[name] = None if extra is None else before + extra
        ways[name] = way

    add('ours')
    what = f'the reference in {args.dtype}, checkpointing {checkpointing}'
    harness.unless_out_of_memory(what, lambda: add('reference'), notes)
    rounds: dict[str, list[dict]] = {name: [] for name in ways}
    for _ in range(args.repeats):
        for name, way in ways.items():
            rounds[name].append(way.run())
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
            'peak GiB': quotient(peak[name], 2**30),
            'loss finite': math.isfinite(way.loss),
            # lowered by every step that was skipped
            'loss scale': scaler and scaler.get_scale(),
        }
        ours = rows[0] if rows else row
        ours_head = ours['s'] * ours['head %'] / 100
        row.update({'to ours': total / ours['s'], 'head': name})
        row['head to ours'] = head / ours_head
        rows.append(row)
    return rows


def main() -> None:
    """Measure, print and write."""
    parser = harness.make_parser(__doc__, 'device', 'head', 'dtype', repeats=3)
    harness.add_options(
        parser,
        config=(str(REPOSITORY / 'configs/eaglenet_toy.py'), 'of the model'),
        data_root=(str, 'folder of the data set, if not of the config'),
        batch=(int, 'default: that of the config; 8 of --arch'),
        arch=(str, 'a CLIP of open_clip, as ViT-B-32, on random pixels'),
        checkpointing=(
            [AS_IT_IS],
            'gradient checkpointing of the encoders; several are measured',
            (AS_IT_IS, 'off', 'on'),
        ),
    )
    args = parser.parse_args()
    if 'float16' in args.dtype and torch.device(args.device).type == 'cpu':
        parser.error('--dtype float16 needs a GPU, for its loss scaler.')
    bench = harness.Bench(args)
    init_default_scope('eaglenet_mm')
    config = arch_config(args) if args.arch else open_config(args.config)
    if args.arch:
        frames = config.model.data_preprocessor.num_frames
        batches = random_batches(args, frames)
    else:
        batches = loaded_batches(config.train_dataloader, args)
    inputs, head = next(batches)['inputs'], config.model.head
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
