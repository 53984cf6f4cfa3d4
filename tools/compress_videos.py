"""Make small copies of a folder of videos, under the same names.

    python tools/compress_videos.py data/msrvtt/videos data/msrvtt/videos_3fps

An interrupted run goes on where it stopped when started again. Exits with 1
if a file failed, which the last lines name.
"""

import argparse
import sys
from pathlib import Path

from eaglenet_mm.datasets.video_compression import compress_folder
from eaglenet_mm.launching import run_script


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('source', type=Path, help='folder of videos')
    add('target', type=Path, help='folder of copies to write')
    add('--fps', type=float, default=3, help='frames a second; default: 3')
    side = 'even number of pixels; smaller videos keep their size'
    add('--short-side', type=int, default=224, help=f'{side}; default: 224')
    add('--workers', type=int, default=2, help='processes; default: 2')
    crf = 'quality of libx264, 0 (lossless) to 51; default: 23'
    add('--crf', type=int, default=23, help=crf)
    return parser.parse_args()


def main() -> int:
    """Compress, and tell what failed; 1 if anything did."""
    # names of files need not be text of any encoding
    sys.stdout.reconfigure(errors='backslashreplace')
    report = compress_folder(**vars(parse_args()))
    for name, reason in report.failures.items():
        print(f'FAILED {name}: {reason}')
    print(
        f'{report.num_made} copies made, {report.num_kept} were there, '
        f'{len(report.failures)} failed, {len(report.hidden)} hidden files '
        'or folders left out.'
    )
    return int(bool(report.failures))


if __name__ == '__main__':
    run_script(main, goes_on=True)
