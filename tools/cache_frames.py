"""Decode the frames of a config's data sets once and keep them on disk.

    python tools/cache_frames.py configs/eaglenet_msrvtt.py

Takes the sampling and the size from the pipeline of the config. What is there
already is checked and kept: run it again after an interruption, or when
videos have changed. Exits with 0 if all videos are in the cache, with 1 if
some could not be read, with 2 if it could not be made.
"""

import argparse
from pathlib import Path

from eaglenet_mm.config.datasets import add_dataset_arguments, load_datasets
from eaglenet_mm.datasets import TextVideoDataset
from eaglenet_mm.datasets.frame_cache import build_frame_cache
from eaglenet_mm.launching import run_script


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_dataset_arguments(parser)
    add = parser.add_argument
    out = 'cache below the data_root of each data set; default: %(default)s'
    add('--out', default='frame_cache', metavar='FOLDER', help=out)
    limit = 'seconds without progress on a video; 0: none; default: 120'
    add('--time-limit', type=float, default=120, metavar='S', help=limit)
    return parser.parse_args()


def main() -> int:
    """Make the caches; 1 if they are not complete."""
    args = parse_args()
    complete = True
    for split, dataset in load_datasets(
        args.config, splits=args.split, options=args.cfg_options
    ).items():
        if not isinstance(dataset, TextVideoDataset):
            raise TypeError(
                f'{split}: only TextVideoDataset reads a frame cache, but the '
                f'config has {type(dataset).__name__}. Leave it out of '
                '--split.'
            )
        print(f'{split}: {len(dataset)} videos of {dataset.ann_file}')
        report = build_frame_cache(
            dataset,
            Path(dataset.data_root) / args.out,
            num_workers=args.workers,
            time_limit=args.time_limit,
        )
        print(
            f'  {report.num_written} written ({report.num_renewed} in place '
            f'of others), {report.num_kept} there already, '
            f'{report.num_bytes / 1e6:.0f} MB in {report.folder}'
        )
        for video_id, error in report.failed.items():
            print(f'  not cached: {video_id}: {error}')
        complete = complete and not report.failed
    print(f"Set frame_cache='{args.out}' in the data sets to read from it.")
    return int(not complete)


if __name__ == '__main__':
    run_script(main, goes_on=True)
