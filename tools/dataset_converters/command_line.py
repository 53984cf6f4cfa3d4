"""What the command lines of the converters share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from eaglenet_mm.datasets.official import ConvertedSplit, write_splits


def make_parser(description: str, dataset: str) -> argparse.ArgumentParser:
    """Make a parser with the options of every converter."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        '--out',
        type=Path,
        default=Path('data') / dataset,
        help='folder to write; default: %(default)s',
    )
    add(
        '--strict',
        action='store_true',
        help='exit with 1, and write nothing, unless every number is the '
        'published one and nothing is missing',
    )
    parser.set_defaults(dataset=dataset)
    return parser


def run_converter(
    args: argparse.Namespace, convert: Callable[[], list[ConvertedSplit]]
) -> None:
    """Convert, write and report."""
    name = f'{args.dataset}.py'
    try:
        splits = convert()
        differing = [x.report for x in splits if not x.report.as_published]
        if args.strict and differing:
            for report in differing:
                print('\n'.join(report.lines()))
            raise ValueError(
                'the files are not as published, so nothing was written. '
                'Leave --strict out to write what there is.'
            )
        lines = write_splits(args.out, splits)
    except (OSError, KeyError, TypeError, ValueError) as err:
        raise SystemExit(f'{name}: {err}') from err
    print('\n'.join(lines))
    written = sum(bool(split.records) for split in splits)
    print(f'Wrote {written} annotation files and a report to {args.out}.')
