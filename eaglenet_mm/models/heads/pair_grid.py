"""Chunked computation over all text-video pairs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from eaglenet_mm.models.layers.keyed_random import KeyedRandom, PairRandom
from eaglenet_mm.structures import Features
from eaglenet_mm.utils.heap import release_free_heap

#: Number of recomputed chunks after which free memory is returned to the
#: system; the buffers of the chunks fragment the heap.
RELEASE_EVERY = 4

#: Function of the text states, video states and random numbers of a chunk.
PairFunction = Callable[[Any, Any, 'PairRandom | None'], Any]


@dataclass(frozen=True)
class PairGrid:
    """Matrix of texts and videos, split into chunks of pairs.

    Chunks have many texts and few videos, because video states are large and
    one product with a video covers all its texts. With gradients enabled, as
    many chunks as fit ``budget`` are kept for the backward pass; the others
    are recomputed with the same random numbers.

    Args:
        rows (range): Positions of the texts in the joint batch.
        columns (range): Positions of the videos in the joint batch.
        bytes_per_pair (int): Bytes of intermediate tensors per pair.
        budget (int): Bytes available for all chunks at once.
        chunk_bytes (int, optional): Maximum bytes per chunk. Default: None,
            the budget.
        whole_columns (bool): Put all texts into every chunk, for functions
            that need all texts of a video. Default: False.
        random (KeyedRandom, optional): Source of the random numbers of pairs.
            Default: None, functions get None.
    """

    rows: range
    columns: range
    bytes_per_pair: int
    budget: int
    chunk_bytes: int | None = None
    whole_columns: bool = False
    random: KeyedRandom | None = None

    @property
    def _chunk_shape(self) -> tuple[int, int]:
        """Numbers of texts and videos per chunk, at least one each."""
        texts = max(1, len(self.rows))
        most = min(self.budget, self.chunk_bytes or self.budget)
        pairs = max(1, most // self.bytes_per_pair)
        if not self.whole_columns:
            texts = min(texts, pairs)
        return texts, max(1, min(len(self.columns), pairs // texts))

    @property
    def _num_kept(self) -> int:
        """Number of chunks kept for the backward pass."""
        texts, videos = self._chunk_shape
        chunks = math.ceil(len(self.rows) / texts) * math.ceil(
            len(self.columns) / videos
        )
        kept = self.budget // (texts * videos * self.bytes_per_pair)
        # leave room for the chunk being recomputed
        return chunks if kept >= chunks else max(0, kept - 1)

    @property
    def fits(self) -> bool:
        """Whether all pairs fit the budget at once."""
        pairs = len(self.rows) * len(self.columns)
        return pairs * self.bytes_per_pair <= self.budget

    def blocks(
        self, function: PairFunction, text_state: Features, video_state: Any
    ) -> Iterator[tuple[slice, slice, Any]]:
        """Apply a function to each chunk of pairs.

        Args:
            function (Callable): Maps the states of some texts and videos and
                their :class:`PairRandom` to tensors.
            text_state (Features): State of all texts.
            video_state (Features): State of all videos.

        Yields:
            tuple: Row slice, column slice and result of a chunk.

        Raises:
            ValueError: If the smallest chunk exceeds the budget.
        """
        needs_grad = torch.is_grad_enabled()
        least = len(self.rows) if self.whole_columns else 1
        if needs_grad and least * self.bytes_per_pair > self.budget:
            raise ValueError(
                f'memory_budget={self.budget} bytes is too small: chunks of '
                f'at least {least} pairs need '
                f'{least * self.bytes_per_pair} bytes in training. Raise it, '
                'or lower the batch size.'
            )

        def compute(
            texts: Any, videos: Any, rows: slice, columns: slice
        ) -> Any:
            drawn = None
            if self.random is not None:
                drawn = PairRandom(
                    self.random, self.rows[rows], self.columns[columns]
                )
            return function(texts, videos, drawn)

        counter = itertools.count(1)
        on_cpu = next(text_state.tensors()).is_cpu

        def compute_again(*chunk: Any) -> Any:
            if next(counter) % RELEASE_EVERY == 0 and on_cpu:
                release_free_heap()
            return compute(*chunk)

        num_texts, num_videos = self._chunk_shape
        kept = self._num_kept if needs_grad else math.inf
        text_parts = list(_split(text_state, num_texts, needs_grad))
        number = 0
        for columns, videos in _split(video_state, num_videos, needs_grad):
            for rows, texts in text_parts:
                chunk = texts, videos, rows, columns
                if number < kept:
                    yield rows, columns, compute(*chunk)
                else:
                    again = checkpoint(
                        compute_again, *chunk, use_reentrant=False
                    )
                    yield rows, columns, again
                number += 1

    def map(
        self, function: PairFunction, text_state: Any, video_state: Any
    ) -> Tensor:
        """Apply a function to all pairs, with gradient.

        Same arguments as :meth:`blocks`. The function returns a tensor
        ``(texts, videos, ...)``; they are joined to ``(Bt, Bv, ...)``.
        """
        parts: dict[int, list[Tensor]] = {}
        for _, columns, part in self.blocks(function, text_state, video_state):
            parts.setdefault(columns.start, []).append(part)
        return _concat([_concat(part, 0) for part in parts.values()], 1)


def _split(
    state: Any, size: int, needs_grad: bool
) -> Iterator[tuple[slice, Any]]:
    """Split a state into parts of ``size`` rows; nothing if it is empty."""
    starts = range(0, len(state), size)
    if needs_grad:  # its backward is cheaper than that of many slices
        parts = iter(state.split(size))
    else:  # lazily, since a gallery may have very many parts
        parts = (state.index_select(slice(i, i + size)) for i in starts)
    for start, part in zip(starts, parts, strict=False):
        yield slice(start, start + len(part)), part


def _concat(parts: list[Tensor], axis: int) -> Tensor:
    """Concatenate tensors; a single one is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=axis)
