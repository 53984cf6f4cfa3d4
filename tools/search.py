"""Search videos by a sentence: python tools/search.py CONFIG CHECKPOINT TEXT.

The videos are those of the config's test set.
"""

import argparse

from mmengine.config import Config, DictAction
from rich.console import Console
from rich.table import Table
from rich.text import Text

import eaglenet_mm  # noqa: F401  repairs of the environment come first
from eaglenet_mm.apis import search_videos
from eaglenet_mm.utils.config_keys import check_options
from eaglenet_mm.utils.launch import check_checkpoint


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Search videos by a sentence')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('query', help='what the video shows, in quotes')
    parser.add_argument(
        '-k', '--top-k', type=int, default=5, help='videos to show'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        help='settings to override, key=value',
    )
    return parser.parse_args()


def main() -> None:
    """Search, and print a table of what was found."""
    args = parse_args()
    check_checkpoint(args.checkpoint)
    cfg = Config.fromfile(args.config)
    check_options(cfg, args.cfg_options)
    cfg.merge_from_dict(args.cfg_options)
    hits = search_videos(cfg, args.checkpoint, args.query, args.top_k)
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
