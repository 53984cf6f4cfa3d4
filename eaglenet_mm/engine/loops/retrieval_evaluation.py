"""Evaluation loops: encode each side once, gather, score, measure."""

from __future__ import annotations

import copy
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.evaluator import DumpResults, Evaluator
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner, TestLoop, ValLoop
from mmengine.runner.amp import autocast
from mmengine.structures import BaseDataElement
from torch import Tensor
from torch.utils.data import DataLoader

from eaglenet_mm.datasets.joined_parts import (
    Part,
    joined_metainfo,
    mark_parts,
)
from eaglenet_mm.engine.loops.moment_windows import (
    MomentWindows,
    encode_windows,
    window_loader,
)
from eaglenet_mm.engine.loops.two_stage import (
    SHORTLIST_BLOCK,
    TwoStageScorer,
)
from eaglenet_mm.engine.loops.video_features import (
    VideoBatches,
    gather_rows,
    gather_videos,
)
from eaglenet_mm.evaluation import KeptScores, MomentMetric
from eaglenet_mm.models.heads import BasePairHead
from eaglenet_mm.models.precision import at_least_float32
from eaglenet_mm.registry import LOOPS
from eaglenet_mm.structures import (
    RetrievalDataSample,
    TextFeatures,
    VideoFeatures,
)
from eaglenet_mm.utils.progress import Progress

Key = tuple[int, int]  # number of the part, index within it
#: Key, id and file of a video. The file is (path, start, end), where custom
#: datasets may have another object for the path, or None if unknown.
FoundVideo = tuple[Key, str, tuple | None]
#: Key of a caption, index of its own video, and ids of its right videos
#: (None: only its own).
FoundCaption = tuple[Key, int, tuple[str, ...] | None]
#: Key of a caption, index of its own video, and its moments in seconds.
FoundMoments = tuple[Key, int, list[list[float]]]
#: Rows of the score matrix with the features of their captions.
Blocks = Iterable[tuple[range, TextFeatures]]

#: Captions in one encoder call, and in one scoring call without shortlist.
#: Not an option, because the size of a product can change its last bits, and
#: no option may change a score.
TEXT_BLOCK = 64


#: Ends of keys that are not repeated over noise seeds.
_NOT_OF_NOISE = (
    *('ties', '_low', '_high', 'unanswerable'),
    *('_chance', '_ceiling', 'captions', 'windows'),
)


class _RetrievalLoop(BaseLoop):
    """Common base of the validation and the test loop."""

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        evaluator: Evaluator | dict | list,
        fp16: bool = False,
        *,
        noise_seeds: int = 0,
        video_batch: int = 1,
        shortlist: int = 0,
    ) -> None:
        if noise_seeds < 0 or noise_seeds == 1:
            raise ValueError(
                "'noise_seeds' must be 0 (off) or at least 2, to have a "
                f'spread, but got {noise_seeds}.'
            )
        if video_batch < 1:
            raise ValueError(
                f"'video_batch' must be at least 1, but got {video_batch}."
            )
        if shortlist < 0:
            raise ValueError(
                "'shortlist' must be 0 (off, all pairs are scored) or a "
                f'number of videos, but got {shortlist}.'
            )
        self.noise_seeds = noise_seeds
        self.video_batch = video_batch
        self.shortlist = shortlist
        # MMEngine's loop of this stage builds the evaluator
        super().__init__(runner, dataloader, evaluator, fp16=fp16)
        self.evaluator: Evaluator
        self.fp16: bool
        # part of the names of the hooks to call
        self.stage = 'test' if isinstance(self, TestLoop) else 'val'
        measuring = [
            metric
            for metric in self.evaluator.metrics
            if isinstance(metric, MomentMetric)
        ]
        if len(measuring) > 1:
            raise ValueError(
                f'An evaluation takes one MomentMetric, but got '
                f'{len(measuring)}. Evaluate once for each.'
            )
        self.moment_metric = measuring[0] if measuring else None
        self.parts = mark_parts(self.dataloader.dataset)
        if self.parts:  # MMEngine takes that of the first part
            self.evaluator.dataset_meta = joined_metainfo(self.parts)

    def run(self) -> dict[str, float]:
        """Evaluate the whole set: encode, gather, score, measure.

        Returns:
            dict[str, float]: The metrics, the same on every process.
        """
        call_hook, stage = self.runner.call_hook, self.stage
        call_hook(f'before_{stage}')
        call_hook(f'before_{stage}_epoch')
        self.runner.model.eval()
        model: Any = self.runner.model
        if is_model_wrapper(model):
            model = model.module
        with torch.no_grad():
            # an item is at most one video, so fail now, not after hours
            check_shortlist(self.shortlist, len(self.dataloader.dataset))
            in_windows = None
            if self.moment_metric is not None:
                in_windows = window_loader(self.dataloader, self.moment_metric)
            evaluation = RetrievalEvaluation(
                model,
                fp16=self.fp16,
                video_batch=self.video_batch,
                shortlist=self.shortlist,
                parts=self.parts,
            )
            progress = Progress('video batches', len(self.dataloader))
            for index, batch in enumerate(self.dataloader):
                at = dict(batch_idx=index, data_batch=batch)
                call_hook(f'before_{stage}_iter', **at)
                samples = evaluation.add_batch(batch)
                call_hook(f'after_{stage}_iter', **at, outputs=samples)
                progress.update(1)
            progress.close()
            evaluation.gather()
            if self.moment_metric is not None and in_windows is not None:
                evaluation.windows = encode_windows(
                    model,
                    in_windows,
                    self.moment_metric,
                    evaluation.order.column_of,
                    fp16=self.fp16,
                    video_batch=self.video_batch,
                )
            blocks: Blocks = evaluation.encode_texts()
            if self.noise_seeds:
                blocks = list(blocks)  # encoded once, scored several times
            metrics = _measure(evaluation, model.head, blocks, self.evaluator)
            if self.noise_seeds:
                metrics.update(self._repeat(evaluation, model.head, blocks))
            # unknown to MMEngine: called only on hooks that define it
            call_hook(
                'after_scoring',
                evaluation=evaluation,
                evaluator=self.evaluator,
                metrics=metrics,
            )
        call_hook(f'after_{stage}_epoch', metrics=metrics)
        call_hook(f'after_{stage}')
        return metrics

    def _repeat(
        self,
        evaluation: RetrievalEvaluation,
        head: BasePairHead,
        blocks: Blocks,
    ) -> dict[str, float]:
        """Measure under several noise seeds of the head."""
        # a copy, to keep the checkpoint's own noise
        head = copy.deepcopy(head)
        # dumps and pictures show the checkpoint's own noise
        evaluator = Evaluator(
            [
                metric
                for metric in self.evaluator.metrics
                if not isinstance(metric, DumpResults | KeptScores)
            ]
        )
        evaluator.dataset_meta = self.evaluator.dataset_meta
        runs = []
        for seed in range(self.noise_seeds):
            head.reseed(seed)
            runs.append(_measure(evaluation, head, blocks, evaluator))
        result: dict[str, float] = {}
        for key in runs[0]:
            if key.endswith(_NOT_OF_NOISE):
                continue
            values = [run[key] for run in runs]
            mean, spread = statistics.fmean(values), statistics.stdev(values)
            result[f'{key}_mean'], result[f'{key}_std'] = mean, spread
            if key.split('/')[-1] == 'R1' or 'Rsum' in key:
                print_log(
                    f'{key} over {len(runs)} noise seeds: mean {mean:.2f}, '
                    f'standard deviation {spread:.2f}',
                    logger='current',
                )
        return result


def _measure(
    evaluation: RetrievalEvaluation,
    head: BasePairHead,
    blocks: Blocks,
    evaluator: Evaluator,
) -> dict[str, float]:
    """Score with a head and evaluate the rows."""
    num_captions = len(evaluation.caption_indices)
    announcement = evaluation.announcement(head)
    progress = Progress('captions', num_captions)
    for rows in evaluation.score(head, blocks):
        evaluator.process(data_samples=rows, data_batch=announcement)
        progress.update(len(rows))
    progress.close()
    return evaluator.evaluate(num_captions)


@LOOPS.register_module()
class RetrievalValLoop(_RetrievalLoop, ValLoop):
    """Validation loop; see :class:`RetrievalTestLoop`.

    Example:
        >>> val_cfg = dict(type='RetrievalValLoop', fp16=True)
    """


@LOOPS.register_module()
class RetrievalTestLoop(_RetrievalLoop, TestLoop):
    """Test loop that encodes each side once, scores all pairs and ranks.

    Dataset items are videos with all their captions. Every process encodes
    the videos of its sampler; features are gathered by id, which drops the
    duplicates of the sampler; captions are encoded and scored in fixed blocks
    of the canonical order, dealt out over the processes. Hooks are called as
    in MMEngine's loops; those with an ``after_scoring(runner, evaluation,
    evaluator, metrics)`` get the features as well.

    Items with the same index and id are duplicates. Joined datasets
    (``ConcatDataset``, also nested and under ``RepeatDataset``) form one
    gallery, in which the indices of a part continue those of the part before;
    a video with the same id and file in several parts is one candidate for
    the captions of all of them. Metrics of each part are added as
    ``parts/<name>/t2v/R1`` and so on, where the name is the part's
    ``dataset``, plus split, protocol or a number if names would clash.

    Differs from the release, which decodes a video once for each caption and
    whose scores depend on batch size and chunk order.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader or dict): Videos with their captions.
        evaluator (Evaluator or dict or list): Takes score rows, see
            :class:`~eaglenet_mm.evaluation.RetrievalRankMetric`; MMEngine's
            ``DumpResults`` writes them to a file.
        fp16 (bool): Encode under autocast (bfloat16 on CPU). Scoring is always
            in float32. Default: False.
        noise_seeds (int): If K >= 2, evaluate K more times with
            ``head.reseed(0)`` to ``head.reseed(K - 1)`` and add
            ``t2v/R1_mean``, ``t2v/R1_std`` (sample standard deviation) and so
            on; the plain keys keep the checkpoint's own noise. Default: 0,
            off.
        video_batch (int): Videos in one encoder call. With 1, features of a
            video are bitwise independent of the dataloader's batch size and
            the number of processes. Larger values are faster on a GPU. Every
            call still has the same shape, but the videos that share a call
            depend on the batch order, and bitwise equality on the kernels.
            Default: 1.
        shortlist (int): If k >= 1, evaluate in two stages: shortlist k videos
            for every caption by a cheap score in float32 (lower columns win
            ties), and score only these pairs with the head. The cheap score is
            the inner product of the head's ``shortlist_text`` and
            ``shortlist_video``, by default the cosine of the text and the mean
            frame. All other pairs rank behind every shortlisted pair of the
            whole matrix, in the order of the cheap score (see
            :func:`~eaglenet_mm.evaluation.functional.off_shortlist_scores`),
            also in video-to-text, which reads the columns of the same matrix.
            The recall of the first stage is reported as
            ``t2v/shortlist_recall`` and ``v2t/shortlist_recall``. Shortlisted
            scores equal those of a full evaluation up to rounding, because
            products have other shapes; bitwise if k is the number of videos.
            Default: 0, off.

    Raises:
        ValueError: If an option is out of range, features are not finite, or
            a shortlist is longer than the gallery.

    Note:
        Every process holds the features of all videos and the token ids of
        all captions; scores exist in blocks of 64 captions (two-stage: 512,
        on a GPU 2048) until they reach the evaluator.

        If a process dies or raises during an evaluation, the others end with
        an error: immediately under gloo; under NCCL when the launcher notices
        or the process group times out (``env_cfg.dist_cfg.timeout``, in
        seconds).

    Example:
        >>> test_cfg = dict(type='RetrievalTestLoop', shortlist=50)
    """


class RetrievalEvaluation:
    """State of one pass over an evaluation set.

    Call :meth:`add_batch` for every batch of the dataloader, then
    :meth:`gather`, :meth:`encode_texts` and :meth:`score`. ``model`` must be
    unwrapped; for the options see ``RetrievalTestLoop``; ``parts`` are those
    of a joined dataset. :meth:`gather` sets the attributes.

    Attributes:
        videos (VideoFeatures): Features of all videos.
        video_indices (list[int]): Canonical ids of the videos, ascending: the
            columns. In a joined dataset, the ids of a part continue those of
            the part before.
        caption_indices (list[int]): Canonical ids of the captions: the rows.
        video_ids (list[str]): Names of the videos.
        columns (list[int]): Column of each caption's own video, or of the
            first right one if its own is wrong; -1 if none is right.
        positives (list[list[int]], optional): Columns of all right videos of
            each caption, ascending; None if every caption has exactly one.
        num_frames (int): Frames of a video, including padding.
        windows (MomentWindows, optional): Windows of the videos, if moments
            are measured; set by the loop.
    """

    def __init__(
        self,
        model: Any,
        *,
        fp16: bool = False,
        video_batch: int = 1,
        shortlist: int = 0,
        parts: Sequence[Part] = (),
    ) -> None:
        self.model = model
        self.fp16 = fp16
        self.video_batch = video_batch
        self.shortlist = shortlist
        self.parts = parts
        self.device = torch.device(model.data_preprocessor.device)
        self.windows: MomentWindows | None = None
        self._found = Found()
        self._encoder = VideoBatches(model, fp16=fp16, size=video_batch)
        self._token_ids: list[Tensor] = []

    def add_batch(self, data_batch: dict) -> list[BaseDataElement]:
        """Encode the videos of a batch and keep its captions."""
        with autocast(enabled=self.fp16):
            data = self.model.data_preprocessor(data_batch, False)
            inputs, samples = data['inputs'], data['data_samples']
            counts = inputs['caption_counts'].tolist()
            starts = [0, *accumulate(counts)]
            for place, sample in enumerate(samples):
                captions = sample.caption_indices
                if len(captions) != counts[place]:
                    raise ValueError(
                        f"Video '{sample.video_id}' has "
                        f'{len(captions)} caption_indices, but '
                        f'{counts[place]} rows of token ids. The pipeline '
                        'must tokenise all captions of an item.'
                    )
                new_video, new_captions = self._found.add(sample)
                self._token_ids += [
                    inputs['token_ids'][starts[place] + offset]
                    for offset in new_captions
                ]
                if new_video:
                    self._encoder.add(
                        inputs['pixels'][place], inputs['frame_mask'][place]
                    )
        return samples

    def gather(self) -> None:
        """Join the videos and captions of all processes by canonical index."""
        # a wrapper around joined datasets may hide the parts from samples
        marked = any(all_gather_object(self._found.is_marked))
        videos, captions, moments = (
            [item for own in all_gather_object(found) for item in own]
            for found in (
                self._found.videos,
                self._found.captions,
                self._found.moments,
            )
        )
        order = CanonicalOrder(
            videos, captions, self.parts if marked else (), moments
        )
        check_shortlist(self.shortlist, len(order.videos))
        self.order = order
        self.video_indices, self.video_ids = order.videos, order.video_ids
        self.caption_indices = order.captions
        self.columns, self.positives = order.columns, order.positives
        encoded = self._encoder.finish()
        self.videos = gather_videos(encoded, self.device).index_select(
            torch.tensor(order.video_places, device=self.device)
        )
        check_videos(self.videos, self.video_ids)
        self.num_frames = self.videos.frames.shape[1]
        widths = sorted({len(row) for row in self._token_ids})
        if len(widths) > 1:
            raise ValueError(
                'All captions must have token rows of one length, but got '
                f'lengths {widths[:5]}. Pad to max_words in the pipeline.'
            )
        tokens = gather_rows(
            torch.stack(self._token_ids) if self._token_ids else None,
            self.device,
        )
        order.check_tokens(tokens)
        self.token_ids = tokens[
            torch.tensor(order.caption_places, device=self.device)
        ]

    def encode_texts(self) -> Iterator[tuple[range, TextFeatures]]:
        """Encode the captions of this process in blocks of rows.

        Block k in canonical order belongs to rank k modulo the number of
        processes; the blocks do not depend on that number.
        """
        total = len(self.caption_indices)
        size = TEXT_BLOCK
        if self._two_stage:
            size = SHORTLIST_BLOCK.get(
                self.device.type, SHORTLIST_BLOCK['cuda']
            )
        for start in range(size * get_rank(), total, size * get_world_size()):
            rows = range(start, min(start + size, total))
            yield rows, self.encode_captions(rows)

    def encode_captions(self, rows: Sequence[int]) -> TextFeatures:
        """Encode some captions, ``TEXT_BLOCK`` in each call."""
        parts = []
        for start in range(0, len(rows), TEXT_BLOCK):
            part = list(rows[start : start + TEXT_BLOCK])
            with autocast(enabled=self.fp16):
                text = self.model.encode_text(self.token_ids[part])
            text = text.map(at_least_float32)
            check_texts(text, [self.caption_indices[row] for row in part])
            parts.append(text)
        return TextFeatures.cat(parts)

    @property
    def _two_stage(self) -> bool:
        """Whether some pairs are not scored by the head."""
        return 0 < self.shortlist < len(self.video_indices)

    def announcement(self, head: BasePairHead) -> dict[str, Any]:
        """Facts on the whole set for :meth:`RetrievalRankMetric.process`."""
        found = {
            'num_captions': len(self.caption_indices),
            'num_videos': len(self.video_indices),
            'num_frames': self.num_frames,
            **self.order.announcement(),
        }
        if self.shortlist:
            found['shortlist'] = self.shortlist
            found['first_stage'] = head.first_stage
        if self.windows is not None:
            found['windows'] = self.windows.announcement()
        return found

    def score(
        self,
        head: BasePairHead,
        blocks: Blocks,
    ) -> Iterator[list[dict[str, Any]]]:
        """Score blocks of captions against all videos or their shortlists.

        Yields a row for each caption of a block: ``caption_index``;
        ``video_index``, ``video_id`` and ``column`` of its video (-1, '' and
        -1 if none is right); and ``scores`` on the CPU, shape ``(Bv,)``. If
        some caption does not have exactly one right video, rows also have
        ``positives``, the columns of all right ones; in a joined dataset,
        ``part``, the name of the part. If moments are measured, rows of
        captions with moments have what
        :meth:`~eaglenet_mm.evaluation.MomentMetric.process` takes.
        """
        score = (
            TwoStageScorer(head, self.videos, self.shortlist)
            if self._two_stage
            else self._all_pairs_scorer(head)
        )
        score_windows = None
        if self.windows is not None:
            score_windows = self.windows.scorer(head)
        for rows, text in blocks:
            scores = score(text).detach().cpu()
            found = [
                # pickling a view would pickle its whole block
                {**self.order.row(row), 'scores': values.clone()}
                for row, values in zip(rows, scores, strict=True)
            ]
            if score_windows is not None:
                columns, moments = zip(
                    *map(self.order.moments_of, rows), strict=True
                )
                for said, spans, column, more in zip(
                    found,
                    moments,
                    columns,
                    score_windows(columns, text),
                    strict=True,
                ):
                    if spans:
                        own = dict(moments=spans, moment_column=column)
                        said.update(own, **more)
            yield found

    def _all_pairs_scorer(
        self, head: BasePairHead
    ) -> Callable[[TextFeatures], Tensor]:
        """Make a scorer of captions against all videos, prepared once."""
        state = head.prepare_video(self.videos)
        if getattr(head, 'needs_own_captions', False):
            state = head.attach_captions(state, self._own_captions(head))
        return lambda text: head.score_chunked(head.prepare_text(text), state)

    def _own_captions(self, head: BasePairHead) -> TextFeatures:
        """Encode the one caption of each video, in the order of the videos."""
        columns, num_videos = self.columns, len(self.video_ids)
        if sorted(columns) != list(range(num_videos)):
            raise ValueError(
                f'{type(head).__name__} asks for the published protocol, '
                'which exists for one caption a video, but there are '
                f'{len(columns)} captions of {len(set(columns) - {-1})} of '
                f"the {num_videos} videos. Use evaluation='pairwise'."
            )
        texts = self.encode_captions(range(num_videos))
        order = torch.tensor(columns).argsort().to(texts.embeds.device)
        return texts.index_select(order)


class Found:
    """Videos and captions found by one process, in order of arrival."""

    def __init__(self) -> None:
        self.videos: list[FoundVideo] = []
        self.captions: list[FoundCaption] = []
        self.moments: list[FoundMoments] = []
        self.is_marked = False  # whether samples name their part
        self._known: set[tuple] = set()

    def add(self, sample: RetrievalDataSample) -> tuple[bool, list[int]]:
        """Register a video and its captions.

        Returns whether the video is new, and the positions of new captions.
        """
        part, index = sample.get('part', 0), sample.video_index
        self.is_marked = self.is_marked or 'part' in sample
        path = sample.get('video')
        file = None
        if path is not None:
            path = path if isinstance(path, str) else repr(path)
            file = (path, sample.get('start'), sample.get('end'))
        # including the file: joined sets may share ids by chance
        video = ((part, index), sample.video_id, file)
        new_video = self._is_new(video)
        if new_video:
            self.videos.append(video)
        captions = sample.caption_indices
        positives = sample.get('positives')
        if positives is not None and len(positives) != len(captions):
            raise ValueError(
                f"Video '{sample.video_id}' has positives of "
                f'{len(positives)} captions, but {len(captions)} '
                'caption_indices. A transform that removes captions must '
                'remove their positives as well.'
            )
        moments = sample.get('moments')
        if moments is not None and len(moments) != len(captions):
            raise ValueError(
                f"Video '{sample.video_id}' has moments of {len(moments)} "
                f'captions, but {len(captions)} caption_indices. A transform '
                'that removes captions must remove their moments as well.'
            )
        new_captions = []
        for place, caption in enumerate(captions):
            # two videos with one index are an error, not a duplicate
            if self._is_new((*video, caption)):
                right = None if positives is None else tuple(positives[place])
                self.captions.append(((part, caption), index, right))
                new_captions.append(place)
                if moments and moments[place]:
                    self.moments.append(
                        ((part, caption), index, moments[place])
                    )
        return new_video, new_captions

    def _is_new(self, item: tuple) -> bool:
        """Whether an item is new; it no longer is afterwards."""
        if item in self._known:
            return False
        self._known.add(item)
        return True


class CanonicalOrder:
    """Rows and columns of the score matrix, for any sampler."""

    def __init__(
        self,
        videos: Sequence[FoundVideo],
        captions: Sequence[FoundCaption],
        parts: Sequence[Part] = (),
        moments: Sequence[FoundMoments] = (),
    ) -> None:
        if not videos or not captions:
            raise ValueError(
                f'The evaluation set has {len(videos)} videos and '
                f'{len(captions)} captions; it needs at least one of each. '
                "Check the dataloader's ann_file."
            )
        self.parts = parts
        self._order_videos(videos)
        self._order_captions(captions)
        self._moments: dict[Key, tuple[int, list[list[float]]]] = {}
        for key, video, spans in moments:
            column = self.column_of[key[0], video]
            self._moments.setdefault(key, (column, spans))

    def _order_videos(self, videos: Sequence[FoundVideo]) -> None:
        """Sort the videos; the same video in two parts is one column."""
        keys, places = _first_places([key for key, _, _ in videos])
        known = dict(zip(keys, places, strict=True))
        for key, video_id, file in videos:
            _, one, other = videos[known[key]]
            if (one, other) != (video_id, file):
                names = [one, video_id]
                if one == video_id:  # only their files differ
                    names = [
                        str(x[0]) if x else 'of an unknown file'
                        for x in (other, file)
                    ]
                raise ValueError(
                    f"Videos '{names[0]}' and '{names[1]}' have the same "
                    f'video_index {key[1]}, so their captions would be mixed '
                    'up. Number the videos of a data set from 0, or join data '
                    'sets with ConcatDataset, which tells parts apart.'
                )
        bounds = self._bounds(keys, 0)
        # for each column: canonical id (ascending), name, first position
        self.videos: list[int] = []
        self.video_ids: list[str] = []
        self.video_places: list[int] = []
        self.column_of: dict[Key, int] = {}
        self._by_id: dict[tuple[int, str], list[int]] = defaultdict(list)
        first: dict[tuple, int] = {}
        for key, place in known.items():
            _, video_id, file = videos[place]
            column = len(self.videos)
            if file is not None:
                column = first.setdefault((video_id, file), column)
            if column == len(self.videos):
                self.videos.append(bounds[key[0]] + key[1])
                self.video_ids.append(video_id)
                self.video_places.append(place)
            self.column_of[key] = column
            if column not in self._by_id[key[0], video_id]:
                self._by_id[key[0], video_id].append(column)

    def _order_captions(self, captions: Sequence[FoundCaption]) -> None:
        """Sort the captions and find the columns of their right videos."""
        keys, self.caption_places = _first_places(
            [key for key, _, _ in captions]
        )
        bounds = self._bounds(keys, 1)
        # canonical id of each row, ascending
        self.captions = [bounds[part] + index for part, index in keys]
        self._keys = keys
        # for each caption: its videos, with the positives listed there
        stands: dict[Key, dict[int, tuple[str, ...] | None]] = {}
        self._copies: list[tuple[int, int]] = []
        places = dict(zip(keys, self.caption_places, strict=True))
        for place, (key, video, right) in enumerate(captions):
            own = stands.setdefault(key, {})
            if own and video not in own:
                self._copies.append((places[key], place))
            own.setdefault(video, right)
        self.columns, answers = [], []
        for key in keys:
            own = stands[key]
            found: set[int] = set()
            for video, right in own.items():
                if right is None:
                    found.add(self.column_of[key[0], video])
                else:
                    found.update(self._columns_of(key[0], right))
            home = self.column_of[key[0], min(own)]
            first = min(found, default=-1)
            self.columns.append(home if home in found else first)
            answers.append(sorted(found))
        single = all(len(found) == 1 for found in answers)
        self.positives = None if single else answers

    def _columns_of(
        self, part: int, video_ids: Iterable[str]
    ) -> Iterable[int]:
        """Find the columns of videos by id, skipping unknown ids."""
        for video_id in video_ids:
            columns = self._by_id.get((part, video_id), [])
            if len(columns) > 1:
                raise ValueError(
                    f"'positives' name '{video_id}', but {len(columns)} "
                    'videos have this video_id. Give every video of a data '
                    'set an id of its own.'
                )
            yield from columns

    def _bounds(self, keys: Sequence[Key], side: int) -> list[int]:
        """First canonical id of each part, of videos (0) or captions (1)."""
        used: dict[int, int] = {}
        for number, index in keys:
            used[number] = max(used.get(number, 0), index + 1)
        bounds = [0]
        for number, part in enumerate(self.parts):
            size = part.sizes()[side]
            most = used.get(number, 0)
            if size is not None and most > size:
                raise ValueError(
                    f"Part '{part.name}' of the joined set says that it has "
                    f'{size} {("videos", "captions")[side]}, but one has the '
                    f'index {most - 1}. Correct its metainfo.'
                )
            bounds.append(bounds[-1] + (most if size is None else size))
        return bounds

    def check_tokens(self, token_ids: Tensor) -> None:
        """Refuse one caption index for different sentences, ``(n, L)``."""
        if not self._copies:
            return
        one, other = torch.tensor(self._copies, device=token_ids.device).t()
        differ = (token_ids[one] != token_ids[other]).any(dim=1)
        if bool(differ.any()):
            row = self.caption_places.index(int(one[differ][0]))
            raise ValueError(
                f'Caption index {self.captions[row]} has different sentences '
                'in several videos. An index is one caption, which may fit '
                'several videos: number the captions of a data set from 0.'
            )

    def moments_of(self, row: int) -> tuple[int, list[list[float]]]:
        """Column of the video that a caption has moments in, and these.

        The column is -1 if it has none.
        """
        return self._moments.get(self._keys[row], (-1, []))

    def row(self, row: int) -> dict[str, Any]:
        """Describe a row; see :meth:`RetrievalEvaluation.score`."""
        column = self.columns[row]
        said: dict[str, Any] = {
            'caption_index': self.captions[row],
            'video_index': self.videos[column] if column >= 0 else -1,
            'video_id': self.video_ids[column] if column >= 0 else '',
            'column': column,
        }
        if self.positives is not None:
            said['positives'] = self.positives[row]
        if self.parts:
            said['part'] = self.parts[self._keys[row][0]].name
        return said

    def announcement(self) -> dict[str, Any]:
        """Describe the parts; see :meth:`RetrievalRankMetric.process`."""
        num_repeated = len(self.column_of) - len(self.videos)
        if not self.parts:
            return {'num_repeated': num_repeated} if num_repeated else {}
        parts, start = [], 0
        for number, part in enumerate(self.parts):
            stop = start + sum(part == number for part, _ in self._keys)
            columns = {
                column
                for (of_part, _), column in self.column_of.items()
                if of_part == number
            }
            parts.append(
                {
                    'name': part.name,
                    'metainfo': part.metainfo,
                    'rows': (start, stop),
                    'columns': sorted(columns),
                }
            )
            start = stop
        return {'parts': parts, 'num_repeated': num_repeated}


def _first_places(keys: Sequence[Key]) -> tuple[list[Key], list[int]]:
    """Sort the distinct keys; also give the first position of each."""
    first: dict[Key, int] = {}
    for place, key in enumerate(keys):
        first.setdefault(key, place)
    ordered = sorted(first)
    return ordered, [first[key] for key in ordered]


def check_shortlist(shortlist: int, num_videos: int) -> None:
    """Refuse a shortlist longer than the gallery."""
    if shortlist > num_videos:
        raise ValueError(
            f"'shortlist' is {shortlist}, but the evaluation set has "
            f'{num_videos} videos at most. Make it smaller, or set it to 0 '
            'to score all pairs.'
        )


def check_videos(videos: VideoFeatures, video_ids: Sequence[str]) -> None:
    """Refuse video features that are not finite, with the video ids."""
    for name in ('frames', 'patches'):
        values = getattr(videos, name)
        if values is None:
            continue
        finite = torch.isfinite(values).flatten(1).all(dim=1)  # (Bv,)
        broken = [video_ids[i] for i in torch.where(~finite)[0].tolist()]
        if broken:
            raise ValueError(
                f'Video features must be finite, but {len(broken)} of '
                f"{len(finite)} videos have a non-finite value in '{name}': "
                f'{broken[:5]}. Check the weights and these files.'
            )


def check_texts(text: TextFeatures, caption_indices: Sequence[int]) -> None:
    """Refuse text features that are not finite, with the captions."""
    finite = torch.isfinite(text.embeds).all(dim=1)  # (Bt,)
    broken = [caption_indices[i] for i in torch.where(~finite)[0].tolist()]
    if broken:
        raise ValueError(
            'Text features must be finite, but those of sentences '
            f'{broken[:5]} (in their order, from 0) are not; {len(broken)} of '
            f'{len(finite)} in this block. Check the weights.'
        )
