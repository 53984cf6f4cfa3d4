"""Report of skipped videos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from eaglenet_mm.datasets.shared_records import recording_datasets
from eaglenet_mm.registry import HOOKS
from eaglenet_mm.utils.durable_file import write_text_durably


@HOOKS.register_module()
class LostVideosHook(Hook):
    """Report the videos skipped under ``on_missing='skip'``.

    Items for which the pipeline of a foreign dataset inside our wrappers
    returned None are counted too.

    After training and after each evaluation, one line gives the number of
    videos that any process failed to read and names the first few;
    ``lost_videos_train.json`` (``_val``, ``_test``) in the log folder lists
    all of them. Nothing is logged if no video was lost.

    Args:
        num_named (int): Maximum number of videos named in the line.
            Default: 10.

    Example:
        >>> custom_hooks = [dict(type='LostVideosHook', num_named=3)]
    """

    def __init__(self, num_named: int = 10) -> None:
        self.num_named = num_named

    def after_train(self, runner: Runner) -> None:
        """Report the training set."""
        self._report(runner, 'train', runner.train_dataloader)

    def after_val(self, runner: Runner) -> None:
        """Report the validation set."""
        self._report(runner, 'val', runner.val_dataloader)

    def after_test(self, runner: Runner) -> None:
        """Report the test set."""
        self._report(runner, 'test', runner.test_dataloader)

    def _report(self, runner: Runner, stage: str, loader: Any) -> None:
        """Collect the lost videos of all processes, log and write them."""
        total, lost = 0, {}
        for dataset in recording_datasets(loader.dataset):
            total += len(dataset)
            own = dataset.lost_videos.indices()
            for index in sorted(set().union(*all_gather_object(own))):
                item = dataset.get_data_info(index)
                lost[item['video_id']] = item['video']
        if not lost or not is_main_process():
            return
        path = Path(runner.log_dir) / f'lost_videos_{stage}.json'
        write_text_durably(
            path, json.dumps(lost, indent=1, ensure_ascii=False) + '\n'
        )
        named = [
            f"'{video_id}' ({video})"
            for video_id, video in list(lost.items())[: self.num_named]
        ]
        more = ', ...' if len(lost) > self.num_named else ''
        runner.logger.warning(
            f'{len(lost)} of {total} videos ({stage}) were skipped: '
            f'{", ".join(named)}{more}. All are listed in {path}.'
        )
