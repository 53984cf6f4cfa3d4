"""Base classes of heads: prepare texts and videos, score pairs, train."""

from __future__ import annotations

import difflib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from mmengine.dist import broadcast, get_world_size
from mmengine.model import BaseModule
from torch import Tensor

from eaglenet_mm.models.heads.pair_grid import PairFunction, PairGrid
from eaglenet_mm.models.layers.keyed_random import KeyedRandom, PairRandom
from eaglenet_mm.models.losses import Share
from eaglenet_mm.models.precision import at_least_float32
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from eaglenet_mm.utils.dist import (
    agree_on_share,
    gather_features,
    gather_with_grad,
    own_rows,
)

#: Bytes per chunk in evaluation, by device type. Not configurable, because
#: the shape of a matrix product affects the last bits of the scores.
EVALUATION_BYTES = {'cpu': 40 * 2**20, 'cuda': 512 * 2**20}


class BasePairHead(BaseModule, ABC):
    """Base class of heads, which score every text against every video.

    A head defines what to precompute for texts and for videos, and how to
    score pairs. A pair's score must not depend on the rest of the batch. The
    base class adds chunking, row sharding across processes and the loss on
    the score matrix.

    Memory: evaluation uses chunks of a constant size
    (:data:`EVALUATION_BYTES`), so no setting changes a score, not even in the
    last bit. Training keeps as many chunks as fit ``memory_budget`` for the
    backward pass and recomputes the rest.

    Args:
        loss_match (dict, optional): Config of the loss on the score matrix,
            required for training. Losses with ``takes_share = True`` receive
            this process's rows and a
            :class:`~eaglenet_mm.models.losses.Share`; all others receive the
            full matrix. Default: None.
        memory_budget (int): Bytes for the intermediate tensors of pairs in
            training. Default: 512 MiB.
        init_cfg (dict, optional): See MMEngine's ``BaseModule``.
        embed_dim (int, optional): Required feature width. Default: None, any.
        num_frames (int, optional): Required number of frames.
            Default: None, any.
        numbers_per_pair (tuple[int, int], optional): Upper bound on the
            float32 numbers per pair in intermediate tensors: in evaluation,
            and kept for the backward pass in training. Default: None;
            :meth:`bytes_per_pair` must then be overridden.

    Raises:
        TypeError: If an option is unknown. Suggests a similar one.
        ValueError: If ``memory_budget`` is not a positive integer.

    Example:
        >>> class NearestFrameHead(BasePairHead):
        ...     def prepare_text(self, text):
        ...         return text
        ...     def prepare_video(self, video):
        ...         return video
        ...     def score(self, text, video):
        ...         return (video.frames @ text.embeds.T).amax(dim=1).T
        >>> head = NearestFrameHead(numbers_per_pair=(8, 16))
        >>> head(text, video).shape
        torch.Size([3, 4])
    """

    #: Whether evaluation passes each gallery video's own caption to the head.
    #: This leaks the answer; only for reproducing published numbers.
    needs_own_captions = False
    #: Inputs besides sentence and frame embeddings. A retriever rejects
    #: encoders known not to provide them (``output_tokens=False``).
    needs_tokens = False
    needs_patches = False
    #: Whether videos without any real frame are rejected.
    needs_real_frames = False
    #: Whether a search index also stores the result of ``prepare_video``: for
    #: heads that are slow to prepare or need more than frame embeddings.
    keeps_state = False
    #: Name of the shortlist scorer in logs.
    first_stage = 'mean pooling'

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Set ``first_stage`` for heads with their own shortlist scorer."""
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        overrides = 'shortlist_text' in own or 'shortlist_video' in own
        if overrides and 'first_stage' not in own:
            cls.first_stage = f'the vectors of {cls.__name__}'

    def __init__(
        self,
        loss_match: dict | None = None,
        memory_budget: int = 512 * 2**20,
        init_cfg: dict | None = None,
        *,
        embed_dim: int | None = None,
        num_frames: int | None = None,
        numbers_per_pair: tuple[int, int] | None = None,
        **unknown: Any,
    ) -> None:
        if unknown:
            raise TypeError(_unknown_option(type(self), next(iter(unknown))))
        super().__init__(init_cfg=init_cfg)
        if not isinstance(memory_budget, int) or memory_budget <= 0:
            raise ValueError(
                'memory_budget must be a positive number of bytes, but got '
                f'{memory_budget!r}.'
            )
        self.memory_budget = memory_budget
        self.embed_dim = embed_dim
        self.num_frames = num_frames
        self.numbers_per_pair = numbers_per_pair
        self.loss_match = (
            None if loss_match is None else MODELS.build(loss_match)
        )

    @abstractmethod
    def prepare_text(self, text: TextFeatures) -> Any:
        """Precompute everything that depends on the texts only.

        Returns:
            Features: Text state with ``Bt`` rows.
        """

    @abstractmethod
    def prepare_video(self, video: VideoFeatures) -> Any:
        """Precompute everything that depends on the videos only.

        Returns:
            Features: Video state with ``Bv`` rows, as stored in an index.
        """

    def check_features(self, text: TextFeatures, video: VideoFeatures) -> None:
        """Raise a ``ValueError`` if the head cannot process these features.

        The loss calls this first, so that all processes raise together.
        """
        self.check_text(text)
        self.check_video(video)

    def check_text(self, text: TextFeatures) -> None:
        """Check the width of texts and, if required, their tokens."""
        self._check_width('text', text.embeds.shape[-1])
        if not self.needs_tokens:
            return
        if text.tokens is None or text.token_mask is None:
            raise ValueError(
                f'{type(self).__name__} matches words, but the text encoder '
                'returns only sentence embeddings. Set output_tokens=True on '
                'the CLIPTextEncoder or HuggingFaceTextEncoder, or choose a '
                'head that works on sentence embeddings.'
            )
        silent = (~text.token_mask.any(dim=1)).nonzero().flatten()
        if len(silent):
            raise ValueError(
                f'{type(self).__name__} needs a real word in each text, but '
                f'{len(silent)} have none, the first at position '
                f'{int(silent[0])}. Remove empty captions.'
            )

    def check_video(self, video: VideoFeatures) -> None:
        """Check the size of videos and the inputs that the head requires."""
        name = type(self).__name__
        self._check_width('video', video.frames.shape[-1])
        frames = video.frames.shape[1]
        if self.num_frames is not None and frames != self.num_frames:
            raise ValueError(
                f'{name} was built for num_frames={self.num_frames}, but got '
                f'video features of shape {tuple(video.frames.shape)}. Set '
                'the same num_frames in the head, the preprocessor and the '
                'pipeline.'
            )
        if self.needs_real_frames:
            empty = (~video.frame_mask.any(dim=1)).nonzero().flatten()
            if len(empty):
                raise ValueError(
                    f'{name} needs a real frame of each video, but '
                    f'{len(empty)} have none, the first at position '
                    f'{int(empty[0])}. Leave them out.'
                )
        if self.needs_patches and video.patches is None:
            raise ValueError(
                f'{name} selects among patches, but the video encoder '
                'returns only frame embeddings. Set output_patches=True on '
                'the CLIPVideoEncoder, or choose a head that works on frame '
                'embeddings.'
            )

    def _check_width(self, side: str, width: int) -> None:
        if self.embed_dim is not None and width != self.embed_dim:
            raise ValueError(
                f'{type(self).__name__} was built for '
                f'embed_dim={self.embed_dim}, but the {side} features have '
                f'{width} channels. Set the same embed_dim in the head and '
                f'the {side} encoder.'
            )

    @abstractmethod
    def score(self, text_state: Any, video_state: Any) -> Tensor:
        """Score every text against every video.

        Args:
            text_state (Features): Output of :meth:`prepare_text`.
            video_state (Features): Output of :meth:`prepare_video`.

        Returns:
            Tensor: Scores without temperature, higher is better, shape
            ``(Bt, Bv)``.
        """

    def forward(self, text: TextFeatures, video: VideoFeatures) -> Tensor:
        """Score encoder features, shape ``(Bt, Bv)``."""
        return self.score(self.prepare_text(text), self.prepare_video(video))

    def bytes_per_pair(self, training: bool) -> int:
        """Bytes of intermediate tensors per pair; see ``numbers_per_pair``."""
        if self.numbers_per_pair is None:
            raise NotImplementedError(
                f'{type(self).__name__} does not declare its memory per pair. '
                'Pass numbers_per_pair=(in evaluation, in training) to the '
                'constructor of the base class.'
            )
        return 4 * self.numbers_per_pair[training]

    def chunk_scorer(self) -> Callable[[Any, Any], Tensor]:
        """Return a function that scores the chunks of a matrix.

        Override it to share work between chunks. Default: :meth:`score`.
        """
        return self.score

    @torch.no_grad()
    def score_chunked(
        self,
        text_state: Any,
        video_state: Any,
        scorer: Callable[[Any, Any], Tensor] | None = None,
    ) -> Tensor:
        """Score prepared texts and videos in chunks of constant size.

        Args:
            text_state (Features): Output of :meth:`prepare_text`. May be
                empty, like ``video_state``.
            video_state (Features): Output of :meth:`prepare_video`.
            scorer (Callable, optional): Output of :meth:`chunk_scorer`, to
                be reused for several matrices. Default: None, a new one.

        Returns:
            Tensor: Scores without gradient, in float32 (float64 for float64
            features), shape ``(Bt, Bv)``.
        """
        first = next(text_state.tensors())
        scores = torch.empty(
            len(text_state),
            len(video_state),
            device=first.device,
            dtype=torch.promote_types(first.dtype, torch.float32),
        )
        score = scorer or self.chunk_scorer()
        grid = PairGrid(
            range(len(text_state)),
            range(len(video_state)),
            self.bytes_per_pair(training=False),
            EVALUATION_BYTES.get(first.device.type, EVALUATION_BYTES['cuda']),
        )
        for rows, columns, part in grid.blocks(
            lambda texts, videos, _: score(texts, videos),
            text_state,
            video_state,
        ):
            scores[rows, columns] = part.to(scores.dtype)
        return scores

    def reseed(self, seed: int) -> None:
        """Redraw the evaluation noise of heads that have any."""

    def loss(
        self, text: TextFeatures, video: VideoFeatures
    ) -> dict[str, Tensor]:
        """Compute the training loss of matching texts and videos.

        Text ``i`` matches video ``i``. With several processes, each passes
        an equally large share of the joint batch and scores its own texts
        against all videos; the loss is that of the joint batch.

        Args:
            text (TextFeatures): Texts of this process.
            video (VideoFeatures): Their videos. Equal ``video_ids`` mark
                pairs of the same video.

        Returns:
            dict[str, Tensor]: Losses, and statistics for the log.

        Raises:
            ValueError: If the numbers of texts and videos, or the shares of
                the processes, differ; if features are not finite; if the
                head has no ``loss_match``; or if the memory budget is too
                small.
        """
        batch = self.open_batch(text, video)
        scores = batch.map(lambda texts, videos, _: self.score(texts, videos))
        return self.match_losses(scores, batch.share)

    def open_batch(
        self, text: TextFeatures, video: VideoFeatures
    ) -> TrainingBatch:
        """Check and prepare a training batch, the first step of any loss.

        Collective call. Same arguments and errors as :meth:`loss`.
        """
        share = self._check_batch(text, video)
        random = self.next_random()
        states = self.prepare_batch(text, video, share, random)
        return self.batch_of_states(*states, share, random)

    def next_random(self) -> KeyedRandom | None:
        """Random numbers of the next training step, None if unused."""
        return None

    def prepare_batch(
        self,
        text: TextFeatures,
        video: VideoFeatures,
        share: Share,
        random: KeyedRandom | None,
    ) -> tuple[Any, Any]:
        """Prepare texts and videos for training, by default as for scoring."""
        return self.prepare_text(text), self.prepare_video(video)

    def batch_of_states(
        self,
        text_state: Any,
        video_state: Any,
        share: Share,
        random: KeyedRandom | None,
    ) -> TrainingBatch:
        """Build a training batch from prepared texts and videos."""
        grid = PairGrid(
            share.rows,
            range(len(share.rows) * get_world_size()),
            self.bytes_per_pair(training=True),
            self.memory_budget,
            random=random if self.training else None,
        )
        return TrainingBatch(text_state, video_state, share, random, grid)

    def match(self, scores: Tensor, share: Share) -> Tensor:
        """Apply ``loss_match`` to this process's rows ``(b, B)``."""
        if self.loss_match is None:
            raise ValueError(
                f'{type(self).__name__} has no loss_match and cannot be '
                'trained. Set one in the config, for example loss_match=dict('
                "type='PairwiseSigmoidLoss')."
            )
        if getattr(self.loss_match, 'takes_share', False):
            return self.loss_match(scores, share=share)
        return self.loss_match(share.gather(scores))

    def match_losses(self, scores: Tensor, share: Share) -> dict[str, Tensor]:
        """Compute ``loss_match`` and its statistics from own rows ``(b, B)``.

        Statistics are the mean score of matching pairs (``pos_score``) and of
        all others (``neg_score``) and, if videos have ids, the number of item
        pairs in the joint batch that share a video (``same_video_pairs``).
        """
        own, size = scores.detach(), scores.shape[1]
        sums = share.sum(torch.stack([share.matching(own).sum(), own.sum()]))
        watched = {'pos_score': sums[0] / size}
        if size > 1:
            watched['neg_score'] = (sums[1] - sums[0]) / (size**2 - size)
        if share.positives is not None:
            watched['same_video_pairs'] = _count_pairs(share.positives)
        return {'loss_match': self.match(scores, share), **watched}

    def _check_batch(self, text: TextFeatures, video: VideoFeatures) -> Share:
        """Raise in all processes if the batch of any process is invalid."""
        fault = _find_fault(text, video)
        if fault is None:
            try:
                self.check_features(text, video)
            except ValueError as error:
                fault = str(error)
        ids = video.video_ids
        agree_on_share(len(text), fault, ids is not None)
        return Share(
            own_rows(len(text) * get_world_size()),
            gather_with_grad,
            None if ids is None else gather_with_grad(ids),
        )

    def shortlist_text(self, text: TextFeatures) -> Tensor:
        """Text vectors of the shortlist score, norm at most 1, ``(Bt, C)``.

        Override it together with :meth:`shortlist_video`, and optionally
        ``first_stage``.
        """
        return unit_sentences(text)

    def shortlist_video(self, video: VideoFeatures) -> Tensor:
        """Video vectors of the shortlist score, norm at most 1, ``(Bv, C)``.

        The shortlist score is their inner product with the text vectors. By
        default the mean of the real frames, without parameters.
        """
        return mean_of_unit_frames(video)

    def explain(
        self, text: TextFeatures, video: VideoFeatures
    ) -> PairExplanation:
        """Return what the scores are based on, for visualization.

        By default the cosine similarity of sentence and frames, straight from
        the encoders. Heads with attention weights override this. The state of
        the head does not change.
        """
        return PairExplanation({'cosine': frame_cosines(text, video)})


class SeededHead(BasePairHead):
    """Base class of heads with reproducible random numbers.

    Random numbers in training are a hash of a seed, the step and the position
    in the joint batch. They depend neither on the number of processes nor on
    chunking, and recomputing a chunk draws the same ones. The checkpoint
    stores seed and step.

    For dropout on pairs, give ``score`` a third argument ``random=None``, a
    :class:`PairRandom`, and call ``batch.map(self.score)`` in ``loss``.

    Args:
        *args: See :class:`BasePairHead`.
        **kwargs: See :class:`BasePairHead`.

    Example:
        >>> from eaglenet_mm.models.heads import XPoolHead
        >>> head = XPoolHead(embed_dim=32).train()
        >>> head.next_random().step, head.next_random().step
        (0, 1)
    """

    random_key: Tensor
    #: Config option that sets each axis of ``noise_table``, for heads that
    #: store their evaluation noise in the checkpoint.
    noise_axes: ClassVar[dict[int, str]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # seed of the run, next training step
        self.register_buffer(
            'random_key', torch.tensor([torch.initial_seed() % 2**62, 0])
        )
        self._key_is_shared = False

    def next_random(self) -> KeyedRandom:
        """Random numbers of this step, the same in all processes."""
        if not self._key_is_shared:
            broadcast(self.random_key)  # seeds may differ between processes
            self._key_is_shared = True
        random = KeyedRandom(*self.random_key.tolist())
        if self.training:
            self.random_key[1] += 1
        return random

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args: Any
    ) -> None:
        """Keep current buffers that a foreign checkpoint lacks."""
        for name in ('random_key', 'noise_table'):
            if hasattr(self, name):
                state_dict.setdefault(prefix + name, getattr(self, name))
        if self.noise_axes:
            self._check_noise_table(state_dict, prefix + 'noise_table', args)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _check_noise_table(
        self, state_dict: dict, key: str, args: Any
    ) -> None:
        """Report the option that differs if a noise table does not fit."""
        own: Any = self.noise_table
        given = state_dict[key]
        if given.shape == own.shape or given.dim() != own.dim():
            return
        different = {
            option: (given.shape[axis], own.shape[axis])
            for axis, option in self.noise_axes.items()
            if given.shape[axis] != own.shape[axis]
        }
        for option, (theirs, ours) in different.items():
            args[-1].append(  # error messages
                f'{key} has the evaluation noise of {option}={theirs}, but '
                f'{type(self).__name__} was built with {option}={ours}: set '
                f'model.head.{option}={theirs} to use this checkpoint.'
            )
        if different:
            state_dict[key] = own  # no second error about the shape


class PairDropoutHead(SeededHead):
    """Deprecated: a :class:`SeededHead` whose ``score`` takes ``random``.

    Example:
        >>> issubclass(PairDropoutHead, SeededHead)
        True
    """

    @abstractmethod
    def score_pairs(
        self,
        text_state: Any,
        video_state: Any,
        random: PairRandom | None = None,
    ) -> Tensor:
        """Score every text against every video, with dropout if ``random``."""

    def score(self, text_state: Any, video_state: Any) -> Tensor:
        """Score without dropout; see the base class."""
        return self.score_pairs(text_state, video_state)

    def loss(
        self, text: TextFeatures, video: VideoFeatures
    ) -> dict[str, Tensor]:
        """Compute the training loss; see the base class."""
        batch = self.open_batch(text, video)
        return self.match_losses(batch.map(self.score_pairs), batch.share)


@dataclass
class TrainingBatch:
    """Prepared texts and videos of this process for a training step.

    Args:
        text (Features): Text state, ``b`` rows.
        video (Features): State of their videos, ``b`` rows.
        share (Share): Their rows in the joint batch.
        random (KeyedRandom, optional): Random numbers of the step.
        grid (PairGrid): Own texts by all videos, ``(b, B)``. Provides random
            numbers in training mode only.
    """

    text: Any
    video: Any
    share: Share
    random: Any
    grid: PairGrid

    @cached_property
    def all_videos(self) -> Any:
        """Video state gathered from all processes; a collective call."""
        return gather_features(self.video)

    def map(self, function: PairFunction) -> Tensor:
        """Apply a function to all pairs; see :meth:`PairGrid.map`."""
        return self.grid.map(function, self.text, self.all_videos)


@dataclass
class PairExplanation:
    """Weights behind the scores of ``Bt`` texts and ``Bv`` videos.

    Args:
        frame_weights (dict[str, Tensor]): Frame weights by name, each of
            shape ``(Bt, Bv, F)`` and 0 for frames that the head masks.
            ``'cosine'`` holds cosine similarities in [-1, 1]; all others sum
            to 1 over the frames.
        text_weights (dict[str, Tensor]): Weights by name of the text
            candidates of a pair, shape ``(Bt, Bv, K)``, sum 1. Default: none.
        enriched (Tensor, optional): Text embedding that the head compares
            with the video, shape ``(Bt, Bv, D)``.
        pooled (Tensor, optional): Video embedding that it is compared with,
            shape ``(Bt, Bv, D)``.

    Example:
        >>> found = PairExplanation({'cosine': frame_cosines(text, video)})
        >>> found.frame_weights['cosine'].shape
        torch.Size([3, 4, 8])
    """

    frame_weights: dict[str, Tensor]
    text_weights: dict[str, Tensor] = field(default_factory=dict)
    enriched: Tensor | None = None
    pooled: Tensor | None = None


def _unknown_option(kind: type, name: str) -> str:
    """Error message with the most similar option of the head or its bases."""
    known = {
        option
        for base in kind.__mro__
        if issubclass(base, BasePairHead)
        for option in inspect.signature(base).parameters
    } - {'args', 'kwargs', 'unknown', 'numbers_per_pair'}
    near = difflib.get_close_matches(name, sorted(known), 1)
    hint = f'did you mean {near[0]!r}?' if near else f'it has {sorted(known)}.'
    return f'{kind.__name__} has no option {name!r}; {hint}'


def unit_sentences(text: TextFeatures) -> Tensor:
    """L2-normalised sentence embeddings, float32 or wider, ``(Bt, D)``."""
    return F.normalize(at_least_float32(text.embeds), dim=-1)


def mean_of_unit_frames(video: VideoFeatures) -> Tensor:
    """L2-normalised mean of the L2-normalised real frames, ``(Bv, D)``.

    Float32 or wider; zero for videos without a real frame.
    """
    mask = video.frame_mask.unsqueeze(-1)
    # in half precision, normalising a zero frame gives NaN
    frames = F.normalize(at_least_float32(video.frames), dim=-1)
    frames = frames * mask  # (Bv, F, D)
    mean = frames.sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    return F.normalize(mean, dim=-1)


def frame_cosines(text: TextFeatures, video: VideoFeatures) -> Tensor:
    """Cosine similarity of sentences and frames, ``(Bt, Bv, F)``.

    Float32 or wider, 0 for padded frames.
    """
    frames = at_least_float32(video.frames)
    with torch.autocast(frames.device.type, enabled=False):
        frames = F.normalize(frames, dim=-1)
        sentences = unit_sentences(text)
        cosines = torch.einsum(
            'td,vfd->tvf', sentences, frames.to(sentences.dtype)
        )
    return cosines * video.frame_mask


def _find_fault(text: TextFeatures, video: VideoFeatures) -> str | None:
    """Error message if the batch of this process is invalid, else None."""
    if len(text) != len(video):
        return (
            'Training needs one text per video, but got '
            f'{len(text)} texts and {len(video)} videos. Wrap the dataset '
            'in CaptionExpansion, RandomCaption or ParagraphDataset.'
        )
    if len(text) == 0:
        return (
            'Training needs at least one pair, but the batch is empty. Set '
            'drop_last=True in the dataloader.'
        )
    if text.embeds.shape[-1] != video.frames.shape[-1]:
        return (
            'Text and video features must have the same width, but got '
            f'{tuple(text.embeds.shape)} and '
            f'{tuple(video.frames.shape)}. Set the same embed_dim in both '
            'encoders.'
        )
    ids = video.video_ids
    if ids is not None and (
        tuple(ids.shape) != (len(video),) or ids.dtype is not torch.int64
    ):
        return (
            'video_ids must be one int64 per video, shape '
            f'({len(video)},), but are {ids.dtype} of shape '
            f'{tuple(ids.shape)}.'
        )
    for side, feats in (('text', text.embeds), ('video', video.frames)):
        wrong = (~feats.isfinite()).flatten(1).any(dim=1)
        if bool(wrong.any()):
            return (
                f'The {side} features of {int(wrong.sum())} of '
                f'{len(wrong)} items in the batch are not finite, the '
                f'first at position {int(wrong.nonzero()[0])}. Lower the '
                'learning rate, or train without half precision.'
            )
    return None


def _count_pairs(ids: Tensor) -> Tensor:
    """Count the pairs of equal ids without a device synchronization."""
    ordered = ids.sort().values
    # each id forms a pair with every equal one before it
    places = torch.arange(len(ids), device=ids.device)
    return (places - torch.searchsorted(ordered, ordered)).sum().float()
