"""Command line of the converters of official files."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eaglenet_mm.datasets.official import ConvertedSplit, write_splits


def run_converter(
    description: str | None,
    dataset: str,
    convert: Callable[..., list[ConvertedSplit]],
    video_suffix: str | None,
    **options: dict[str, Any],
) -> None:
    """Convert, write and report; ``options`` are arguments of ``convert``."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    for name, about in options.items():
        needed = dict(type=Path, required='default' not in about)
        add(f'--{name.replace("_", "-")}', **{**needed, **about})
    suffix = f'of the files; default: {video_suffix or "official names"}'
    add('--video-suffix', default=video_suffix, help=suffix)
    out = dict(type=Path, default=Path('data') / dataset)
    add('--out', **out, help='folder to write; default: %(default)s')
    strict = 'fail and write nothing unless all numbers are as published'
    add('--strict', action='store_true', help=strict)
    args = parser.parse_args()
    try:
        names = (*options, 'video_suffix')
        splits = convert(**{name: getattr(args, name) for name in names})
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
        raise SystemExit(f'{dataset}.py: {err}') from err
    print('\n'.join(lines))
    written = sum(bool(split.records) for split in splits)
    print(f'Wrote {written} annotation files and a report to {args.out}.')
