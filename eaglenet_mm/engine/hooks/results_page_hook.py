"""Web page of test results."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process
from mmengine.runner import Runner

from eaglenet_mm.engine.hooks.kept_results_hook import KeptResultsHook
from eaglenet_mm.registry import HOOKS
from eaglenet_mm.visualization.collecting import collect_results
from eaglenet_mm.visualization.results_file import (
    PAGE_NAME,
    prepare_folder,
    write_results,
    write_text,
)
from eaglenet_mm.visualization.results_page import results_page
from eaglenet_mm.visualization.training_curves import read_curves


@HOOKS.register_module()
class ResultsPageHook(KeptResultsHook):
    """Write ``results.html`` and ``results.json`` after a test.

    ``tools/test.py --show-dir`` adds this hook. The page is self-contained;
    the JSON file holds the same data for ``tools/show_compare.py``. Metrics
    are not affected. Only the main process writes.

    Args:
        out_dir (str): Folder of the two files. It is created, and checked to
            be writable, before the test begins.
        num_queries (int): Maximum number of queries on the page. Default: 200.
        deferred (bool): Do not write after the test, but when the caller calls
            :meth:`write`, so that a full disk cannot lose the metrics.
            Default: False.

    Raises:
        ValueError: If ``num_queries`` is below 1.

    Example:
        >>> custom_hooks = [dict(type='ResultsPageHook', out_dir='pages')]
    """

    def __init__(
        self, out_dir: str, num_queries: int = 200, *, deferred: bool = False
    ) -> None:
        if num_queries < 1:
            raise ValueError(
                'A page shows at least one query, but num_queries '
                f'(--show-queries) is {num_queries}.'
            )
        self.out_dir = out_dir
        self.num_queries = num_queries
        self.deferred = deferred
        super().__init__()

    def before_test(self, runner: Runner) -> None:
        """Check early what would otherwise fail after hours; keep the scores.

        Raises:
            TypeError: If results of this loop or dataset cannot be shown.
            OSError: If the folder cannot be written to.
        """
        self.check(runner.test_loop, 'RetrievalTestLoop')
        if is_main_process():
            prepare_folder(self.out_dir)
        self.keep(runner.test_evaluator)

    def after_test(self, runner: Runner) -> None:
        """Write the page unless ``deferred``."""
        if not self.deferred:
            self.write(runner)

    @torch.no_grad()
    def write(self, runner: Runner) -> None:
        """Collect the results and write them, on the main process.

        Raises:
            OSError: If a file cannot be written.
        """
        kept, evaluation, metrics = self.take()
        if kept is None or kept.scores is None or kept.right is None:
            return
        results = collect_results(
            evaluation,
            kept.scores,
            kept.right,
            runner.test_dataloader.dataset,
            metrics=metrics,
            about=_facts(runner, evaluation),
            num_queries=self.num_queries,
            curves=read_curves(runner._load_from),
        )
        path = Path(self.out_dir) / PAGE_NAME
        page = results_page(results)
        write_results(self.out_dir, results)
        write_text(path, page)
        unread = sum(bool(video.problem) for video in results.videos)
        runner.logger.info(
            f'Results of {len(results.queries)} of {len(results.captions)} '
            f'queries are shown in {path} ({len(page) / 2**20:.1f} MiB)'
            + (f'; {unread} videos could not be read again' if unread else '')
            + '.'
        )


def _facts(runner: Runner, evaluation: Any) -> dict[str, str]:
    """Describe the test in the order of the page."""
    head = evaluation.model.head
    # from the loop: a joined dataset has the meta of its first part
    meta = runner.test_evaluator.dataset_meta or {}
    said = evaluation.announcement(head)
    stages = 'all pairs by the head'
    if 'shortlist' in said:
        stages = (
            f'two stages: {said["shortlist"]} videos a caption shortlisted by '
            f'{said["first_stage"]}, these by the head'
        )
    processes = get_world_size()
    stated = ('dataset', 'split', 'protocol')
    return {
        'method': type(head).__name__.removesuffix('Head'),
        **{key: str(meta.get(key, 'unknown')) for key in stated},
        'config': str(runner.cfg.filename or runner.experiment_name),
        'checkpoint': str(runner._load_from or 'none, as initialised'),
        'scoring': stages,
        'written': time.strftime('%Y-%m-%d %H:%M')
        + (f', by {processes} processes' if processes > 1 else ''),
    }


def add_page_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--show-dir`` and ``--show-queries`` of a test."""
    parser.add_argument(
        '--show-dir',
        metavar='DIR',
        help='write a page of the results, DIR/results.html, and the same for '
        'tools/show_compare.py, DIR/results.json',
    )
    parser.add_argument(
        '--show-queries',
        type=int,
        default=200,
        help='most queries on that page; default: 200',
    )


def add_results_page(cfg: Config, args: argparse.Namespace) -> None:
    """Add the hook of ``--show-dir``, written by write_results_pages."""
    if args.show_dir is None:
        return
    hook = dict(
        type='ResultsPageHook',
        out_dir=args.show_dir,
        num_queries=args.show_queries,
        deferred=True,
    )
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), hook]


def write_results_pages(runner: Runner) -> None:
    """Write the deferred pages at the end of a test."""
    for hook in runner.hooks:
        if isinstance(hook, ResultsPageHook) and hook.deferred:
            hook.write(runner)
