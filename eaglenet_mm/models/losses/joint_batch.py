"""Losses on the matrix of a joint batch, and what its pairs are to them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from mmengine.model import BaseModule
from torch import Tensor

#: What other pairs of the same video may count as.
SAME_VIDEO = ('negative', 'ignore', 'positive')
#: Numbers of the rows a loss works on at once, by type of device.
BLOCK_NUMBERS = {'cpu': 2**19, 'cuda': 2**22}


class Share(NamedTuple):
    """The share of a joint batch that one process works on.

    Args:
        rows (range): Its rows in the joint batch.
        gather (Callable): Joins the rows of all processes, with gradient.
        positives (Tensor, optional): Which pairs are of the same video, as
            :class:`PairLabels` takes it. Default: None, not known.

    Example:
        >>> share = Share(range(3), lambda x: x)  # of one process
        >>> share.matching(torch.eye(3))
        tensor([1., 1., 1.])
    """

    rows: range
    gather: Callable[[Tensor], Tensor]
    positives: Tensor | None = None

    def sum(self, x: Tensor) -> Tensor:
        """Sum a tensor over the processes, with gradient."""
        return self.gather(x.unsqueeze(0)).sum(dim=0)

    def matching(self, x: Tensor, rows: slice = slice(None)) -> Tensor:
        """View the matching pairs of own rows.

        Args:
            x (Tensor): One value for each pair of ``rows``, shape ``(n, B)``.
            rows (slice): Which of the own rows. Default: all of them.

        Returns:
            Tensor: A view, shape ``(n,)``.
        """
        own = self.rows[rows]
        return x[:, own.start :: own.step].diagonal()


class PairLabels:
    """Tells of some rows at a time which pairs are positive or ignored.

    Text ``i`` and video ``i`` match. Other pairs of the same video, two
    captions of one video in a batch for example, are what ``same_video``
    says: negatives like all others, left out, or positive too.

    Args:
        scores (Tensor): Own rows of the joint matrix, shape ``(b, B)``.
        same_video (str): One of :data:`SAME_VIDEO`.
        positives (Tensor, optional): The pairs of the same video: a matrix
            like that of the scores, bool, shape ``(b, B)``; or a number of
            each video of the joint batch, shape ``(B,)``, int64, where equal
            numbers are the same video, which takes no memory of a matrix.
            The diagonal counts as True. Default: None, those of the share.
        share (Share, optional): Which rows of the joint batch the scores
            are. Default: None, all of them.

    Raises:
        ValueError: If shapes do not fit, or other pairs of the same video
            are not to be negatives but nobody says which they are.
        TypeError: If ``positives`` are neither bool nor whole numbers.

    Example:
        >>> ids = torch.tensor([7, 8, 7])  # texts 0 and 2 are of one video
        >>> labels = PairLabels(torch.rand(3, 3), 'ignore', ids, None)
        >>> labels.ignored(slice(0, 1))
        tensor([[False, False,  True]])
    """

    def __init__(
        self,
        scores: Tensor,
        same_video: str,
        positives: Tensor | None,
        share: Share | None,
    ) -> None:
        if share is None:
            if scores.dim() != 2 or scores.shape[0] != scores.shape[1]:
                raise ValueError(
                    'The loss needs a square matrix with the matching pairs '
                    f'on the diagonal, but got shape {tuple(scores.shape)}.'
                )
            share = Share(range(len(scores)), lambda x: x)
        if positives is None:
            positives = share.positives
        if positives is None and same_video != 'negative':
            raise ValueError(
                f'same_video={same_video!r} needs to know which pairs are of '
                'the same video, but got no positives. End the pipeline with '
                "PackRetrievalInputs, which packs 'video_id', give "
                "VideoFeatures their video_ids, or set same_video='negative'."
            )
        self.share = share
        self.same_video = same_video
        self._positives = None
        if positives is not None:
            _check_positives(positives, scores)
            if same_video != 'negative':
                self._positives = positives.to(scores.device)

    @property
    def is_multiple(self) -> bool:
        """Whether a text may have several positives."""
        return self._positives is not None and self.same_video == 'positive'

    def positive(self, rows: slice) -> Tensor | None:
        """Tell all positives, ``(n, B)``, or None if only matching pairs."""
        return self._of_same_video(rows) if self.is_multiple else None

    def ignored(self, rows: slice) -> Tensor | None:
        """Tell what is left out, shape ``(n, B)``, or None if nothing."""
        if self._positives is None or self.is_multiple:
            return None
        ignored = self._of_same_video(rows)
        self.share.matching(ignored, rows).fill_(False)
        return ignored

    def _of_same_video(self, rows: slice) -> Tensor:
        """Tell all pairs of the same video, matching ones too, ``(n, B)``."""
        positives: Any = self._positives
        if positives.dim() == 1:
            own = self.share.rows[rows]
            own_numbers = positives[own.start : own.stop : own.step]
            return own_numbers.unsqueeze(1) == positives
        same = positives[rows].clone()
        self.share.matching(same, rows).fill_(True)
        return same


def _check_positives(positives: Tensor, scores: Tensor) -> None:
    """Refuse what does not say for each pair whether it is positive."""
    is_matrix = positives.dtype is torch.bool
    if not is_matrix and (
        positives.is_floating_point() or positives.is_complex()
    ):
        raise TypeError(
            'positives must be a bool matrix or whole numbers of the videos, '
            f'but have the type {positives.dtype}.'
        )
    expected = tuple(scores.shape) if is_matrix else (scores.shape[1],)
    if tuple(positives.shape) != expected:
        raise ValueError(
            f'positives of type {positives.dtype} must have the shape '
            f'{expected} for scores of shape {tuple(scores.shape)}, but have '
            f'{tuple(positives.shape)}.'
        )


class ScoreLoss(BaseModule, ABC):
    """Base of the losses on a matrix of scores.

    Args:
        loss_weight (float): Factor of the loss.
        same_video (str): One of :data:`SAME_VIDEO`.
    """

    #: Takes own rows of the joint matrix with a :class:`Share`.
    takes_share = True

    def __init__(self, loss_weight: float, same_video: str) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.same_video = check_same_video(same_video)

    @abstractmethod
    def joint_loss(self, scores: Tensor, labels: PairLabels) -> Tensor:
        """Compute the loss of the joint batch from own rows ``(b, B)``."""

    def forward(
        self,
        scores: Tensor,
        positives: Tensor | None = None,
        share: Share | None = None,
    ) -> Tensor:
        """Compute the loss.

        Args:
            scores (Tensor): Rows are texts, columns videos, matching pairs on
                the diagonal, shape ``(B, B)``; with a share its own rows,
                shape ``(b, B)``.
            positives (Tensor, optional): Which pairs are of the same video:
                a bool matrix like the scores, or numbers of the ``B`` videos,
                equal where the video is the same. Default: None, those of the
                share.
            share (Share, optional): Which rows of the joint batch the scores
                are. Default: None, all of it.

        Returns:
            Tensor: A scalar, that of the joint batch.

        Raises:
            ValueError: If the matrix is not square, ``positives`` do not fit,
                or ``same_video`` needs them and there are none.
        """
        labels = PairLabels(scores, self.same_video, positives, share)
        return self.loss_weight * self.joint_loss(scores, labels)


def check_same_video(same_video: str) -> str:
    """Refuse an unknown option."""
    if same_video not in SAME_VIDEO:
        raise ValueError(
            f'same_video must be one of {SAME_VIDEO}, but is {same_video!r}.'
        )
    return same_video


def row_blocks(scores: Tensor) -> Iterator[slice]:
    """Cut the rows of a matrix into blocks of constant size in memory."""
    numbers = BLOCK_NUMBERS.get(scores.device.type, BLOCK_NUMBERS['cuda'])
    step = max(1, numbers // max(1, scores.shape[1]))
    for start in range(0, len(scores), step):
        yield slice(start, min(start + step, len(scores)))
