"""The contract of heads: prepare each side, score pairs, learn from scores."""

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

#: Bytes of one chunk in evaluation, by type of device. No option: the shape
#: of a product decides on its last bits, and no option may change a score.
EVALUATION_BYTES = {'cpu': 40 * 2**20, 'cuda': 512 * 2**20}


class BasePairHead(BaseModule, ABC):
    """Base of all methods: scores every text against every video.

    A method states what it prepares of each side and how it scores pairs. The
    score of a pair must not depend on what else is in the batch. Chunks, the
    sharing of rows between processes and the plain loss come for free.

    Memory: a method states how many float32 numbers a pair takes, in
    evaluation and in training. Evaluation cuts chunks of one constant size
    (:data:`EVALUATION_BYTES`), so that scores are the same to the last bit
    whatever is set. Training keeps what fits ``memory_budget`` for the
    backward pass, and computes the rest again in it.

    Args:
        loss_match (dict, optional): Config of the loss on the score matrix.
            Only training needs it. A loss of another package gets the joint
            matrix, one with ``takes_share = True`` its own rows and a
            :class:`~eaglenet_mm.models.losses.Share`. Default: None.
        memory_budget (int): Bytes that the intermediate tensors of pairs may
            take in training. Default: 512 MiB.
        init_cfg (dict, optional): Of MMEngine's ``BaseModule``.
        embed_dim (int, optional): Width that features must have.
            Default: None, any.
        num_frames (int, optional): Frames that videos must have.
            Default: None, any number.
        numbers_per_pair (tuple[int, int], optional): Float32 numbers that the
            intermediate tensors of one pair take at most, in evaluation and,
            kept for the backward pass, in training. Default: None, then
            :meth:`bytes_per_pair` must be overridden.

    Raises:
        TypeError: If an option is unknown, with the one that is like it.
        ValueError: If ``memory_budget`` is no positive integer.

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

    #: Whether evaluation shows the head the caption of each gallery video, as
    #: a published protocol may want; no sound one does.
    needs_own_captions = False
    #: What the head reads besides sentences and frames. A retriever refuses
    #: encoders that state not to give it (``output_tokens=False``).
    needs_tokens = False
    needs_patches = False
    #: Whether a video without a real frame is refused.
    needs_real_frames = False
    #: Whether an index of videos keeps what ``prepare_video`` returned beside
    #: the features: where preparing is dear, or needs more than frames.
    keeps_state = False
    #: What the log says shortlists are made by.
    first_stage = 'mean pooling'

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Name the first stage of a head that brings its own."""
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        brings_one = 'shortlist_text' in own or 'shortlist_video' in own
        if brings_one and 'first_stage' not in own:
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
                'memory_budget is a positive number of bytes, but got '
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
        """Compute what depends on the texts alone.

        Gives a :class:`~eaglenet_mm.structures.Features` of ``Bt`` rows.
        """

    @abstractmethod
    def prepare_video(self, video: VideoFeatures) -> Any:
        """Compute what depends on the videos alone; an index stores this.

        Gives a :class:`~eaglenet_mm.structures.Features` of ``Bv`` rows.
        """

    def check_features(self, text: TextFeatures, video: VideoFeatures) -> None:
        """Refuse features that do not fit, with a ``ValueError``.

        The loss asks before it prepares anything, so that processes can
        agree on an error.
        """
        self.check_text(text)
        self.check_video(video)

    def check_text(self, text: TextFeatures) -> None:
        """Refuse texts of another width, or without words that are needed."""
        self._check_width('text', text.embeds.shape[-1])
        if not self.needs_tokens:
            return
        if text.tokens is None or text.token_mask is None:
            raise ValueError(
                f'{type(self).__name__} matches words, but the text encoder '
                'returns sentences alone. Set output_tokens=True of a '
                'CLIPTextEncoder or HuggingFaceTextEncoder, or choose a head '
                'that takes sentences.'
            )
        silent = (~text.token_mask.any(dim=1)).nonzero().flatten()
        if len(silent):
            raise ValueError(
                f'{type(self).__name__} needs a real word of each text, but '
                f'{len(silent)} have none, the first at position '
                f'{int(silent[0])}. Remove empty captions.'
            )

    def check_video(self, video: VideoFeatures) -> None:
        """Refuse videos of another size, or without what is needed."""
        name = type(self).__name__
        self._check_width('video', video.frames.shape[-1])
        frames = video.frames.shape[1]
        if self.num_frames is not None and frames != self.num_frames:
            raise ValueError(
                f'{name} was built for num_frames={self.num_frames}, but got '
                f'video features of shape {tuple(video.frames.shape)}. Set '
                'num_frames alike in the head, the preprocessor and the '
                'pipeline.'
            )
        if self.needs_real_frames:
            empty = (~video.frame_mask.any(dim=1)).nonzero().flatten()
            if len(empty):
                raise ValueError(
                    f'{name} needs a real frame of each video, but '
                    f'{len(empty)} have none, the first at position '
                    f'{int(empty[0])}. Remove them from the annotations.'
                )
        if self.needs_patches and video.patches is None:
            raise ValueError(
                f'{name} selects among patches, but the video encoder '
                'returns frames alone. Set output_patches=True of a '
                'CLIPVideoEncoder, or choose a head that takes frames.'
            )

    def _check_width(self, side: str, width: int) -> None:
        if self.embed_dim is not None and width != self.embed_dim:
            raise ValueError(
                f'{type(self).__name__} was built for '
                f'embed_dim={self.embed_dim}, but the {side} features have '
                f'{width} channels. Set embed_dim alike in the head and the '
                f'{side} encoder.'
            )

    @abstractmethod
    def score(self, text_state: Any, video_state: Any) -> Tensor:
        """Score every text against every video.

        Args:
            text_state (Features): Of :meth:`prepare_text`, ``Bt`` rows.
            video_state (Features): Of :meth:`prepare_video`, ``Bv`` rows.

        Returns:
            Tensor: Shape ``(Bt, Bv)``, higher is better, no temperature.
        """

    def forward(self, text: TextFeatures, video: VideoFeatures) -> Tensor:
        """Score features, shape ``(Bt, Bv)``."""
        return self.score(self.prepare_text(text), self.prepare_video(video))

    def bytes_per_pair(self, training: bool) -> int:
        """Bytes of a pair's tensors, in float32; see ``numbers_per_pair``."""
        if self.numbers_per_pair is None:
            raise NotImplementedError(
                f'{type(self).__name__} does not say how much memory a pair '
                'takes. Pass numbers_per_pair=(in evaluation, in training) to '
                'the constructor of the base class.'
            )
        return 4 * self.numbers_per_pair[training]

    def chunk_scorer(self) -> Callable[[Any, Any], Tensor]:
        """Give the function that scores chunks of one matrix.

        A head that can share work between chunks overrides this; by default
        it is :meth:`score`.
        """
        return self.score

    @torch.no_grad()
    def score_chunked(
        self,
        text_state: Any,
        video_state: Any,
        scorer: Callable[[Any, Any], Tensor] | None = None,
    ) -> Tensor:
        """Score prepared sides in chunks of constant size.

        Args:
            text_state (Features): Of :meth:`prepare_text`, ``Bt`` rows.
            video_state (Features): Of :meth:`prepare_video`, ``Bv`` rows.
            scorer (Callable, optional): Of :meth:`chunk_scorer`, where it
                serves several matrices. Default: None, a new one.

        Returns:
            Tensor: Float32 (float64 for float64 features), without gradient,
            shape ``(Bt, Bv)``. Either side may be empty.
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
        """Draw the random numbers of the evaluation anew, if there are any."""

    def loss(
        self, text: TextFeatures, video: VideoFeatures
    ) -> dict[str, Tensor]:
        """Compute the training loss of matching texts and videos.

        Text ``i`` belongs to video ``i``. With several processes every
        process passes its own share, of equal size, prepares it, and scores
        the rows of its own texts only; the loss is that of the joint batch.

        Args:
            text (TextFeatures): Of the own texts.
            video (VideoFeatures): Of the own videos. Losses learn from their
                ``video_ids`` which other pairs are of the same video.

        Returns:
            dict[str, Tensor]: Losses, and scores to watch.

        Raises:
            ValueError: If the sides differ in number, processes differ in
                their share, features are not finite, the head has no
                ``loss_match`` or the memory budget is too small.
        """
        batch = self.open_batch(text, video)
        scores = batch.map(lambda texts, videos, _: self.score(texts, videos))
        return self.match_losses(scores, batch.share)

    def open_batch(
        self, text: TextFeatures, video: VideoFeatures
    ) -> TrainingBatch:
        """Check a training batch and prepare both sides; starts every loss.

        All processes call this together. Arguments and errors are those of
        :meth:`loss`.
        """
        share = self._agree(text, video)
        random = self.next_random()
        states = self.prepare_batch(text, video, share, random)
        return self.batch_of_states(*states, share, random)

    def next_random(self) -> KeyedRandom | None:
        """Random numbers of the next training step; None if there are none."""
        return None

    def prepare_batch(
        self,
        text: TextFeatures,
        video: VideoFeatures,
        share: Share,
        random: KeyedRandom | None,
    ) -> tuple[Any, Any]:
        """Prepare the own sides for training; by default as always."""
        return self.prepare_text(text), self.prepare_video(video)

    def batch_of_states(
        self,
        text_state: Any,
        video_state: Any,
        share: Share,
        random: KeyedRandom | None,
    ) -> TrainingBatch:
        """Join prepared sides to a training batch."""
        grid = PairGrid(
            share.rows,
            range(len(share.rows) * get_world_size()),
            self.bytes_per_pair(training=True),
            self.memory_budget,
            random=random if self.training else None,
        )
        return TrainingBatch(text_state, video_state, share, random, grid)

    def match(self, scores: Tensor, share: Share) -> Tensor:
        """Apply ``loss_match`` to own rows of the matrix, ``(b, B)``."""
        if self.loss_match is None:
            raise ValueError(
                f'{type(self).__name__} has no loss_match, so it cannot be '
                'trained. Name one in the config, for example loss_match=dict('
                "type='PairwiseSigmoidLoss')."
            )
        if getattr(self.loss_match, 'takes_share', False):
            return self.loss_match(scores, share=share)
        return self.loss_match(share.gather(scores))

    def match_losses(self, scores: Tensor, share: Share) -> dict[str, Tensor]:
        """Match own rows of the matrix, and tell what to watch.

        Gives ``loss_match``; the mean scores of matching pairs,
        ``pos_score``, and of all others, ``neg_score``; and where videos have
        ids how many pairs of items of the joint batch are of one video,
        ``same_video_pairs``.
        """
        own, size = scores.detach(), scores.shape[1]
        sums = share.sum(torch.stack([share.matching(own).sum(), own.sum()]))
        watched = {'pos_score': sums[0] / size}
        if size > 1:
            watched['neg_score'] = (sums[1] - sums[0]) / (size**2 - size)
        if share.positives is not None:
            watched['same_video_pairs'] = _count_pairs(share.positives)
        return {'loss_match': self.match(scores, share), **watched}

    def _agree(self, text: TextFeatures, video: VideoFeatures) -> Share:
        """Refuse a batch in every process if it is wrong in one of them."""
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
        """Give the text side of the cheap score that makes shortlists.

        Vectors of unit length at most, ``(Bt, C)``. A head that overrides
        this overrides :meth:`shortlist_video` too, and may name what it does
        in ``first_stage``.
        """
        return unit_sentences(text)

    def shortlist_video(self, video: VideoFeatures) -> Tensor:
        """Give the video side; the inner product is the cheap score.

        Vectors of unit length at most, ``(Bv, C)``: by default the mean of
        the real frames, without parameters.
        """
        return mean_of_unit_frames(video)

    def explain(
        self, text: TextFeatures, video: VideoFeatures
    ) -> PairExplanation:
        """Tell what the head looks at in every pair, for pictures.

        By default the cosine of the sentence and each frame, as the encoders
        give them. A head with weights of its own overrides this. Does not
        change the state of the head.
        """
        return PairExplanation({'cosine': frame_cosines(text, video)})


class SeededHead(BasePairHead):
    """Base of heads with random numbers that do not depend on the process.

    Random numbers of training are a hash of a key, the number of the step and
    the place in the joint batch: they are the same in one process and in
    several, in whatever chunks, and when a chunk is computed again. The key
    and the step are kept in the checkpoint.

    In training mode ``score`` may take the random numbers of its pairs, a
    :class:`PairRandom`: give it a third argument ``random=None`` and use
    ``batch.map(self.score)`` in ``loss``.

    Args:
        *args: See :class:`BasePairHead`.
        **kwargs: Likewise.

    Example:
        >>> from eaglenet_mm.models.heads import XPoolHead
        >>> head = XPoolHead(embed_dim=32).train()
        >>> head.next_random().step, head.next_random().step
        (0, 1)
    """

    random_key: Tensor
    #: What the axes of ``noise_table`` are called in the config, for heads
    #: that keep the noise of their evaluation in the checkpoint.
    noise_axes: ClassVar[dict[int, str]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # seed of the run and number of the next training step
        self.register_buffer(
            'random_key', torch.tensor([torch.initial_seed() % 2**62, 0])
        )
        self._key_is_shared = False

    def next_random(self) -> KeyedRandom:
        """Random numbers of this step, the same in every process."""
        if not self._key_is_shared:
            # processes may have been seeded differently
            broadcast(self.random_key)
            self._key_is_shared = True
        random = KeyedRandom(*self.random_key.tolist())
        if self.training:
            self.random_key[1] += 1
        return random

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args: Any
    ) -> None:
        """Keep own numbers where a checkpoint of others has none."""
        for name in ('random_key', 'noise_table'):
            if hasattr(self, name):
                state_dict.setdefault(prefix + name, getattr(self, name))
        if self.noise_axes:
            self._check_noise_table(state_dict, prefix + 'noise_table', args)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _check_noise_table(
        self, state_dict: dict, key: str, args: Any
    ) -> None:
        """Say which option differs where a table of noise does not fit."""
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
            args[-1].append(  # messages of what does not fit
                f'{key} has the evaluation noise of {option}={theirs}, but '
                f'{type(self).__name__} was built with {option}={ours}: set '
                f'model.head.{option}={theirs} to use this checkpoint.'
            )
        if different:
            state_dict[key] = own  # said already, in words


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
        """Score every text against every video, in training at random."""

    def score(self, text_state: Any, video_state: Any) -> Tensor:
        """Score as in evaluation; see the base class."""
        return self.score_pairs(text_state, video_state)

    def loss(
        self, text: TextFeatures, video: VideoFeatures
    ) -> dict[str, Tensor]:
        """Compute the training loss; see the base class."""
        batch = self.open_batch(text, video)
        return self.match_losses(batch.map(self.score_pairs), batch.share)


@dataclass
class TrainingBatch:
    """Own texts and videos of a training step, prepared for their loss.

    Args:
        text (Features): State of the own texts, ``b`` rows.
        video (Features): State of their videos, ``b`` rows.
        share (Share): Which rows of the joint batch they are.
        random (KeyedRandom, optional): Random numbers of the step.
        grid (PairGrid): Own texts with all videos, ``(b, B)``. Hands out
            random numbers in training mode alone.
    """

    text: Any
    video: Any
    share: Share
    random: Any
    grid: PairGrid

    @cached_property
    def all_videos(self) -> Any:
        """State of the videos of all processes; all call this together."""
        return gather_features(self.video)

    def map(self, function: PairFunction) -> Tensor:
        """Compute something of all pairs; see :meth:`PairGrid.map`."""
        return self.grid.map(function, self.text, self.all_videos)


@dataclass
class PairExplanation:
    """Weights behind the scores of ``Bt`` texts and ``Bv`` videos.

    Args:
        frame_weights (dict[str, Tensor]): By name, one weight a frame, each
            of shape ``(Bt, Bv, F)``. ``'cosine'`` holds cosines in [-1, 1];
            all others are shares that sum to 1 over the frames. Frames that
            the head masks have 0.
        text_weights (dict[str, Tensor]): By name, shares of several texts of
            a pair, shape ``(Bt, Bv, K)``, which sum to 1. Default: none.
        enriched (Tensor, optional): The text as the head compares it with
            the video, shape ``(Bt, Bv, D)``.
        pooled (Tensor, optional): The video as it is compared with it, shape
            ``(Bt, Bv, D)``.

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
    """Name the head and, of its options and those of its bases, the nearest.

    Heads pass on what they do not know, so that the last base finds it.
    """
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
    """Sentences of unit length, float32 or wider, ``(Bt, D)``."""
    return F.normalize(at_least_float32(text.embeds), dim=-1)


def mean_of_unit_frames(video: VideoFeatures) -> Tensor:
    """Mean of the real frames, each of unit length, brought to unit length.

    Float32 or wider, zero where a video has no real frame, ``(Bv, D)``.
    """
    mask = video.frame_mask.unsqueeze(-1)
    # a zero frame has no direction, and in half precision a NaN
    frames = F.normalize(at_least_float32(video.frames), dim=-1)
    frames = frames * mask  # (Bv, F, D)
    mean = frames.sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    return F.normalize(mean, dim=-1)


def frame_cosines(text: TextFeatures, video: VideoFeatures) -> Tensor:
    """Cosines of sentences and frames, as the encoders give them.

    In [-1, 1], 0 for padded frames, float32 or wider, ``(Bt, Bv, F)``.
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
    """Say what is wrong with the batch of this process, None if nothing."""
    if len(text) != len(video):
        return (
            'Training needs one text a video, but got '
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
            f'{tuple(video.frames.shape)}. Make the encoders agree in '
            'embed_dim.'
        )
    ids = video.video_ids
    if ids is not None and (
        tuple(ids.shape) != (len(video),) or ids.dtype is not torch.int64
    ):
        return (
            'video_ids must be one int64 a video, shape '
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
    """Count the pairs of equal ids, without waiting for the device."""
    ordered = ids.sort().values
    # each id pairs with the equal ones before it
    before = torch.arange(len(ids), device=ids.device)
    before = before - torch.searchsorted(ordered, ordered)
    return before.sum().float()
