"""Write features of texts, frames and videos into one file.

    python tools/extract_features.py SOURCE --config C --checkpoint W --out F

SOURCE is a folder of videos or an annotation file. The file (safetensors) has
``video.frames``, ``video.frame_mask``, ``video.vectors``,
``video.frame_times`` and ``text.embeds``; docs/search_videos.md tells how to
read it. An interrupted run goes on with the same command.
"""

import argparse

from eaglenet_mm.apis import find_config
from eaglenet_mm.apis.feature_file import extract_features, list_items
from eaglenet_mm.apis.index_updating import read_lines
from eaglenet_mm.apis.retriever_encoding import RetrieverEncoder
from eaglenet_mm.launching import add_config_arguments, read_config, run_script
from eaglenet_mm.search.video_files import find_videos, tell_passed_over
from eaglenet_mm.utils.printable import printable


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('source', help='folder of videos, or annotation file (.json)')
    add('--config', required=True, help='of the model: a file or a name')
    add('--checkpoint', help='its weights')
    add('--out', required=True, metavar='FILE', help='.safetensors')
    add('--videos', help='folder of the videos of an annotation file')
    add('--texts', metavar='FILE', help='further texts, one a line')
    workers = 'processes that read videos; default: %(default)s'
    add('--workers', type=int, default=2, help=workers)
    add('--device', help='default: the GPU if there is one')
    add('--untrained', action='store_true', help='allow random weights')
    add_config_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Extract, and say what is in the file."""
    args = parse_args()
    cfg = find_config(read_config(args))
    items, texts = list_items(args.source, args.videos)
    is_file = args.source.endswith('.json')
    passed_over = {} if is_file else find_videos(args.source).passed_over
    if args.texts is not None:
        lines = read_lines(args.texts)
        texts += [dict(text=line, video=None) for line in lines]
    encoder = RetrieverEncoder(
        cfg, args.checkpoint, args.device, untrained=args.untrained
    )
    found = extract_features(
        encoder,
        items,
        texts,
        args.out,
        num_workers=args.workers,
        passed_over=passed_over,
    )
    print(
        f'{args.out}: {len(found.about["videos"])} of {len(items)} videos, '
        f'{len(texts)} texts'
    )
    for name, reason in found.about['unreadable'].items():
        print(printable(f'  left out: {name}: {reason}'))
    for name, note in found.about['notes'].items():
        print(printable(f'  in part: {name}: {note}'))
    if passed_over:
        print(tell_passed_over(passed_over))


if __name__ == '__main__':
    run_script(main, goes_on=True)
