"""Pictures of a few queries during training."""

from __future__ import annotations

from typing import Any

from mmengine.runner import EpochBasedTrainLoop, Runner

from eaglenet_mm.engine.hooks.kept_results_hook import KeptResultsHook
from eaglenet_mm.evaluation.functional import text_to_video_ranks
from eaglenet_mm.registry import HOOKS
from eaglenet_mm.visualization.frame_strips import shown_frames
from eaglenet_mm.visualization.rank_pictures import (
    Answer,
    Answers,
    draw_answers,
    draw_ranks,
)
from eaglenet_mm.visualization.rankings import (
    first_videos,
    ranks_of_all,
    spread_evenly,
)
from eaglenet_mm.visualization.set_catalogue import SetCatalogue


@HOOKS.register_module()
class RetrievalVisualizationHook(KeptResultsHook):
    """Add two pictures to the visualizer after validations.

    ``retrieval_queries``: captions spread evenly over the set, always the
    same, with frames of their top videos; the right one in green, those above
    it in red. ``retrieval_ranks``: the histogram of text-to-video ranks. They
    go through ``runner.visualizer``, so every backend of MMEngine shows them:
    TensorBoard, WandB, or files in ``vis_data/vis_image``. Metrics are not
    affected.

    Args:
        interval (int): Draw after every this many validations. Default: 1.
        num_queries (int): Number of captions. Default: 6.
        num_videos (int): Number of videos for each caption. Default: 5.

    Raises:
        ValueError: If an option is not positive.

    Note:
        The main process reads at most ``num_queries * num_videos`` videos
        while the other processes wait at their next synchronisation.

    Example:
        >>> custom_hooks = [
        ...     dict(type='RetrievalVisualizationHook', interval=5)]
    """

    def __init__(
        self, interval: int = 1, num_queries: int = 6, num_videos: int = 5
    ) -> None:
        options = dict(
            interval=interval, num_queries=num_queries, num_videos=num_videos
        )
        for name, value in options.items():
            if value < 1:
                raise ValueError(
                    f"'{name}' must be at least 1, but got {value}."
                )
        self.interval = interval
        self.num_queries = num_queries
        self.num_videos = num_videos
        self._validations = 0
        super().__init__()

    def before_val(self, runner: Runner) -> None:
        """Keep the scores of a validation that will be shown.

        Raises:
            TypeError: If results of this loop or dataset cannot be shown.
        """
        self.check(runner.val_loop, 'RetrievalValLoop')
        self._validations += 1
        if self._validations % self.interval == 0:
            self.keep(runner.val_evaluator)

    def after_val(self, runner: Runner) -> None:
        """Draw the pictures on the main process."""
        kept, evaluation, _ = self.take()
        if kept is None or kept.scores is None or kept.right is None:
            return  # not due, or not the main process
        by_epoch = isinstance(runner._train_loop, EpochBasedTrainLoop)
        step = runner.epoch if by_epoch else runner.iter
        result = text_to_video_ranks(kept.scores, kept.right)
        ranks = ranks_of_all(result, len(kept.scores))
        catalogue = SetCatalogue(runner.val_dataloader.dataset)
        answers = self._answers(evaluation, kept, ranks, catalogue)
        runner.visualizer.add_image(
            'retrieval_queries', draw_answers(answers), step=step
        )
        found = 100 * float((result.ranks == 1).double().mean())
        title = f'ranks of {len(result.ranks)} captions, R@1 {found:.2f}'
        runner.visualizer.add_image(
            'retrieval_ranks',
            draw_ranks(result.ranks.tolist(), title),
            step=step,
        )

    def _answers(
        self,
        evaluation: Any,
        kept: Any,
        ranks: Any,
        catalogue: SetCatalogue,
    ) -> list[Answers]:
        """List the captions and their top videos, with frames."""
        rows = spread_evenly(len(ranks), self.num_queries)
        columns, scores = first_videos(
            kept.scores, kept.right, ranks, self.num_videos
        )
        columns, scores = columns[rows], scores[rows]
        right = kept.right_videos(rows)
        captions = catalogue.captions(
            [evaluation.caption_indices[row] for row in rows]
        )
        frames: dict[int, Any] = {}
        for column in sorted(set(columns.flatten().tolist())):
            frames[column], _, _ = shown_frames(
                catalogue,
                evaluation.video_indices[column],
                evaluation.num_frames,
            )
        answers = []
        for place, (row, caption) in enumerate(
            zip(rows, captions, strict=True)
        ):
            first = [
                Answer(
                    str(evaluation.video_ids[column]),
                    score,
                    column in right[place],
                    frames[column],
                )
                for column, score in zip(
                    columns[place].tolist(),
                    scores[place].tolist(),
                    strict=True,
                )
            ]
            answers.append(Answers(caption, int(ranks[row]), first))
        return answers
