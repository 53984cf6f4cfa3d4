"""Train a retriever: python tools/train.py CONFIG [options]."""

import argparse

from eaglenet_mm.launching import (
    add_launch_arguments,
    build_runner,
    load_config,
    merge_train_arguments,
    spare_tracebacks,
)
from eaglenet_mm.launching.lost_workers import name_lost_workers
from eaglenet_mm.launching.processes import leave_processes

FLAGS = {
    '--amp': 'mixed precision: scaled float16 on a GPU, bfloat16 on CPU',
    '--no-validate': 'train without evaluating',
    '--auto-scale-lr': 'scale learning rate by global batch / base_batch_size',
    '--diff-rank-seed': 'give every process its own seed',
    '--deterministic': 'let cuDNN and torch use repeatable algorithms only',
}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Train a retriever')
    add = parser.add_argument
    add('config', help='config file, or the name of one')
    resume = (
        'go on from this checkpoint; without a path, from the latest one of '
        'the work directory (from the start if there is none)'
    )
    add('--resume', nargs='?', const='auto', metavar='FILE', help=resume)
    seed = 'seed of all random numbers; default: that of the config'
    add('--seed', type=int, help=seed)
    for flag, about in FLAGS.items():
        add(flag, action='store_true', help=about)
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
    spare_tracebacks()
    main()
