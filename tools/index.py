"""Make an index of your own videos, or bring it up to date.

    python tools/index.py VIDEOS --config CONFIG --checkpoint FILE --out INDEX

Only new and changed files are read; a second call needs no config and no
checkpoint. Every finished video is safe at once: after an interruption the
same command goes on. Files that cannot be read are listed and left out.
"""

import argparse
from contextlib import nullcontext

from eaglenet_mm.apis.distributed_indexing import connected
from eaglenet_mm.apis.index_updating import (
    follow_videos,
    read_captions,
    report_lines,
    update_index,
)
from eaglenet_mm.apis.video_indexer import VideoIndexer
from eaglenet_mm.launching import (
    add_config_arguments,
    read_optional_config,
    run_script,
)
from eaglenet_mm.search.records import PRECISIONS, parse_seconds

_SAME = ('device', 'untrained', 'precision', 'retry', 'prune', 'repair')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('videos', nargs='+', help='folders, with all below them, and files')
    add('--out', required=True, metavar='INDEX', help='file, or URI')
    add('--config', help='config, file or name; needed the first time')
    add('--checkpoint', help='its weights; needed the first time')
    add('--segment', metavar='TIME', help='cut videos: 10s, 1.5m')
    add('--precision', choices=PRECISIONS, help='default: float32')
    add('--tag', action='append', default=[], help='of these videos')
    add('--calibrate', metavar='FILE', help='captions, for --reject')
    add('--ray', metavar='ADDRESS', help='auto or local: by many workers')
    add('--build-ann', action='store_true', help='for millions, of Lance')
    add('--watch', action='store_true', help='go on as files change')
    add('--poll', action='store_true', help='with it: of a network disk')
    workers = 'processes that read videos; default: %(default)s'
    add('--workers', type=int, default=2, help=workers)
    batch = 'videos encoded together; default: %(default)s'
    add('--batch', type=int, default=1, help=batch)
    add('--device', help='default: the GPU if there is one')
    add('--retry', action='store_true', help='try unreadable files again')
    add('--prune', action='store_true', help='take out files that are gone')
    add('--repair', action='store_true', help='leave out what is damaged')
    add('--untrained', action='store_true', help='allow random weights')
    add_config_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Index, and say what became of the files."""
    args = parse_args()
    with connected(args.ray, args.out) if args.ray else nullcontext() as many:
        inferencer, report = update_index(
            args.videos,
            args.out,
            model=read_optional_config(args),
            weights=args.checkpoint,
            num_workers=args.workers,
            video_batch=args.batch,
            segment=args.segment and parse_seconds(args.segment),
            tags=args.tag,
            indexer=many or VideoIndexer,
            **{name: vars(args)[name] for name in _SAME},
        )
    index = inferencer.index
    with index:
        print('\n'.join(report_lines(index, report, args.prune)))
        if args.calibrate is not None:
            captions = read_captions(args.calibrate, index)
            inferencer.calibrate(captions)
            print(f'{len(captions)} captions tell what good scores are')
        if args.build_ann:
            index.build_ann()
            print('The index of the vectors is made')
        if args.watch:
            print('Waiting for changes; Ctrl-C ends it', flush=True)
            options = dict(tags=args.tag, prune=args.prune, poll=args.poll)
            for report in follow_videos(inferencer, args.videos, **options):
                lines = report_lines(index, report, args.prune)
                print('\n'.join(lines), flush=True)


if __name__ == '__main__':
    run_script(main, goes_on=True)
