"""Frames a second from disk to the device, by a loader with all cores.

    python tools/benchmark/loader_throughput.py --device cuda

Loads made clips as a training does: worker processes decode, resize and pack,
this process brings batches to the device and normalises them there. PyAV comes
first, then the frame cache, then the other readers that are installed.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from clips import dataset_options, make_clips
from harness import make_parser, print_table, seconds, start
from mmengine.runner import Runner

from eaglenet_mm.datasets import TextVideoDataset
from eaglenet_mm.datasets.frame_cache_building import build_frame_cache
from eaglenet_mm.models.data_preprocessor import RetrievalDataPreprocessor

#: Package of each reader beside PyAV.
READERS = {'decord': 'decord', 'torchcodec': 'torchcodec'}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__, frames=12, repeats=3)
    add = parser.add_argument
    add('--clips', type=int, default=16, help='clips to make')
    add('--items', type=int, default=512, help='videos of a pass')
    add('--batch', type=int, default=32, help='videos of a batch')
    add('--size', type=int, default=224, help='side of a frame in pixels')
    add('--workers', type=int, help='default: all cores')
    return parser.parse_args()


def measure(
    args: argparse.Namespace, options: dict[str, Any]
) -> dict[str, float]:
    """Time passes over the data; the first one starts the workers."""
    device = torch.device(args.device)
    workers = args.workers or os.cpu_count() or 1
    loader = Runner.build_dataloader(
        dict(
            batch_size=args.batch,
            num_workers=workers,
            persistent_workers=True,
            pin_memory=device.type == 'cuda',
            collate_fn=dict(type='pseudo_collate'),
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=TextVideoDataset(**options),
        ),
        seed=args.seed,
    )
    preprocessor = RetrievalDataPreprocessor(num_frames=args.frames)
    preprocessor.to(device)
    frames = 0

    def load() -> None:
        nonlocal frames
        frames = 0
        for batch in loader:
            inputs = preprocessor(batch)['inputs']
            # counted where they are used, so that every copy has ended
            frames += int(inputs['frame_mask'].sum())

    load()
    best = min(seconds(load, device) for _ in range(max(1, args.repeats)))
    return dict(
        workers=workers,
        frames=frames,
        seconds=best,
        frames_per_second=frames / best,
        videos_per_second=len(loader.dataset) / best,
    )


def main() -> None:
    """Measure, print and write."""
    args = parse_args()
    bench = start(args)
    rows: list[dict] = []
    skipped: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = make_clips(folder, args.clips)
        items = [paths[number % len(paths)] for number in range(args.items)]

        def options_of(reader: str) -> dict[str, Any]:
            return dataset_options(
                folder, items, args.frames, args.size, reader
            )

        def add(way: str, options: dict[str, Any]) -> None:
            rows.append(dict(way=way, **measure(args, options)))
            bench.write(rows=rows, skipped=skipped)

        options = options_of('pyav')
        add('pyav', options)
        cache = str(folder / 'cache')
        build_frame_cache(
            TextVideoDataset(**options),
            cache,
            num_workers=args.workers or os.cpu_count() or 1,
        )
        add('frame cache', {**options, 'frame_cache': cache})
        for reader, package in READERS.items():
            if not find_spec(package):
                continue
            try:
                add(reader, options_of(reader))
            except (ImportError, OSError, RuntimeError) as error:
                # installed, but not its libraries, for example
                skipped.append(f'{reader}: {error!s:.300}')
                bench.write(rows=rows, skipped=skipped)
    print_table(
        f'{args.items} videos of {args.clips} clips, {args.size} pixels', rows
    )


if __name__ == '__main__':
    main()
