"""Windows of the videos of an evaluation, encoded and scored for captions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from mmengine.dist import all_gather_object
from torch import Tensor
from torch.utils.data import DataLoader

from eaglenet_mm.datasets.windows import pad_times, read_in_windows
from eaglenet_mm.engine.loops.video_features import (
    VideoBatches,
    gather_videos,
)
from eaglenet_mm.evaluation import MomentMetric
from eaglenet_mm.models.heads import BasePairHead
from eaglenet_mm.models.heads.base_pair_head import frame_cosines
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from eaglenet_mm.utils.progress import Progress

#: Number of the part and index of a video within it.
Key = tuple[int, int]


@dataclass
class _ReadWindow:
    """A window that was read: of which video, when, and its frames' times."""

    video: Key
    start: float
    end: float
    times: list[float]


class MomentWindows:
    """All windows of the videos, sorted by video and time.

    Args:
        features (VideoFeatures): Of the windows.
        columns (Tensor): Column of each one's video, ascending, ``(W,)``.
        spans (Tensor): First second and end, float64, ``(W, 2)``.
        times (Tensor): Seconds at which the frames are shown, NaN where there
            are none, ``(W, F)``.
        all_pairs (bool): Whether captions are scored with the windows of all
            videos.
    """

    def __init__(
        self,
        features: VideoFeatures,
        columns: Tensor,
        spans: Tensor,
        times: Tensor,
        *,
        all_pairs: bool,
    ) -> None:
        self.features = features
        self.columns = columns
        self.spans = spans
        self.times = times
        self.all_pairs = all_pairs

    def announcement(self) -> dict[str, Tensor]:
        """What :class:`MomentMetric` must know of them."""
        return dict(columns=self.columns, spans=self.spans)

    def scorer(
        self, head: BasePairHead
    ) -> Callable[[Sequence[int], TextFeatures], list[dict[str, Tensor]]]:
        """Make a function that scores captions, prepared once.

        It takes the column of each caption's video (-1 for none) and their
        features. It returns for each caption ``window_scores``, of the windows
        of its video or of all, and ``best_times``, the second of the nearest
        frame of each window of its video; nothing without such a window.
        """
        if getattr(head, 'needs_own_captions', False):
            raise ValueError(
                f'{type(head).__name__} as configured scores a video with the '
                'help of its own caption, which a window does not have. Set '
                "evaluation='pairwise' of the head, or leave MomentMetric out."
            )
        state = head.prepare_video(self.features)

        def score(
            columns: Sequence[int], text: TextFeatures
        ) -> list[dict[str, Tensor]]:
            found: list[dict[str, Tensor]] = [{} for _ in columns]
            prepared = head.prepare_text(text)
            scores = None
            if self.all_pairs:
                scores = head.score_chunked(prepared, state).cpu()  # (n, W)
            for column in sorted(set(columns)):
                first, last = self._range(column)
                if first == last:
                    continue
                own = slice(first, last)
                rows = [n for n, x in enumerate(columns) if x == column]
                places = torch.tensor(rows, device=text.embeds.device)
                windows = self.features.index_select(own)
                nearest = self._nearest(
                    text.index_select(places), windows, self.times[own]
                )
                values = (
                    scores[rows]
                    if scores is not None
                    else head.score_chunked(
                        prepared.index_select(places), state.index_select(own)
                    ).cpu()
                )
                for row, value, time in zip(
                    rows, values, nearest, strict=True
                ):
                    # pickling a view would pickle its whole block
                    found[row] = dict(
                        window_scores=value.clone(), best_times=time.clone()
                    )
            return found

        return score

    def _range(self, column: int) -> tuple[int, int]:
        """First window of a video, and one past its last."""
        edges = torch.tensor([column, column + 1])
        first, last = torch.searchsorted(self.columns, edges).tolist()
        return first, last

    @staticmethod
    def _nearest(
        text: TextFeatures, windows: VideoFeatures, times: Tensor
    ) -> Tensor:
        """Second of each window's frame nearest to each text, ``(n, W)``."""
        cosines = frame_cosines(text, windows).cpu()  # (n, W, F)
        cosines = cosines.masked_fill(times.isnan(), -torch.inf)
        best = cosines.argmax(dim=-1, keepdim=True)
        return times.expand_as(cosines).gather(-1, best)[..., 0]


@torch.no_grad()
def encode_windows(
    model: Any,
    dataloader: DataLoader,
    metric: MomentMetric,
    columns: dict[Key, int],
    *,
    fp16: bool = False,
    video_batch: int = 1,
) -> MomentWindows:
    """Read and encode the windows of all videos, on all processes.

    Args:
        model (TextVideoRetriever): Unwrapped.
        dataloader (DataLoader): Of :func:`window_loader`.
        metric (MomentMetric): Says whether all pairs are scored.
        columns (dict[Key, int]): Column of each video.
        fp16 (bool): Encode under autocast. Default: False.
        video_batch (int): Windows in one encoder call. Default: 1.
    """
    encoder = VideoBatches(model, fp16=fp16, size=video_batch)
    own: list[_ReadWindow] = []
    known: set[Key] = set()
    progress = Progress('videos in windows', len(dataloader))
    for batch in dataloader:
        for frames, sample in zip(
            batch['inputs']['frames'], batch['data_samples'], strict=True
        ):
            video = (sample.get('part', 0), sample.video_index)
            if video in known:  # repeated by the sampler, or for a lost one
                continue
            known.add(video)
            for start, end, places in sample.windows:
                one = [dict(inputs=dict(frames=frames[places]))]
                data = model.data_preprocessor(pseudo_collate(one), False)
                encoder.add(
                    data['inputs']['pixels'][0],
                    data['inputs']['frame_mask'][0],
                )
                # a frame on display at the start counts as shown from then
                times = [
                    max(sample.frame_times[place], start) for place in places
                ]
                own.append(_ReadWindow(video, start, end, times))
        progress.update(1)
    progress.close()
    features = gather_videos(
        encoder.finish(), torch.device(model.data_preprocessor.device)
    )
    windows = [x for part in all_gather_object(own) for x in part]
    # several processes may have read a video
    places = {
        (columns[x.video], x.start, x.end): place
        for place, x in reversed(list(enumerate(windows)))
        if x.video in columns
    }
    order = [places[key] for key in sorted(places)]
    steps = features.frames.shape[1]
    taken = getattr(
        getattr(model, 'video_encoder', None), 'num_input_frames', None
    )
    chosen = torch.tensor(order, device=features.frames.device)
    return MomentWindows(
        features.index_select(chosen),
        torch.tensor([columns[windows[x].video] for x in order]),
        torch.tensor(
            [(windows[x].start, windows[x].end) for x in order],
            dtype=torch.float64,
        ),
        pad_times([windows[x].times for x in order], steps, taken or steps),
        all_pairs=metric.corpus,
    )


def window_loader(dataloader: DataLoader, metric: MomentMetric) -> DataLoader:
    """Make a loader of the same videos, read in windows, one at a time.

    Raises:
        TypeError: If the dataset cannot be read in windows.
        ValueError: If none of its captions has moments.
    """
    dataset: Any = dataloader.dataset
    read = getattr(dataset, 'get_data_info', None)
    if callable(read) and not any(
        any(read(place).get('moments') or ()) for place in range(len(dataset))
    ):
        raise ValueError(
            'MomentMetric measures found moments, but no caption of '
            f"{type(dataset).__name__} has any: records need 'moments' (see "
            'docs/own_data.md), and ParagraphDataset drops them. Add them, or '
            'leave MomentMetric (--moments) out.'
        )
    return DataLoader(
        read_in_windows(dataset, metric.lengths, metric.overlap),
        batch_size=1,
        sampler=dataloader.sampler,
        num_workers=dataloader.num_workers,
        collate_fn=pseudo_collate,
        worker_init_fn=dataloader.worker_init_fn,
        multiprocessing_context=dataloader.multiprocessing_context,
        timeout=dataloader.timeout,
    )
