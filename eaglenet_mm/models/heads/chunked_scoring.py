"""Scoring of prepared sides in chunks, in evaluation and in training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from eaglenet_mm.models.heads.pair_chunks import cut_chunks, score_recomputing

#: Bytes of one chunk in evaluation, by type of device. No option: the shape
#: of a product decides on its last bits, and no option may change a score.
EVALUATION_BYTES = {'cpu': 40 * 2**20, 'cuda': 512 * 2**20}


class ChunkedScoring:
    """What a head needs to score more pairs than fit into memory at once."""

    # of the head
    memory_budget: int
    score: Callable[[Any, Any], Tensor]
    bytes_per_pair: Callable[[bool], int]

    def chunk_scorer(self) -> Callable[[Any, Any], Tensor]:
        """Give the function that scores chunks of one matrix.

        A head that can share work between chunks overrides this; by default
        it is :meth:`score`.
        """
        return self.score

    def chunks(
        self, num_texts: int, num_videos: int, budget: int, training: bool
    ) -> Iterator[tuple[slice, slice]]:
        """Cut a matrix of pairs into blocks of some bytes at most.

        Args:
            num_texts (int): Rows.
            num_videos (int): Columns.
            budget (int): Bytes of a block, by :meth:`bytes_per_pair`; a block
                has one pair at least.
            training (bool): Whether a backward pass follows.

        Returns:
            Iterator[tuple[slice, slice]]: Rows and columns of each block.
        """
        return cut_chunks(
            num_texts, num_videos, budget // self.bytes_per_pair(training)
        )

    @torch.no_grad()
    def score_chunked(
        self,
        text_state: Any,
        video_state: Any,
        scorer: Callable[[Any, Any], Tensor] | None = None,
    ) -> Tensor:
        """Score prepared sides in chunks of constant size.

        Args:
            text_state: Of :meth:`prepare_text`, ``Bt`` rows.
            video_state: Of :meth:`prepare_video`, ``Bv`` rows.
            scorer (Callable, optional): Of :meth:`chunk_scorer`, where it
                serves several matrices. Default: None, a new one.

        Returns:
            Tensor: Float32 (float64 for float64 features), without gradient,
            shape ``(Bt, Bv)``. Either side may be empty.
        """
        num_texts, num_videos = len(text_state), len(video_state)
        first = next(text_state.tensors())
        scores = torch.empty(
            num_texts,
            num_videos,
            device=first.device,
            dtype=torch.float64
            if first.dtype == torch.float64
            else torch.float32,
        )
        budget = EVALUATION_BYTES.get(
            first.device.type, EVALUATION_BYTES['cuda']
        )
        score = scorer or self.chunk_scorer()
        for rows, columns in self.chunks(num_texts, num_videos, budget, False):
            scores[rows, columns] = score(
                text_state.index_select(rows),
                video_state.index_select(columns),
            ).to(scores.dtype)
        return scores

    def score_with_grad(self, text_state: Any, video_state: Any) -> Tensor:
        """Score prepared sides for training, within the memory budget.

        If the intermediate tensors of all pairs do not fit, chunks of pairs
        are computed again in the backward pass.

        Args:
            text_state: Of :meth:`prepare_text`, ``Bt`` rows.
            video_state: Of :meth:`prepare_video`, ``Bv`` rows.

        Returns:
            Tensor: With gradient, shape ``(Bt, Bv)``.

        Raises:
            ValueError: If the budget does not hold one pair.
        """
        self.check_budget(1)
        blocks = self.chunks(
            len(text_state), len(video_state), self.memory_budget, True
        )
        return score_recomputing(
            lambda rows, columns: self.score(
                text_state.index_select(rows),
                video_state.index_select(columns),
            ),
            list(blocks),
        )

    def check_budget(self, num_pairs: int) -> None:
        """Refuse a memory budget that does not hold some pairs at once.

        Args:
            num_pairs (int): Pairs that cannot be taken apart.

        Raises:
            ValueError: If they take more than ``memory_budget``.
        """
        needed = num_pairs * self.bytes_per_pair(True)
        if needed > self.memory_budget:
            raise ValueError(
                f'memory_budget={self.memory_budget} bytes is too small: '
                f'{num_pairs} pairs, which cannot be taken apart, need '
                f'{needed} bytes in training. Raise it, or lower the batch '
                'size.'
            )
