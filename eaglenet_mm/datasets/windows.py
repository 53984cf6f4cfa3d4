"""Reading videos in windows: parts of equal length that may overlap."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from mmcv.transforms import BaseTransform
from torch import Tensor

from eaglenet_mm.datasets.shared_records import inner_datasets
from eaglenet_mm.datasets.transforms.frame_sampling import SampleFrames
from eaglenet_mm.datasets.transforms.tokenizers import TokenizeCaptions
from eaglenet_mm.datasets.video_readers import VideoReader, VideoSamplingError

#: First second and end.
Span = tuple[float, float]

#: Frames a second, of which some are chosen, where a config takes every one.
_EVERY_FRAME = 30
_ROUNDING = 1e-6  # of seconds
#: Attributes of a dataset that a copy shares.
_SHARED = ('lost_videos', 'current_items')


def cut_windows(
    begin: float,
    end: float,
    length: float,
    *,
    stride: float | None = None,
    shown_from: float = 0.0,
) -> list[Span]:
    """Cut a clip into windows of equal length.

    A window begins every ``stride`` seconds. A rest of less than half a stride
    belongs to the last window; a longer one has a window of its own, which
    ends with the clip. What ends before ``shown_from`` is left out.

    Args:
        begin (float): First second of the clip.
        end (float): Its end.
        length (float): Seconds of a window; a shorter clip is one window.
        stride (float, optional): Seconds from one to the next, at most
            ``length``. Default: None, the length: no overlap.
        shown_from (float): When the first frame is shown. Default: 0.

    Returns:
        list[Span]: First second and end of each, at least one.

    Example:
        >>> cut_windows(0, 24, 10)
        [(0.0, 10.0), (10.0, 24.0)]
        >>> cut_windows(0, 4, 2, stride=1)
        [(0.0, 2.0), (1.0, 3.0), (2.0, 4.0)]
    """
    step = length if stride is None else stride
    rest = (end - begin - length) / step
    last = max(0, math.floor(rest + 0.5 + _ROUNDING))
    # a recording may begin at the time of day, in seconds since 1970
    first = math.floor((shown_from - begin - length) / step)
    numbers = range(min(max(0, first), last), last)
    if stride is None:  # to the last bit, so that neighbours do not overlap
        edges = [float(begin + step * x) for x in [*numbers, last]]
        spans = list(pairwise(edges))
    else:
        starts = [float(begin + step * x) for x in numbers]
        spans = [(x, x + length) for x in starts]
    kept = [x for x in spans if x[1] > shown_from]
    return [*kept, (float(begin + step * last), float(end))]


def check_windows(lengths: Sequence[float], overlap: float) -> None:
    """Refuse lengths and overlaps that make no windows."""
    if not lengths or not all(0 < x < math.inf for x in lengths):
        raise ValueError(
            "'segment' must be a length of windows in seconds, above 0, or "
            f'several, but got {list(lengths)}.'
        )
    if not 0 <= overlap < 1:
        raise ValueError(
            "'overlap' is the share of a window that the next one repeats, "
            f'from 0 to below 1 (such as 0.5), but got {overlap}.'
        )


class SampleWindows(BaseTransform):
    """Sample the frames of all windows of a video, to decode it once.

    Takes the place of :class:`SampleFrames`, which it asks for each window, by
    the clock, as an index in segments does. ``frame_indices`` are all frames
    that some window needs, each once; ``windows`` (list) says of each window
    its first second, its end and the places of its frames among them.

    Args:
        sampler (SampleFrames): Of the frames of a video.
        lengths (Sequence[float]): Seconds of a window. With several, there
            are windows of each, which all begin at multiples of the stride
            of the shortest.
        overlap (float): Share of the shortest window that the next repeats,
            in [0, 1). Default: 0.

    Raises:
        ValueError: If there is no length, or an argument is out of range.

    Example:
        >>> SampleWindows(SampleFrames(num_frames=4), [2.0], overlap=0.5)
        SampleWindows([2.0], overlap=0.5)
    """

    def __init__(
        self,
        sampler: SampleFrames,
        lengths: Sequence[float],
        *,
        overlap: float = 0.0,
    ) -> None:
        check_windows(lengths, overlap)
        self.sampler = by_the_clock(sampler)
        self.lengths = list(lengths)
        self.overlap = overlap

    def spans(self, begin: float, end: float, shown_from: float) -> list[Span]:
        """Cut a clip; equal windows of several lengths count once."""
        # without overlap as an index cuts, to the last bit
        plain = len(self.lengths) == 1 and not self.overlap
        stride = None if plain else min(self.lengths) * (1 - self.overlap)
        cut = [
            cut_windows(begin, end, x, stride=stride, shown_from=shown_from)
            for x in self.lengths
        ]
        return list(dict.fromkeys(span for own in cut for span in own))

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Sample the frames of all windows of an item.

        Raises:
            VideoSamplingError: If no window shows a frame.
        """
        reader: VideoReader = results['video_reader']
        timeline = reader.timeline
        begin, end = results.get('start') or 0.0, results.get('end')
        end = timeline.duration if end is None else min(end, timeline.duration)
        found: list[tuple[float, float, list[int]]] = []
        for start, stop in self.spans(begin, end, timeline.begin):
            item = {**results, 'start': start, 'end': stop}
            try:
                chosen = self.sampler.transform(item)['frame_indices']
            except VideoSamplingError:
                continue
            found.append((start, stop, chosen))
        numbers = sorted({x for _, _, chosen in found for x in chosen})
        if not numbers:
            raise VideoSamplingError(
                f"Video '{results.get('video_id')}' ({reader.path}): no frame "
                f'is shown between {begin:g} and {end:g} seconds. Correct '
                "'start' and 'end' in the annotation, or leave it out."
            )
        places = {number: place for place, number in enumerate(numbers)}
        results['frame_indices'] = numbers
        # the same list, if the video turns out to be shorter: DecodeFrames
        # samples it again from a copy of the results
        results.setdefault('windows', [])[:] = [
            (start, stop, [places[number] for number in chosen])
            for start, stop, chosen in found
        ]
        results['frame_sampler'] = self
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.lengths}, overlap={self.overlap})'


def by_the_clock(transform: Any) -> Any:
    """Make a transform choose frames by the clock, if it chooses any."""
    if not isinstance(transform, SampleFrames) or transform.mode == 'clean':
        return transform
    transform = copy.copy(transform)
    transform.mode = 'clean'
    transform.fps = transform.fps or _EVERY_FRAME
    return transform


def read_in_windows(
    dataset: Any, lengths: Sequence[float], overlap: float
) -> Any:
    """Copy a dataset, to read each video in windows; texts are left out.

    A sample of the copy has ``windows`` as :class:`SampleWindows` says, and
    its frames are those of all windows. Frame caches, which hold the frames of
    whole videos, are not used.

    Raises:
        TypeError: If a dataset does not choose frames by one
            :class:`SampleFrames`.
    """
    check_windows(lengths, overlap)
    shared: dict[int, Any] = {}
    for inner in inner_datasets(dataset):
        transforms = _transforms(inner)
        count = sum(isinstance(x, SampleFrames) for x in transforms)
        if count != 1:
            raise TypeError(
                'To measure moments, videos are read in windows, for which '
                'the pipeline of a data set must have one SampleFrames, but '
                f'that of {type(inner).__name__} has {count}. Add it, or '
                'leave MomentMetric out.'
            )
        # tokenizers are large, and transforms do not change; which videos
        # are lost, or being read by a worker, is known to both
        known = [getattr(inner, x, None) for x in _SHARED]
        shared.update({id(x): x for x in (*transforms, *known)})
    copied = copy.deepcopy(dataset, shared)
    for inner in inner_datasets(copied):
        transforms = _transforms(inner)
        transforms[:] = [
            SampleWindows(x, lengths, overlap=overlap)
            if isinstance(x, SampleFrames)
            else x
            for x in transforms
            if not isinstance(x, TokenizeCaptions)
        ]
        if getattr(inner, 'frame_cache', None) is not None:
            inner.frame_cache = None
    return copied


def _transforms(dataset: Any) -> list[Callable]:
    """Transforms of MMEngine's ``Compose``; none of another pipeline."""
    pipeline = getattr(dataset, 'pipeline', None)
    return getattr(pipeline, 'transforms', [])


def pad_times(
    times: Sequence[Sequence[float]], num_steps: int, num_frames: int
) -> Tensor:
    """Put times of the frames read into one tensor, NaN where padded.

    An encoder that makes fewer steps than it takes frames gets their mean
    times; seconds, float32, ``(n, num_steps)``.
    """
    padded = torch.full((len(times), num_frames), float('nan'))
    for row, own in zip(padded, times, strict=True):
        row[: len(own)] = torch.tensor(own, dtype=torch.float32)[:num_frames]
    if num_steps == num_frames:
        return padded
    edges = [step * num_frames // num_steps for step in range(num_steps + 1)]
    return torch.stack(
        [
            padded[:, start : max(end, start + 1)].nanmean(dim=1)
            for start, end in pairwise(edges)
        ],
        dim=1,
    )
