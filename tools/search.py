"""Search videos by a sentence: python tools/search.py CONFIG CHECKPOINT TEXT.

The videos are those of the config's test set.
"""

import argparse

from rich.console import Console
from rich.table import Table
from rich.text import Text

from eaglenet_mm.apis import search_videos
from eaglenet_mm.utils.launch import (
    add_config_arguments,
    check_checkpoint,
    read_config,
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Search videos by a sentence')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('query', help='what the video shows, in quotes')
    parser.add_argument(
        '-k', '--top-k', type=int, default=5, help='videos to show'
    )
    add_config_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Search, and print a table of what was found."""
    args = parse_args()
    check_checkpoint(args.checkpoint)
    hits = search_videos(
        read_config(args), args.checkpoint, args.query, args.top_k
    )
    table = Table(title=Text(f'"{args.query}"'))
    table.add_column('rank', no_wrap=True)
    table.add_column('score', no_wrap=True)
    table.add_column('video', overflow='fold', no_wrap=True)
    table.add_column('its first caption')
    for rank, hit in enumerate(hits, start=1):
        # Text, since brackets in a caption are no markup
        cells = (str(rank), f'{hit.score:.4f}', hit.video, hit.captions[0])
        table.add_row(*map(Text, cells))
    Console().print(table)


if __name__ == '__main__':
    main()
