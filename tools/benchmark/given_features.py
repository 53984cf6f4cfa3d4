"""A retriever without encoders: an evaluation set of given features."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor, BaseModel
from torch import Tensor
from torch.utils.data import Dataset

from eaglenet_mm.models.heads import BasePairHead
from eaglenet_mm.structures import (
    RetrievalDataSample,
    TextFeatures,
    VideoFeatures,
)


class _AsItIs(BaseDataPreprocessor):
    """Takes items that are a batch already."""

    def forward(self, data: dict, training: bool = False) -> dict:
        """Return the batch."""
        return self.cast_data(data)


class GivenFeatures(BaseModel):
    """Looks features up where a retriever would encode.

    What stands for pixels is the number of a video, what stands for token ids
    the number of a caption.

    Args:
        head (BasePairHead): The head.
        text (TextFeatures): Of all captions.
        video (VideoFeatures): Of all videos.
    """

    def __init__(
        self, head: BasePairHead, text: TextFeatures, video: VideoFeatures
    ) -> None:
        super().__init__(_AsItIs())
        self.head = head
        self.text = text
        self.video = video

    def encode_text(self, token_ids: Tensor) -> TextFeatures:
        """Look up captions, numbers of shape ``(Bt, 1)``."""
        return self.text.index_select(
            token_ids[:, 0].to(self.text.embeds.device)
        )

    def encode_video(self, pixels: Tensor, _: Tensor) -> VideoFeatures:
        """Look up videos, numbers of shape ``(Bv, 1)``."""
        return self.video.index_select(
            pixels[:, 0].to(self.video.frames.device)
        )

    def forward(self, *_: Any, **__: Any) -> None:
        """Nothing calls it: the loop encodes and scores by parts."""
        raise TypeError('GivenFeatures is for evaluation loops only.')


class NumberedVideos(Dataset):
    """Videos and captions that are numbers; one batch an item.

    Args:
        counts (list[int]): Captions of each video.
    """

    def __init__(self, counts: list[int]) -> None:
        self.counts = counts
        self.starts = torch.tensor([0, *counts]).cumsum(0).tolist()
        self.metainfo = dict(
            dataset='random features',
            split='test',
            protocol='multi-caption',
            num_videos=len(counts),
            num_captions=self.starts[-1],
        )

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, index: int) -> dict:
        captions = range(self.starts[index], self.starts[index + 1])
        sample = RetrievalDataSample(
            metainfo=dict(
                video_id=str(index),
                video_index=index,
                caption_indices=list(captions),
            )
        )
        return dict(
            inputs=dict(
                pixels=torch.tensor([[index]]),
                frame_mask=torch.ones(1, 1, dtype=torch.bool),
                token_ids=torch.tensor(captions)[:, None],
                caption_counts=torch.tensor([len(captions)]),
            ),
            data_samples=[sample],
        )


def deal_captions(captions: int, videos: int) -> list[int]:
    """Give every video equally many captions, the first ones one more."""
    return [
        captions // videos + (index < captions % videos)
        for index in range(videos)
    ]


def multi_caption_features(
    args: argparse.Namespace, counts: list[int], frames: int, noise: float
) -> tuple[TextFeatures, VideoFeatures]:
    """Draw videos, and captions that are their mean frame and noise.

    Args:
        args (argparse.Namespace): Width, seed and device.
        counts (list[int]): Captions of each video.
        frames (int): Frames ``F``.
        noise (float): Length of the noise over that of the mean frame.

    Returns:
        tuple[TextFeatures, VideoFeatures]: Captions come video by video.
    """
    generator = torch.Generator().manual_seed(args.seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    scene = draw(len(counts), 1, args.dim)  # what the frames share
    video = scene + draw(len(counts), frames, args.dim)
    mean = video.mean(dim=1)
    scale = noise * mean.norm(dim=-1, keepdim=True) / args.dim**0.5
    repeats = torch.tensor(counts)
    text = mean.repeat_interleave(repeats, dim=0)
    text = text + scale.repeat_interleave(repeats, dim=0) * draw(
        sum(counts), args.dim
    )
    mask = torch.ones(video.shape[:2], dtype=torch.bool)
    return (
        TextFeatures(text.to(args.device)),
        VideoFeatures(video.to(args.device), mask.to(args.device)),
    )
