"""One evaluation: encode each side once, join by id, score in rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.runner.amp import autocast
from mmengine.structures import BaseDataElement
from torch import Tensor

from eaglenet_mm.datasets.joined_parts import Part
from eaglenet_mm.structures import TextFeatures, VideoFeatures

from .canonical_order import CanonicalOrder, Found
from .encoded_features import check_texts, check_videos, to_full_precision
from .gather_by_id import flatten, gather_rows, gather_videos
from .own_captions import own_captions
from .two_stage import (
    SHORTLIST_BLOCK,
    TwoStageScorer,
    check_shortlist,
)

#: Captions encoded together, and scored together where all pairs are. No
#: option: the size of a product can change its last bits, and no option may
#: change a score.
TEXT_BLOCK = 64

Rows = list[dict[str, Any]]


class RetrievalEvaluation:
    """State of one pass over an evaluation set.

    Call :meth:`add_batch` for every batch of the dataloader, then
    :meth:`gather`, then :meth:`encode_texts` and :meth:`score`.

    Args:
        model (nn.Module): A retriever without wrapper: ``data_preprocessor``,
            ``encode_video``, ``encode_text`` and ``head``.
        fp16 (bool): Encode under autocast (bfloat16 on CPU). Features are
            cast to float32 and scored without it.
        video_batch (int): Videos in one call of the video encoder. The last
            call is filled up by repetition, so that all have one shape.
        shortlist (int): Videos that the head scores for a caption, the
            others get scores below; 0 for all.
        parts (Sequence[Part]): Of a joined set, see
            :func:`~eaglenet_mm.datasets.joined_parts.mark_parts`; none
            otherwise.

    Attributes:
        video_indices (list[int]): After :meth:`gather`, the canonical ids of
            the videos found, ascending: the columns. Of a joined set those of
            a part go on where the part before it ends.
        caption_indices (list[int]): Likewise of the captions: the rows.
        video_ids (list[str]): Likewise the names of the videos.
        columns (list[int]): Of each caption the video it stands with, or the
            first right one if that is none; -1 if there is no right one.
        positives (list[list[int]], optional): Of each caption all right
            videos, ascending; None if every caption has one.
        num_frames (int): After :meth:`gather`, frames of a video, padding
            included.
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
        self.device = torch.device(model.data_preprocessor.device)
        self._pending: list[tuple[Tensor, Tensor]] = []
        self._encoded: list[VideoFeatures] = []
        self.parts = parts
        self._found = Found()
        self._token_ids: list[Tensor] = []

    def add_batch(self, data_batch: dict) -> list[BaseDataElement]:
        """Encode the videos of a batch and keep its captions.

        Args:
            data_batch (dict): Of the dataloader: videos that carry their
                captions.

        Returns:
            list[BaseDataElement]: The samples of the batch.

        Raises:
            ValueError: If the numbers of token rows and captions differ.
        """
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
                        (
                            inputs['pixels'][place],
                            inputs['frame_mask'][place],
                        )
                    )
                    if len(self._pending) == self.video_batch:
                        self._encode_pending()
        return samples

    def _encode_pending(self) -> None:
        """Encode the waiting videos in one call of constant shape."""
        waiting = self._pending
        missing = self.video_batch - len(waiting)
        padded = waiting + waiting[-1:] * missing
        features = self.model.encode_video(
            torch.stack([pixels for pixels, _ in padded]),
            torch.stack([mask for _, mask in padded]),
        )
        self._encoded.append(
            to_full_precision(features).index_select(slice(len(waiting)))
        )
        self._pending = []

    def gather(self) -> None:
        """Join the videos and captions of all processes, by id.

        Samplers deal items out in turn and may repeat some: order and
        duplicates are settled by the canonical indices alone.

        Raises:
            ValueError: If there is no video, there are fewer than the
                shortlist holds, a feature is not finite, captions have token
                rows of different lengths, or two videos or two captions have
                one index.
        """
        if self._pending:
            with autocast(enabled=self.fp16):
                self._encode_pending()
        # a wrapper of ours or another's may read past the parts of a join
        marked = any(all_gather_object(self._found.is_marked))
        order = CanonicalOrder(
            flatten(all_gather_object(self._found.videos)),
            flatten(all_gather_object(self._found.captions)),
            self.parts if marked else (),
        )
        check_shortlist(self.shortlist, len(order.video_ids))
        own = VideoFeatures.cat(self._encoded) if self._encoded else None
        self.order = order
        self.video_indices, self.video_ids = order.videos, order.video_ids
        self.caption_indices = order.captions
        self.columns, self.positives = order.columns, order.positives
        self.videos = gather_videos(own, self.device).index_select(
            torch.tensor(order.video_places, device=self.device)
        )
        self._encoded = []
        check_videos(self.videos, self.video_ids)
        self.num_frames = self.videos.frames.shape[1]
        widths = sorted({len(row) for row in self._token_ids})
        if len(widths) > 1:
            raise ValueError(
                'All captions must have token rows of one length, but got '
                f'lengths {widths[:5]}. Pad to max_words in the pipeline.'
            )
        tokens = torch.stack(self._token_ids) if self._token_ids else None
        gathered = gather_rows(tokens, self.device)
        order.check_tokens(gathered)
        self.token_ids = gathered[
            torch.tensor(order.caption_places, device=self.device)
        ]

    def encode_texts(self) -> Iterator[tuple[range, TextFeatures]]:
        """Encode this process's captions, in blocks of canonical order.

        Yields:
            tuple[range, TextFeatures]: Rows of the score matrix and their
            features. Block k belongs to rank k modulo the number of
            processes, and is the same block whatever that number.

        Raises:
            ValueError: If a feature is not finite.
        """
        total = len(self.caption_indices)
        size = TEXT_BLOCK
        if self._two_stage:
            size = SHORTLIST_BLOCK.get(
                self.device.type, SHORTLIST_BLOCK['cuda']
            )
        for start in range(size * get_rank(), total, size * get_world_size()):
            rows = range(start, min(start + size, total))
            yield (
                rows,
                TextFeatures.cat(
                    [
                        self._encode_texts(rows[place : place + TEXT_BLOCK])
                        for place in range(0, len(rows), TEXT_BLOCK)
                    ]
                ),
            )

    def _encode_texts(self, rows: range) -> TextFeatures:
        """Encode the captions of some rows in one call."""
        with autocast(enabled=self.fp16):
            text = self.model.encode_text(
                self.token_ids[rows.start : rows.stop]
            )
        text = to_full_precision(text)
        check_texts(text, self.caption_indices[rows.start : rows.stop])
        return text

    @property
    def _two_stage(self) -> bool:
        """Whether any pair is left out."""
        return 0 < self.shortlist < len(self.video_indices)

    def announcement(self, head: Any) -> dict[str, Any]:
        """Tell the evaluator what it will get, after :meth:`gather`.

        Args:
            head (BasePairHead): The head to score with.

        Returns:
            dict: See :meth:`RetrievalRankMetric.process`.
        """
        found = {
            'num_captions': len(self.caption_indices),
            'num_videos': len(self.video_indices),
            'num_frames': self.num_frames,
            **self.order.announcement(),
        }
        if not self.shortlist:
            return found
        return {
            **found,
            'shortlist': self.shortlist,
            'first_stage': head.first_stage,
        }

    def score(
        self, head: Any, blocks: Iterable[tuple[range, TextFeatures]]
    ) -> Iterator[Rows]:
        """Score blocks of captions against all videos, or their shortlists.

        Args:
            head (BasePairHead): The head to score with.
            blocks (Iterable[tuple[range, TextFeatures]]): Of
                :meth:`encode_texts`.

        Yields:
            list[dict]: One row for each caption: ``caption_index``,
            ``video_index`` and ``video_id`` of its video, ``column`` of that
            video (-1, '' and -1 if none is right), and ``scores``, on the
            CPU, shape ``(Bv,)``. If captions have several right videos or
            none, also ``positives``, the columns of all of them; of a joined
            set also ``part``, the name of the caption's part.
        """
        score = (
            TwoStageScorer(head, self.videos, self.shortlist)
            if self._two_stage
            else self._all_pairs_scorer(head)
        )
        for rows, text in blocks:
            scores = score(text).detach().cpu()
            yield [
                {
                    **self.order.row(row),
                    # a view would drag its whole block through pickle
                    'scores': values.clone(),
                }
                for row, values in zip(rows, scores, strict=True)
            ]

    def _all_pairs_scorer(self, head: Any) -> Callable[[TextFeatures], Tensor]:
        """Score captions against all videos, which are prepared once."""
        state = head.prepare_video(self.videos)
        if getattr(head, 'needs_own_captions', False):
            state = head.attach_captions(
                state,
                own_captions(
                    head,
                    self.columns,
                    len(self.video_ids),
                    self._encode_texts,
                ),
            )
        return lambda text: head.score_chunked(head.prepare_text(text), state)
