"""Batches of a config's training data, or random ones of CLIP's size."""

from __future__ import annotations

import argparse
import copy
import itertools
from collections.abc import Iterator

import torch
from harness import REPOSITORY
from mmengine.config import Config
from mmengine.runner import Runner

PIXELS = 224
WORDS = 32
#: By towers, the recipe that is made for them.
RECIPES = {
    'ViT-B-16': 'eaglenet_msrvtt.py',
    'ViT-B-32': 'eaglenet_msrvtt_vit-b32.py',
}


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


def random_batches(
    size: int, frames: int, seed: int, device: torch.device
) -> Iterator[dict]:
    """Draw batches of pixels and words on a device without end."""
    generator = torch.Generator(device).manual_seed(seed)
    options: dict = dict(generator=generator, device=device)
    shape = (size, frames, 3, PIXELS, PIXELS)
    while True:
        ids = torch.randint(1, 40000, (size, WORDS), **options)
        ids[:, 0], ids[:, -1] = 49406, 49407
        pixels = torch.randint(256, shape, dtype=torch.uint8, **options)
        yield dict(
            inputs=dict(
                frames=list(pixels), token_ids=[row[None] for row in ids]
            )
        )


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
