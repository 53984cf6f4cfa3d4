"""One evaluation: encode each side once, join by id, score in rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from itertools import accumulate
from typing import Any

import torch
from mmengine.dist import (
    all_gather,
    all_gather_object,
    get_rank,
    get_world_size,
)
from mmengine.runner.amp import autocast
from mmengine.structures import BaseDataElement
from torch import Tensor

from eaglenet_mm.datasets.joined_parts import Part
from eaglenet_mm.engine.loops.canonical_order import CanonicalOrder, Found
from eaglenet_mm.engine.loops.two_stage import (
    SHORTLIST_BLOCK,
    TwoStageScorer,
)
from eaglenet_mm.models.heads import BasePairHead
from eaglenet_mm.models.precision import at_least_float32
from eaglenet_mm.structures import TextFeatures, VideoFeatures

#: Captions encoded together, and scored together where all pairs are. No
#: option: the size of a product can change its last bits, and no option may
#: change a score.
TEXT_BLOCK = 64


class RetrievalEvaluation:
    """State of one pass over an evaluation set.

    Call :meth:`add_batch` for every batch of the dataloader, then
    :meth:`gather`, then :meth:`encode_texts` and :meth:`score`. ``model`` has
    no wrapper; options are those of ``RetrievalTestLoop``, and ``parts`` those
    of a joined set.

    Attributes:
        videos (VideoFeatures): After :meth:`gather`, of all videos.
        video_indices (list[int]): Likewise the canonical ids of the videos
            found, ascending: the columns. Of a joined set those of a part go
            on where the part before it ends.
        caption_indices (list[int]): Likewise of the captions: the rows.
        video_ids (list[str]): Likewise the names of the videos.
        columns (list[int]): Of each caption the video it stands with, or the
            first right one if that is none; -1 if there is no right one.
        positives (list[list[int]], optional): Of each caption all right
            videos, ascending; None if every caption has one.
        num_frames (int): Frames of a video, padding included.
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
        self._found = Found()
        self._pending: list[tuple[Tensor, Tensor]] = []  # pixels, mask
        self._encoded: list[VideoFeatures] = []
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
                    self._pending.append(
                        (inputs['pixels'][place], inputs['frame_mask'][place])
                    )
                    if len(self._pending) == self.video_batch:
                        self._encode_pending()
        return samples

    def _encode_pending(self) -> None:
        """Encode the waiting videos in one call of constant shape."""
        waiting, self._pending = self._pending, []
        padded = waiting + waiting[-1:] * (self.video_batch - len(waiting))
        pixels, masks = zip(*padded, strict=True)
        features = self.model.encode_video(
            torch.stack(pixels), torch.stack(masks)
        )
        own = features.index_select(slice(len(waiting)))
        self._encoded.append(own.map(at_least_float32))

    def gather(self) -> None:
        """Join the videos and captions of all processes, by id.

        Samplers deal items out in turn and may repeat some: order and
        duplicates are settled by the canonical indices alone.
        """
        if self._pending:
            with autocast(enabled=self.fp16):
                self._encode_pending()
        # a wrapper of ours or another's may read past the parts of a join
        marked = any(all_gather_object(self._found.is_marked))
        videos, captions = (
            [item for own in all_gather_object(found) for item in own]
            for found in (self._found.videos, self._found.captions)
        )
        order = CanonicalOrder(videos, captions, self.parts if marked else ())
        check_shortlist(self.shortlist, len(order.videos))
        self.order = order
        self.video_indices, self.video_ids = order.videos, order.video_ids
        self.caption_indices = order.captions
        self.columns, self.positives = order.columns, order.positives
        own = VideoFeatures.cat(self._encoded) if self._encoded else None
        self._encoded = []
        self.videos = _gather_videos(own, self.device).index_select(
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
        """Encode this process's captions: rows of the matrix and features.

        Block k, in canonical order, belongs to rank k modulo the number of
        processes, and is the same block whatever that number.
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
        """Encode some captions, ``TEXT_BLOCK`` of them in one call."""
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
        """Whether any pair is left out."""
        return 0 < self.shortlist < len(self.video_indices)

    def announcement(self, head: BasePairHead) -> dict[str, Any]:
        """What :meth:`RetrievalRankMetric.process` is told of the whole."""
        found = {
            'num_captions': len(self.caption_indices),
            'num_videos': len(self.video_indices),
            'num_frames': self.num_frames,
            **self.order.announcement(),
        }
        if self.shortlist:
            found['shortlist'] = self.shortlist
            found['first_stage'] = head.first_stage
        return found

    def score(
        self,
        head: BasePairHead,
        blocks: Iterable[tuple[range, TextFeatures]],
    ) -> Iterator[list[dict[str, Any]]]:
        """Score blocks of captions against all videos, or their shortlists.

        Gives a row for each caption: ``caption_index``, ``video_index`` and
        ``video_id`` of its video, ``column`` of that video (-1, '' and -1 if
        none is right), and ``scores``, on the CPU, shape ``(Bv,)``. If
        captions have several right videos or none, also ``positives``, the
        columns of all of them; of a joined set also ``part``, its name.
        """
        score = (
            TwoStageScorer(head, self.videos, self.shortlist)
            if self._two_stage
            else self._all_pairs_scorer(head)
        )
        for rows, text in blocks:
            scores = score(text).detach().cpu()
            yield [
                # a view would drag its whole block through pickle
                {**self.order.row(row), 'scores': values.clone()}
                for row, values in zip(rows, scores, strict=True)
            ]

    def _all_pairs_scorer(
        self, head: BasePairHead
    ) -> Callable[[TextFeatures], Tensor]:
        """Score captions against all videos, which are prepared once."""
        state = head.prepare_video(self.videos)
        if getattr(head, 'needs_own_captions', False):
            state = head.attach_captions(state, self._own_captions(head))
        return lambda text: head.score_chunked(head.prepare_text(text), state)

    def _own_captions(self, head: BasePairHead) -> TextFeatures:
        """Encode the caption of each video, in the order of the videos."""
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


def check_shortlist(shortlist: int, num_videos: int) -> None:
    """Refuse a shortlist longer than the gallery."""
    if shortlist > num_videos:
        raise ValueError(
            f"'shortlist' is {shortlist}, but the evaluation set has "
            f'{num_videos} videos at most. Make it smaller, or set it to 0 '
            'to score all pairs.'
        )


def gather_rows(rows: Tensor | None, device: torch.device) -> Tensor:
    """Join rows of all processes, of which each may have any number.

    Rows of this process, shape ``(n, ...)``, or None where it has none and so
    does not know their shape. Rank after rank.
    """
    if get_world_size() == 1 and rows is not None:
        return rows
    own: Any = None if rows is None else (tuple(rows.shape), rows.dtype)
    shapes = all_gather_object(own)
    counts = [0 if shape is None else shape[0][0] for shape in shapes]
    (_, *tail), dtype = next(shape for shape in shapes if shape is not None)
    # gloo has no collective for bool
    wire_dtype = torch.uint8 if dtype == torch.bool else dtype
    # collectives need equal shapes: pad to the longest, cut off afterwards
    padded = torch.zeros((max(counts), *tail), dtype=wire_dtype, device=device)
    if rows is not None:
        padded[: len(rows)] = rows.to(device=device, dtype=wire_dtype)
    joined = torch.cat(
        [
            part[:count]
            for part, count in zip(all_gather(padded), counts, strict=True)
        ]
    )
    return joined.to(device=device, dtype=dtype)


def _gather_videos(
    own: VideoFeatures | None, device: torch.device
) -> VideoFeatures:
    """Join the features of all processes: every field that any has."""
    names = [field.name for field in fields(VideoFeatures)]
    present = [name for name in names if getattr(own, name, None) is not None]
    anywhere = set().union(*all_gather_object(present))
    return VideoFeatures(
        **{
            name: gather_rows(getattr(own, name, None), device)
            for name in names
            if name in anywhere
        }
    )


def check_videos(videos: VideoFeatures, video_ids: Sequence[str]) -> None:
    """Refuse video features that are not finite; name the videos."""
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
                f'{broken[:5]}. Look at the weights, and at these files.'
            )


def check_texts(text: TextFeatures, caption_indices: Sequence[int]) -> None:
    """Refuse text features that are not finite; name the captions."""
    finite = torch.isfinite(text.embeds).all(dim=1)  # (Bt,)
    broken = [caption_indices[i] for i in torch.where(~finite)[0].tolist()]
    if broken:
        raise ValueError(
            'Text features must be finite, but those of captions '
            f'{broken[:5]} (counted in the order of the annotation file) are '
            f'not; {len(broken)} of {len(finite)} in this block. Look at the '
            'weights.'
        )
