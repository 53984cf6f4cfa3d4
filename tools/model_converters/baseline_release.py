"""Turn a released checkpoint of another method into one for tools/test.py."""

import argparse

from converting import make_parser, parse_args, read_input, write_output

from eaglenet_mm.launching import spare_tracebacks
from eaglenet_mm.models.converters import METHODS, convert_baseline_release


def main() -> None:
    """Convert, check, write and report."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        'method',
        choices=list(METHODS),
        help="what it is of; mmaction2's CLIP4Clip is clip4clip_mean",
    )
    parser.add_argument(
        '--initialise-from-clip',
        action='store_true',
        help="start missing positions and blocks as CLIP's text tower",
    )
    args = parse_args(make_parser(__doc__, [parser]))
    weights, model = read_input(args)
    ours, report = convert_baseline_release(
        weights,
        args.method,
        model=model,
        initialise_from_clip=args.initialise_from_clip,
    )
    write_output(args, ours, report, method=args.method)


if __name__ == '__main__':
    spare_tracebacks()
    main()
