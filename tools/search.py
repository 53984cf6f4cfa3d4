"""Search an index by a sentence: python tools/search.py INDEX "TEXT".

The index is made by tools/index.py. Each hit names the file, the seconds it
covers, and the second whose frame fits the sentence best.
"""

import argparse
import contextlib
import json
import sys
from pathlib import Path

from rich.console import Console

from eaglenet_mm.apis import RetrievalInferencer, SearchHit
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
    add('index', help='folder of the index')
    add('query', help='what the video shows, in quotes; or a video file')
    add('-k', '--top-k', type=int, default=10, help='hits to show')
    add('--shortlist', type=int, default=100, help='rows scored; 0: all')
    add('--first-stage', default='auto', help='torch, faiss, milvus[:URL]')
    add('--check-shortlist', action='store_true', help='score all as well')
    add('--video', action='store_true', help='the query is a video file')
    add('--json', action='store_true', help='print records instead')
    add('--html', metavar='FILE', help='write a page with thumbnails')
    add('--config', help='file or name; default: what the index holds')
    add('--checkpoint', help='default: where it was when indexing')
    add('--device', help='default: the GPU if there is one')
    add_config_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Search, and print what was found."""
    args = parse_args()
    # what is logged must not get in between records
    with contextlib.redirect_stdout(sys.stderr if args.json else sys.stdout):
        inferencer = RetrievalInferencer.of_index(
            args.index,
            args.checkpoint,
            args.device,
            model=read_optional_config(args),
            first_stage=args.first_stage,
        )
        hits, note = run_query(inferencer, args)
    if args.html is not None:
        page = hit_page(args.query, hits, inferencer.index, note)
        Path(args.html).write_text(page, encoding='utf-8')
    if args.json:
        print(json.dumps(hit_records(hits), indent=1))
    else:
        Console().print(hit_table(args.query, hits, note))


def run_query(
    inferencer: RetrievalInferencer, args: argparse.Namespace
) -> tuple[list[SearchHit], str]:
    """Find hits, and say how."""
    recall, size = None, args.shortlist
    if args.video:
        hits = inferencer.search_video(args.query, args.top_k)
        return hits, search_note(inferencer.index)
    hits = inferencer.search(args.query, args.top_k, shortlist=size)
    if args.check_shortlist:
        recall = inferencer.check_shortlist(args.query, args.top_k, size)
    return hits, search_note(
        inferencer.index, max(size, args.top_k) if size else 0, recall
    )


if __name__ == '__main__':
    run_script(main)
