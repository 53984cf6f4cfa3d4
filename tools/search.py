"""Search an index by a sentence: python tools/search.py INDEX "TEXT".

The index is made by tools/index.py. Each hit names the file, the seconds it
covers, and the second whose frame fits the sentence best.
"""

import argparse
import contextlib
import glob
import json
import os
import sys
from pathlib import Path

from rich.console import Console

from eaglenet_mm.apis import MomentFilter, RetrievalInferencer, SearchAnswer
from eaglenet_mm.launching import (
    add_config_arguments,
    read_optional_config,
    run_script,
)
from eaglenet_mm.search.hit_output import (
    hit_page,
    hit_records,
    hit_table,
    search_note,
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('index', help='file or URI of the index')
    add('query', help='what the video shows, in quotes; or a video file')
    top_k = 'hits to show; default: %(default)s'
    add('-k', '--top-k', type=int, default=10, help=top_k)
    offset = 'hits to leave out first; default: %(default)s'
    add('--offset', type=int, default=0, help=offset)
    per_video = 'hits of a video; 0: all; default: %(default)s'
    add('--per-video', type=int, default=0, help=per_video)
    add('--path', default='', help="folder, or pattern such as '*.mkv'")
    add('--after', default='', metavar='DATE', help='changed since then')
    add('--before', default='', metavar='DATE', help='changed before')
    add('--min-duration', default='', metavar='TIME', help='such as 10s')
    add('--max-duration', default='', metavar='TIME', help='such as 1.5m')
    add('--tag', action='append', default=[], help='may be given again')
    add('--reject', type=float, metavar='ALPHA', help='say when nothing fits')
    shortlist = 'rows scored; 0: all; default: %(default)s'
    add('--shortlist', type=int, default=100, help=shortlist)
    stage = 'torch, lance, milvus:ADDRESS; default: %(default)s'
    add('--first-stage', default='auto', help=stage)
    add('--check-shortlist', action='store_true', help='score all as well')
    add('--video', action='store_true', help='the query is a video file')
    add('--json', action='store_true', help='print records instead')
    add('--html', metavar='FILE', help='write a page with thumbnails')
    add('--head', metavar='CONFIG', help='rank with the head of this config')
    add('--config', help='file or name; default: what the index holds')
    add('--checkpoint', help='default: where it was when indexing')
    add('--device', help='default: the GPU if there is one')
    add_config_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Search, and print what was found."""
    args = parse_args()
    where = MomentFilter.parse(
        existing(args.path),
        args.after,
        args.before,
        args.min_duration,
        args.max_duration,
        args.tag,
    )
    if args.reject is not None and (where or args.video):
        raise ValueError(
            '--reject tells whether the whole index shows what a sentence '
            'says. Leave it out with --video, and where files are chosen.'
        )
    # what is logged must not get in between records
    with contextlib.redirect_stdout(sys.stderr if args.json else sys.stdout):
        inferencer = RetrievalInferencer.of_index(
            args.index,
            args.checkpoint,
            args.device,
            model=read_optional_config(args),
            head=args.head,
            first_stage=args.first_stage,
        )
        with inferencer.index as index:
            answer, note = run_query(inferencer, where, args)
            if args.html is not None:
                page = hit_page(args.query, answer, index, note)
                Path(args.html).write_text(page, encoding='utf-8')
    if args.json:
        print(json.dumps(hit_records(answer), indent=1))
    else:
        Console().print(hit_table(args.query, answer, note))


def existing(path: str) -> str:
    """Make a folder or file that is there a filter of its whole path."""
    if not os.path.exists(path):
        return path  # of another machine, or a pattern
    whole = os.path.abspath(path)
    if not any(sign in whole for sign in '*?['):
        return whole
    escaped = glob.escape(whole)
    return f'{escaped}/*' if os.path.isdir(whole) else escaped


def run_query(
    inferencer: RetrievalInferencer,
    where: MomentFilter,
    args: argparse.Namespace,
) -> tuple[SearchAnswer, str]:
    """Find hits, and say how."""
    query, k, recall = args.query, args.top_k, None
    options = dict(
        offset=args.offset, where=where or None, per_video=args.per_video
    )
    if args.video:
        answer = inferencer.search_video(query, k, **options)
    else:
        options |= dict(shortlist=args.shortlist, reject=args.reject)
        answer = inferencer.search(query, k, **options)
        if args.check_shortlist:
            recall = inferencer.check_shortlist(query, k, args.shortlist)
    return answer, search_note(inferencer.index, answer, recall)


if __name__ == '__main__':
    run_script(main)
