"""Losses on the score matrix of a joint batch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from eaglenet_mm.models.precision import at_least_float32
from eaglenet_mm.registry import MODELS

#: How to treat non-matching pairs of the same video.
SAME_VIDEO = ('negative', 'ignore', 'positive')
#: Scores processed at once, by device type.
BLOCK_NUMBERS = {'cpu': 2**19, 'cuda': 2**22}


class Share(NamedTuple):
    """Share of a joint batch that a process works on.

    Args:
        rows (range): Rows of this process in the joint batch.
        gather (Callable): Concatenates rows of all processes, with gradient.
        positives (Tensor, optional): Pairs of the same video, see
            :class:`PairLabels`. Default: None, unknown.

    Example:
        >>> share = Share(range(3), lambda x: x)  # single process
        >>> share.matching(torch.eye(3))
        tensor([1., 1., 1.])
    """

    rows: range
    gather: Callable[[Tensor], Tensor]
    positives: Tensor | None = None

    def sum(self, x: Tensor) -> Tensor:
        """Sum a tensor over all processes, with gradient."""
        return self.gather(x.unsqueeze(0)).sum(dim=0)

    def matching(self, x: Tensor, rows: slice = slice(None)) -> Tensor:
        """Return a view of the matching pairs, shape ``(n,)``.

        Args:
            x (Tensor): One value per pair, shape ``(n, B)``.
            rows (slice): Own rows that ``x`` covers. Default: all.
        """
        own = self.rows[rows]
        return x[:, own.start :: own.step].diagonal()


class PairLabels:
    """Labels of pairs: positive, negative or ignored.

    Text ``i`` and video ``i`` match. ``same_video`` decides about other pairs
    of the same video, such as two captions of one video in a batch.

    Args:
        scores (Tensor): Rows of the joint matrix, shape ``(b, B)``.
        same_video (str): ``'negative'``, ``'ignore'`` or ``'positive'``.
        positives (Tensor, optional): Pairs of the same video, as a bool
            matrix ``(b, B)``, whose diagonal counts as True, or as integer
            video ids ``(B,)`` of the joint batch, which need less memory.
            Default: None, those of the share.
        share (Share, optional): Rows of the joint batch that ``scores``
            holds. Default: None, all of them.

    Raises:
        ValueError: If shapes do not fit, or ``same_video`` is not
            ``'negative'`` and ``positives`` are unknown.
        TypeError: If ``positives`` are neither bool nor integer.

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
                "PackRetrievalInputs, which packs 'video_id', set video_ids "
                "of VideoFeatures, or set same_video='negative'."
            )
        self.share = share
        self.same_video = same_video
        self._positives = None
        if positives is not None:
            self._check(positives, scores)
            if same_video != 'negative':
                self._positives = positives.to(scores.device)

    @staticmethod
    def _check(positives: Tensor, scores: Tensor) -> None:
        """Check dtype and shape of ``positives``."""
        is_matrix = positives.dtype is torch.bool
        if positives.is_floating_point() or positives.is_complex():
            raise TypeError(
                'positives must be a bool matrix or integer video ids, but '
                f'have the type {positives.dtype}.'
            )
        expected = tuple(scores.shape) if is_matrix else (scores.shape[1],)
        if tuple(positives.shape) != expected:
            raise ValueError(
                f'positives of type {positives.dtype} must have the shape '
                f'{expected} for scores of shape {tuple(scores.shape)}, but '
                f'have {tuple(positives.shape)}.'
            )

    def blocks(
        self, scores: Tensor
    ) -> Iterator[tuple[slice, Tensor, Tensor | None, Tensor | None]]:
        """Iterate over blocks of rows, to bound memory.

        Yields:
            tuple: Row slice, scores in float32 or wider, and the results of
            :meth:`positive` and :meth:`ignored` for these rows.
        """
        numbers = BLOCK_NUMBERS.get(scores.device.type, BLOCK_NUMBERS['cuda'])
        step = max(1, numbers // max(1, scores.shape[1]))
        for start in range(0, len(scores), step):
            rows = slice(start, min(start + step, len(scores)))
            block = at_least_float32(scores[rows])
            yield rows, block, self.positive(rows), self.ignored(rows)

    @property
    def is_multiple(self) -> bool:
        """Whether a text can have several positives."""
        return self._positives is not None and self.same_video == 'positive'

    def positive(self, rows: slice) -> Tensor | None:
        """Mask of positives ``(n, B)``, None if only matching pairs are."""
        return self._of_same_video(rows) if self.is_multiple else None

    def ignored(self, rows: slice) -> Tensor | None:
        """Mask of ignored pairs ``(n, B)``, None if there are none."""
        if self._positives is None or self.is_multiple:
            return None
        ignored = self._of_same_video(rows)
        self.share.matching(ignored, rows).fill_(False)
        return ignored

    def _of_same_video(self, rows: slice) -> Tensor:
        """Mask of pairs of the same video, including matching ones."""
        positives: Any = self._positives
        if positives.dim() == 1:
            own = self.share.rows[rows]
            own_numbers = positives[own.start : own.stop : own.step]
            return own_numbers.unsqueeze(1) == positives
        same = positives[rows].clone()
        self.share.matching(same, rows).fill_(True)
        return same


class ScoreLoss(BaseModule, ABC):
    """Base class of losses on a score matrix."""

    #: ``forward`` accepts the rows of one process and their ``share``.
    takes_share = True

    def __init__(self, loss_weight: float, same_video: str) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.same_video = check_same_video(same_video)

    @abstractmethod
    def joint_loss(self, scores: Tensor, labels: PairLabels) -> Tensor:
        """Compute the loss of the joint batch from rows ``(b, B)``."""

    def forward(
        self,
        scores: Tensor,
        positives: Tensor | None = None,
        share: Share | None = None,
    ) -> Tensor:
        """Compute the loss.

        Args:
            scores (Tensor): Text-video scores with matching pairs on the
                diagonal, shape ``(B, B)``, or the rows of ``share``, shape
                ``(b, B)``.
            positives (Tensor, optional): Pairs of the same video, as a bool
                mask like ``scores`` or as integer video ids ``(B,)``.
                Default: None, those of the share.
            share (Share, optional): Rows of the joint batch that ``scores``
                holds. Default: None, all of them.

        Returns:
            Tensor: Scalar loss of the joint batch.

        Raises:
            ValueError: If the matrix is not square, ``positives`` do not fit,
                or ``same_video`` needs them and they are missing.
        """
        labels = PairLabels(scores, self.same_video, positives, share)
        return self.loss_weight * self.joint_loss(scores, labels)


def check_same_video(same_video: str) -> str:
    """Raise an error for an unknown option."""
    if same_video not in SAME_VIDEO:
        raise ValueError(
            f'same_video must be one of {SAME_VIDEO}, but is {same_video!r}.'
        )
    return same_video


@MODELS.register_module()
class PairwiseSigmoidLoss(ScoreLoss):
    """Binary classification of each pair as matching or not.

    The loss of `SigLIP <https://arxiv.org/abs/2303.15343>`_ with EagleNet's
    initial values::

        -1/B sum_ij log sigmoid(y_ij (exp(log_scale) s_ij + bias))

    with ``y = 1`` on the diagonal and ``-1`` elsewhere. ``B`` is the number
    of texts.

    Differs from the release: ``log sigmoid`` is computed in its stable form.
    The release's ``log(sigmoid(x))`` is infinite below -88, with a NaN
    gradient, which a negative pair of similarity 0.86 reaches at the initial
    values.

    Args:
        init_log_scale (float): Initial log scale. Default: 4.77.
        init_bias (float): Initial bias. Default: -12.93.
        learnable (bool): Train scale and bias. Default: True.
        loss_weight (float): Weight of the loss. Default: 1.
        same_video (str): Treatment of non-matching pairs of the same video:
            ``'negative'`` as in the release (``y = -1``), ``'ignore'`` (left
            out of the sum) or ``'positive'`` (``y = 1``).
            Default: ``'negative'``.

    Raises:
        ValueError: If ``same_video`` is unknown.

    Note:
        Besides the scores and their gradient, memory is needed for a block of
        rows only.

    Example:
        >>> scores = torch.rand(4, 4)
        >>> PairwiseSigmoidLoss()(scores).shape
        torch.Size([])
        >>> ids = torch.tensor([7, 8, 7, 9])  # two captions of video 7
        >>> loss = PairwiseSigmoidLoss(same_video='ignore')(scores, ids)
    """

    def __init__(
        self,
        init_log_scale: float = 4.77,
        init_bias: float = -12.93,
        learnable: bool = True,
        loss_weight: float = 1.0,
        same_video: str = 'negative',
    ) -> None:
        super().__init__(loss_weight, same_video)
        self.log_scale = nn.Parameter(
            torch.tensor([init_log_scale]), requires_grad=learnable
        )
        self.bias = nn.Parameter(
            torch.tensor([init_bias]), requires_grad=learnable
        )

    def logits(self, scores: Tensor) -> Tensor:
        """Scale and shift scores, which keep their shape."""
        return scores * self.log_scale.exp() + self.bias

    def joint_loss(self, scores: Tensor, labels: PairLabels) -> Tensor:
        """Sum the terms of all pairs, divided by the number of texts."""
        total = _SigmoidSum.apply(scores, self.log_scale, self.bias, labels)
        return labels.share.sum(total) / scores.shape[1]


class _SigmoidSum(Function):
    """``-sum log sigmoid(y (scale s + bias))`` in blocks of rows.

    Keeps only the scores for the backward pass; autograd would keep four more
    matrices.
    """

    @staticmethod
    def forward(
        ctx: Any,
        scores: Tensor,
        log_scale: Tensor,
        bias: Tensor,
        labels: PairLabels,
    ) -> Tensor:
        ctx.save_for_backward(scores, log_scale, bias)
        ctx.labels = labels
        parts = []
        for rows, block, positive, ignored in labels.blocks(scores):
            logits = block * log_scale.exp() + bias
            terms = F.logsigmoid(_signed_(logits, labels, rows, positive))
            if ignored is not None:
                terms.masked_fill_(ignored, 0.0)
            parts.append(terms.sum())
        return -torch.stack(parts).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        scores, log_scale, bias = ctx.saved_tensors
        labels, scale = ctx.labels, log_scale.exp()
        by_scores = torch.empty_like(scores)
        by_log_scale, by_bias = torch.zeros_like(scale), torch.zeros_like(bias)
        for rows, block, positive, ignored in labels.blocks(scores):
            logits = _signed_(block * scale + bias, labels, rows, positive)
            slopes = torch.sigmoid(logits.neg_()).mul_(-gradient)
            slopes = _signed_(slopes, labels, rows, positive)
            if ignored is not None:
                slopes.masked_fill_(ignored, 0.0)
            by_bias += slopes.sum()
            by_log_scale += (slopes * block).sum() * scale
            by_scores[rows] = slopes.mul_(scale)
        return by_scores, by_log_scale, by_bias, None


def _signed_(
    x: Tensor, labels: PairLabels, rows: slice, positive: Tensor | None
) -> Tensor:
    """Multiply by 1 for positives and -1 for others; may work in place."""
    if positive is not None:
        return torch.where(positive, x, -x)
    x.neg_()
    labels.share.matching(x, rows).neg_()
    return x


@MODELS.register_module()
class InfoNCELoss(ScoreLoss):
    r"""Symmetric cross entropy over the rows and columns of the scores.

    The loss of `CLIP <https://arxiv.org/abs/2103.00020>`_ on
    ``l = scores * exp(log_scale)`` with matching pairs on the diagonal::

        -1/2B sum_i log(exp(l_ii) / sum_j exp(l_ij)) + the same for columns

    With ``same_video='positive'`` the term of a text is the mean over all
    pairs ``P(i)`` of its video, as in `supervised contrastive learning
    <https://arxiv.org/abs/2004.11362>`_ (``L_out``; the sum over ``j``
    includes the positives)::

        -1/2B sum_i 1/|P(i)| sum_{p in P(i)} log(exp(l_ip) / sum_j exp(l_ij))

    Differs from the releases of this field: the scale belongs to the loss,
    not to CLIP, so it uses the head's learning rate. For that of CLIP, add
    ``dict(pattern=r'^head\.loss_match\.log_scale$', lr_mult=1e-3)`` to the
    rules of ``paramwise_cfg``.

    Args:
        init_scale (float): Initial scale. Default: 100, that of the released
            CLIP weights.
        max_scale (float): Upper bound of the scale, enforced by
            ``LogitScaleClampHook``. Default: 100.
        learnable (bool): Train the scale. Default: True.
        loss_weight (float): Weight of the loss. Default: 1.
        same_video (str): Treatment of non-matching pairs of the same video:
            ``'negative'`` as in the releases, ``'ignore'`` (left out of the
            sums over ``j``) or ``'positive'``. Default: ``'negative'``.

    Raises:
        ValueError: If a scale is not positive or ``same_video`` is unknown.

    Note:
        Besides the scores and their gradient, memory is needed for a block of
        rows only.

    Example:
        >>> scores = torch.rand(4, 4)
        >>> InfoNCELoss()(scores).shape
        torch.Size([])
        >>> ids = torch.tensor([7, 8, 7, 9])  # two captions of video 7
        >>> loss = InfoNCELoss(same_video='ignore')(scores, ids)
    """

    def __init__(
        self,
        init_scale: float = 100.0,
        max_scale: float = 100.0,
        learnable: bool = True,
        loss_weight: float = 1.0,
        same_video: str = 'negative',
    ) -> None:
        super().__init__(loss_weight, same_video)
        if init_scale <= 0 or max_scale <= 0:
            raise ValueError(
                'The scales of InfoNCELoss must be positive, but got '
                f'init_scale={init_scale} and max_scale={max_scale}.'
            )
        self.max_log_scale = math.log(max_scale)
        self.log_scale = nn.Parameter(
            torch.tensor(math.log(init_scale)), requires_grad=learnable
        )

    @torch.no_grad()
    def clamp_(self) -> None:
        """Clamp the scale to its upper bound, in place."""
        self.log_scale.clamp_(max=self.max_log_scale)

    def logits(self, scores: Tensor) -> Tensor:
        """Scale scores, which keep their shape."""
        return scores * self.log_scale.exp()

    def joint_loss(self, scores: Tensor, labels: PairLabels) -> Tensor:
        """Average the cross entropy of rows and columns."""
        return _CrossEntropies.apply(scores, self.log_scale, labels)


class _CrossEntropies(Function):
    """Mean cross entropy of the rows and columns of the joint matrix.

    Works in blocks of rows and keeps only the scores. Processes exchange
    column statistics instead of rows.
    """

    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, log_scale: Tensor, labels: PairLabels
    ) -> Tensor:
        share, scale = labels.share, log_scale.exp()
        like = at_least_float32(scores[:0]) * scale
        # log-sum-exp, split into the maximum and the sum of the rest
        row_top, row_sum = like.new_empty(2, len(scores))
        column_top, column_sum = like.new_zeros(2, scores.shape[1])
        column_top.fill_(torch.finfo(like.dtype).min)
        # mean logit of the positives
        row_mean = like.new_empty(len(scores))
        column_mean, column_count = like.new_zeros(2, scores.shape[1])
        row_count = like.new_ones(len(scores))
        for rows, _, logits, positive in _blocks(scores, scale, labels):
            if positive is None:
                row_mean[rows] = share.matching(logits, rows)
            else:
                matched = logits.masked_fill(~positive, 0.0)
                row_count[rows] = positive.sum(dim=1).to(like.dtype)
                row_mean[rows] = matched.sum(dim=1) / row_count[rows]
                column_count += positive.sum(dim=0)
                column_mean += matched.sum(dim=0)
            row_top[rows] = top = logits.amax(dim=1)
            row_sum[rows] = (logits - top.unsqueeze(1)).exp_().sum(dim=1)
            top = torch.maximum(column_top, logits.amax(dim=0))
            column_sum *= (column_top - top).exp_()
            column_sum += (logits - top).exp_().sum(dim=0)
            column_top = top
        if labels.is_multiple:
            column_mean, column_count = share.sum(
                torch.stack([column_mean, column_count])
            )
            column_mean /= column_count
        else:
            column_mean = share.gather(row_mean)
            column_count = torch.ones_like(column_mean)
        parts = share.gather(
            torch.stack([column_top, column_sum]).unsqueeze(0)
        )
        tops, sums = parts.unbind(dim=1)  # (processes, B)
        column_top = tops.amax(dim=0)
        column_sum = ((tops - column_top).exp() * sums).sum(dim=0)
        ctx.labels = labels
        ctx.save_for_backward(
            scores,
            log_scale,
            torch.stack([row_top, row_sum.log(), 1 / row_count]),
            torch.stack([column_top, column_sum.log(), 1 / column_count]),
        )
        # subtract first: both are large where the loss is small
        of_rows = share.gather((row_top - row_mean) + row_sum.log())
        of_columns = (column_top - column_mean) + column_sum.log()
        return (of_rows.mean() + of_columns.mean()) / 2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        scores, log_scale, row_parts, column_parts = ctx.saved_tensors
        labels, scale = ctx.labels, log_scale.exp()
        row_top, row_log, row_share = row_parts.unsqueeze(-1)
        column_top, column_log, column_share = column_parts
        # like the backward of a gather, sum the gradients of all processes
        factor = labels.share.sum(gradient) / (2 * scores.shape[1])
        by_scores = torch.empty_like(scores)
        by_log_scale = torch.zeros_like(scale)
        for rows, block, logits, positive in _blocks(scores, scale, labels):
            slopes = ((logits - row_top[rows]) - row_log[rows]).exp_()
            slopes += ((logits - column_top) - column_log).exp_()
            if positive is None:
                labels.share.matching(slopes, rows).sub_(2.0)
            else:
                shares = row_share[rows] + column_share  # (n, B)
                slopes -= shares.masked_fill_(~positive, 0.0)
            slopes *= factor
            by_log_scale += (slopes * block).sum() * scale
            by_scores[rows] = slopes.mul_(scale)
        return by_scores, by_log_scale, None


def _blocks(
    scores: Tensor, scale: Tensor, labels: PairLabels
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor | None]]:
    """Iterate over row slice, scores, logits (-inf if ignored), positives."""
    for rows, block, positive, ignored in labels.blocks(scores):
        logits = block * scale
        if ignored is not None:
            logits.masked_fill_(ignored, float('-inf'))
        yield rows, block, logits, positive
