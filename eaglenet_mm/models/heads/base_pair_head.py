"""What every head has in common: the contract, chunks and own rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor

from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from eaglenet_mm.utils.dist import gather_features, gather_with_grad

#: Bytes of one chunk in evaluation, by type of device. No option: the shape
#: of a product decides on its last bits, and no option may change a score.
EVALUATION_BYTES = {'cpu': 32 * 2**20, 'cuda': 512 * 2**20}


class BasePairHead(BaseModule, ABC):
    """Scores every text against every video; the base of all methods.

    A method states what it prepares of each side and how it scores pairs. The
    score of a pair must not depend on what else is in the batch. Chunking,
    the sharing of rows between processes and the plain loss come for free.

    Args:
        loss_match (dict, optional): Config of the loss on the score matrix.
            Only training needs it. Default: None.
        memory_budget (int): Bytes that the intermediate tensors of one chunk
            of pairs may take in training. Evaluation cuts chunks of one
            constant size, so that scores are the same to the last bit
            whatever is set. Default: 512 MiB.
        init_cfg (dict, optional): Of MMEngine's ``BaseModule``.
    """

    def __init__(
        self,
        loss_match: dict | None = None,
        memory_budget: int = 512 * 2**20,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if memory_budget <= 0:
            raise ValueError(
                'memory_budget is a positive number of bytes, but got '
                f'{memory_budget}.'
            )
        self.memory_budget = memory_budget
        self.loss_match = (
            None if loss_match is None else MODELS.build(loss_match)
        )

    @abstractmethod
    def prepare_text(self, text: TextFeatures) -> Any:
        """Compute what depends on the texts alone.

        Args:
            text (TextFeatures): Features of ``Bt`` texts.

        Returns:
            Any: A :class:`~eaglenet_mm.structures.Features` of ``Bt`` rows.
        """

    @abstractmethod
    def prepare_video(self, video: VideoFeatures) -> Any:
        """Compute what depends on the videos alone; an index stores this.

        Args:
            video (VideoFeatures): Features of ``Bv`` videos.

        Returns:
            Any: A :class:`~eaglenet_mm.structures.Features` of ``Bv`` rows.
        """

    @abstractmethod
    def score(self, text_state: Any, video_state: Any) -> Tensor:
        """Score every text against every video.

        Returns:
            Tensor: Shape ``(Bt, Bv)``, higher is better, no temperature.
        """

    @abstractmethod
    def bytes_per_pair(self) -> int:
        """Tell what the intermediate tensors of one pair take in float32."""

    def forward(self, text: TextFeatures, video: VideoFeatures) -> Tensor:
        """Score features, shape ``(Bt, Bv)``."""
        return self.score(self.prepare_text(text), self.prepare_video(video))

    def reseed(self, seed: int) -> None:
        """Draw the random numbers of the evaluation anew, if there are any.

        Args:
            seed (int): Seed of the new numbers.
        """

    def chunks(
        self, num_texts: int, num_videos: int, budget: int
    ) -> Iterator[tuple[slice, slice]]:
        """Cut a matrix of pairs into blocks of some bytes at most.

        Args:
            num_texts (int): Rows.
            num_videos (int): Columns.
            budget (int): Bytes of a block, by :meth:`bytes_per_pair`; a block
                has one pair at least.

        Yields:
            tuple[slice, slice]: Rows and columns of a block.
        """
        pairs = max(1, budget // self.bytes_per_pair())
        columns = max(1, min(num_videos, pairs))
        rows = max(1, min(num_texts, pairs // columns))
        for row in range(0, num_texts, rows):
            for column in range(0, num_videos, columns):
                yield (
                    slice(row, min(row + rows, num_texts)),
                    slice(column, min(column + columns, num_videos)),
                )

    @torch.no_grad()
    def score_chunked(self, text_state: Any, video_state: Any) -> Tensor:
        """Score prepared sides in chunks of constant size.

        Args:
            text_state: Of :meth:`prepare_text`, ``Bt`` rows.
            video_state: Of :meth:`prepare_video`, ``Bv`` rows.

        Returns:
            Tensor: Float32 (float64 for float64 features), without gradient,
            shape ``(Bt, Bv)``.
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
        for rows, columns in self.chunks(num_texts, num_videos, budget):
            scores[rows, columns] = self.score(
                text_state.index_select(rows),
                video_state.index_select(columns),
            ).to(scores.dtype)
        return scores

    def loss(
        self, text: TextFeatures, video: VideoFeatures
    ) -> dict[str, Tensor]:
        """Compute the training loss of matching texts and videos.

        Text ``i`` belongs to video ``i``. With several processes every
        process passes its own share, of equal size; the loss is that of the
        joint batch, and each process scores the rows of its own texts only.

        Args:
            text (TextFeatures): Of the own texts.
            video (VideoFeatures): Of the own videos.

        Returns:
            dict[str, Tensor]: Losses, and scores to watch.

        Raises:
            ValueError: If the sides differ in number, features are not
                finite or the head has no ``loss_match``.
        """
        self.check_batch(text, video)
        all_videos = gather_features(video)
        rows = self.score(
            self.prepare_text(text), self.prepare_video(all_videos)
        )
        return self.match_losses(gather_with_grad(rows))

    def match(self, scores: Tensor) -> Tensor:
        """Apply ``loss_match`` to a joint matrix, shape ``(B, B)``."""
        if self.loss_match is None:
            raise ValueError(
                f'{type(self).__name__} has no loss_match, so it cannot be '
                'trained. Name one in the config, for example loss_match=dict('
                "type='PairwiseSigmoidLoss')."
            )
        return self.loss_match(scores)

    def match_losses(self, scores: Tensor) -> dict[str, Tensor]:
        """Match the joint matrix, and tell how far apart scores are."""
        positives = scores.detach().diagonal()
        watched = {'pos_score': positives.mean()}
        if len(scores) > 1:
            others = scores.detach().sum() - positives.sum()
            watched['neg_score'] = others / (len(scores) ** 2 - len(scores))
        return {'loss_match': self.match(scores), **watched}

    def check_batch(self, text: TextFeatures, video: VideoFeatures) -> None:
        """Refuse a batch that cannot be trained on."""
        if len(text) != len(video):
            raise ValueError(
                'Training needs one text a video, but got '
                f'{len(text)} texts and {len(video)} videos. Wrap the dataset '
                'in CaptionExpansion, RandomCaption or ParagraphDataset.'
            )
        if text.embeds.shape[-1] != video.frames.shape[-1]:
            raise ValueError(
                'Text and video features must have the same width, but got '
                f'{tuple(text.embeds.shape)} and '
                f'{tuple(video.frames.shape)}. Make the encoders agree in '
                'embed_dim.'
            )
        for side, feats in (('text', text.embeds), ('video', video.frames)):
            wrong = (~feats.isfinite()).flatten(1).any(dim=1)
            if bool(wrong.any()):
                raise ValueError(
                    f'The {side} features of {int(wrong.sum())} of '
                    f'{len(wrong)} items in the batch are not finite, the '
                    f'first at position {int(wrong.nonzero()[0])}. Lower the '
                    'learning rate, or train without half precision.'
                )
