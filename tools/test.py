"""Test a checkpoint: python tools/test.py CONFIG CHECKPOINT [options]."""

import argparse

from eaglenet_mm.config import skip_pretrained
from eaglenet_mm.engine.hooks.results_page_hook import (
    add_page_arguments,
    add_results_page,
    write_results_pages,
)
from eaglenet_mm.launching import (
    add_launch_arguments,
    build_runner,
    check_checkpoint,
    load_config,
    spare_tracebacks,
)
from eaglenet_mm.launching.lost_workers import name_lost_workers
from eaglenet_mm.launching.metric_file import (
    dump_scores,
    start_metrics,
    write_metrics,
)
from eaglenet_mm.launching.moments import (
    add_moment_arguments,
    add_moment_metric,
)
from eaglenet_mm.launching.processes import leave_processes


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Test a checkpoint')
    add = parser.add_argument
    add('config', help='config file, or the name of one')
    add('checkpoint', help="file or URL; 'none' tests an untrained model")
    add('--dump', metavar='OUT.pkl', help='write the scores of all pairs')
    add_moment_arguments(parser)
    add_page_arguments(parser)
    add_launch_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Test the checkpoint and write ``metrics.json`` to the work dir."""
    args = parse_args()
    cfg = load_config(args)
    cfg.resume = False
    cfg.load_from = None
    if args.checkpoint != 'none':
        check_checkpoint(args.checkpoint)
        cfg.load_from = args.checkpoint
        skip_pretrained(cfg)
    add_moment_metric(cfg, args)
    if args.dump is not None:
        dump_scores(cfg, args.dump)
    add_results_page(cfg, args)
    path = start_metrics(cfg)
    runner = build_runner(cfg, strict=True)
    with name_lost_workers(runner):
        metrics = runner.test()
    about = dict(config=args.config, checkpoint=args.checkpoint)
    write_metrics(path, metrics, **about)
    write_results_pages(runner)
    del runner
    leave_processes()


if __name__ == '__main__':
    spare_tracebacks()
    main()
