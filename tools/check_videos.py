"""Check that training can read every video of its annotation files.

    python tools/check_videos.py configs/eaglenet_msrvtt.py
    python tools/check_videos.py data/mine/train.json --videos data/mine/videos

Reads each video the way the pipeline of the config will, then decodes it to
its end, in processes of their own with a time limit. Writes a report beside
each annotation file. Exits with 0 if training would be safe, with 1 if it
would stop at a video, with 2 if the check could not be made.
"""

import argparse
from pathlib import Path

from eaglenet_mm.config.datasets import (
    add_dataset_arguments,
    load_annotation,
    load_datasets,
)
from eaglenet_mm.datasets.video_checks import (
    check_videos,
    clean_annotation,
    report_lines,
)
from eaglenet_mm.launching import run_script


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_dataset_arguments(parser)
    add = parser.add_argument
    add('--videos', help='folder, if an annotation file is given as CONFIG')
    limit = 'seconds without progress on a video; 0: none; default: 120'
    add('--time-limit', type=float, default=120, metavar='S', help=limit)
    clean = 'write NAME_clean.json without the videos training would stop at'
    add('--write-clean', action='store_true', help=clean)
    return parser.parse_args()


def main() -> int:
    """Check and report; 1 if training would not be safe."""
    args = parse_args()
    if args.videos is not None:
        datasets = {'given': load_annotation(args.config, args.videos)}
    else:
        datasets = load_datasets(
            args.config, splits=args.split, options=args.cfg_options
        )
    safe = True
    for split, dataset in datasets.items():
        annotation = Path(dataset.ann_file)
        path = annotation.with_name(f'{annotation.stem}_videos.json')
        print(f'{split}: {len(dataset)} videos of {annotation}')
        report = check_videos(
            dataset, path, num_workers=args.workers, time_limit=args.time_limit
        )
        safe = safe and report['safe']
        print('\n'.join(report_lines(report)))
        print(f'Report: {path}')
        if args.write_clean:
            clean = not report['safe'] and clean_annotation(annotation, report)
            print(f'Reduced: {clean or "nothing to leave out"}')
    return int(not safe)


if __name__ == '__main__':
    run_script(main, goes_on=True)
