"""Train a retriever: python tools/train.py CONFIG [options]."""

import argparse

from eaglenet_mm.launching import (
    add_launch_arguments,
    build_runner,
    load_config,
    merge_train_arguments,
)
from eaglenet_mm.launching.lost_workers import name_lost_workers
from eaglenet_mm.launching.processes import leave_processes


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Train a retriever')
    add = parser.add_argument
    add('config', help='config file, or the name of one')
    add(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from this checkpoint; without a path, from the latest '
        'one of the work directory (from the start if there is none)',
    )
    add(
        '--amp',
        action='store_true',
        help='mixed precision: scaled float16 on a GPU, bfloat16 on CPU',
    )
    add('--no-validate', action='store_true', help='do not evaluate meanwhile')
    add(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by global batch / base_batch_size',
    )
    add('--seed', type=int, help='seed of all random numbers')
    add(
        '--diff-rank-seed',
        action='store_true',
        help='give every process its own seed',
    )
    add(
        '--deterministic',
        action='store_true',
        help='let cuDNN and torch use repeatable algorithms only',
    )
    add_launch_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Train as the config and the command line say."""
    args = parse_args()
    cfg = load_config(args)
    merge_train_arguments(cfg, args)
    runner = build_runner(cfg, strict=bool(cfg.get('resume')))
    with name_lost_workers(runner):
        runner.train()
    del runner
    leave_processes()


if __name__ == '__main__':
    main()
