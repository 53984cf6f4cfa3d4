"""Options of a test that measure found moments."""

import argparse

from mmengine.config import Config

from eaglenet_mm.search.records import parse_seconds


def add_moment_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--moments``, ``--overlap`` and ``--corpus`` of a test."""
    parser.add_argument(
        '--moments',
        metavar='TIME',
        help='measure found moments in windows of this length: 2s, 1.5m, '
        "several as 2s,4s, or didemo for its own; needs 'moments' in the "
        'annotation',
    )
    parser.add_argument(
        '--overlap',
        type=float,
        help='share of a window that the next one repeats, such as 0.5; '
        'default: 0',
    )
    parser.add_argument(
        '--corpus',
        action='store_true',
        help='also rank the windows of all videos, not of the right one alone',
    )


def add_moment_metric(cfg: Config, args: argparse.Namespace) -> None:
    """Add ``MomentMetric`` to the test evaluator, in place.

    It takes the place of one in the config.

    Raises:
        ValueError: If an option makes no sense, or there is no evaluator.
    """
    if args.moments is None:
        if args.overlap is not None or args.corpus:
            raise ValueError(
                '--overlap and --corpus say how --moments measures, but it is '
                'not given. Add --moments 2s, or leave them out.'
            )
        return
    evaluator = cfg.get('test_evaluator')
    if evaluator is None:
        raise ValueError(
            f'--moments needs a test_evaluator, but {cfg.filename} has none.'
        )
    if isinstance(evaluator, dict):
        evaluator = [evaluator]
    metric = dict(
        type='MomentMetric', overlap=args.overlap or 0.0, corpus=args.corpus
    )
    if args.moments == 'didemo':
        metric['didemo'] = True
    else:
        metric['segment'] = [
            parse_seconds(text) for text in args.moments.split(',')
        ]
    kept = [x for x in evaluator if x['type'] != 'MomentMetric']
    cfg.test_evaluator = [*kept, metric]
