"""A tiny retriever and data set, to drive the loops without the real ones."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Dataset

from eaglenet_mm.models.heads import BasePairHead
from eaglenet_mm.models.heads.mean_pooling_head import UnitVectors
from eaglenet_mm.registry import DATASETS, MODELS
from eaglenet_mm.structures import (
    RetrievalDataSample,
    TextFeatures,
    VideoFeatures,
)

WIDTH, FRAMES, WORDS, SIDE = 24, 3, 6, 5


@MODELS.register_module()
class TinyPreprocessor(BaseDataPreprocessor):
    def forward(self, data: dict, training: bool = False) -> dict:
        data = self.cast_data(data)
        inputs = data['inputs']
        frames = torch.stack([f.float() / 255 for f in inputs['frames']])
        return dict(
            inputs=dict(
                pixels=frames,
                frame_mask=torch.ones(frames.shape[:2], dtype=torch.bool),
                token_ids=torch.cat(inputs['token_ids']),
                caption_counts=torch.tensor(
                    [len(rows) for rows in inputs['token_ids']]
                ),
            ),
            data_samples=data['data_samples'],
        )


class TinyHead(nn.Module):
    """Cosine of text and mean frame, with a noise table on the text."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        self.noise = noise
        self.register_buffer('noise_table', torch.zeros(WIDTH))

    def reseed(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.noise_table.copy_(torch.randn(WIDTH, generator=generator))

    def prepare_text(self, text: TextFeatures) -> Tensor:
        embeds = text.embeds + self.noise * self.noise_table
        return nn.functional.normalize(embeds, dim=-1)

    def prepare_video(self, video: VideoFeatures) -> Tensor:
        return nn.functional.normalize(video.frames.mean(1), dim=-1)

    def score_chunked(self, text: Tensor, video: Tensor) -> Tensor:
        return text @ video.t()


@MODELS.register_module()
class BestFrameHead(BasePairHead):
    """Best cosine of the text and a frame; counts the pairs it scores."""

    def __init__(self, noise: float = 0.0, shift: float = 0.0) -> None:
        super().__init__()
        self.noise, self.shift = noise, shift
        self.register_buffer('noise_table', torch.zeros(WIDTH))
        self.num_pairs = 0

    def reseed(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.noise_table.copy_(torch.randn(WIDTH, generator=generator))

    def prepare_text(self, text: TextFeatures) -> UnitVectors:
        embeds = text.embeds + self.noise * self.noise_table
        return UnitVectors(nn.functional.normalize(embeds, dim=-1))

    def prepare_video(self, video: VideoFeatures) -> UnitVectors:
        return UnitVectors(nn.functional.normalize(video.frames, dim=-1))

    def score(self, text: UnitVectors, video: UnitVectors) -> Tensor:
        cosines = torch.einsum('td,vfd->tvf', text.embeds, video.embeds)
        scores = cosines.amax(dim=-1) + self.shift
        self.num_pairs += scores.numel()
        return scores

    def bytes_per_pair(self, training: bool) -> int:
        return 4 * FRAMES


@MODELS.register_module()
class TinyRetriever(BaseModel):
    """Linear encoders; counts the videos and captions it encodes."""

    def __init__(
        self,
        noise: float = 0.0,
        broken_video: bool = False,
        broken_text: bool = False,
        data_preprocessor: dict | None = None,
        head: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor or dict(type='TinyPreprocessor'))
        torch.manual_seed(3)
        self.visual = nn.Linear(3 * SIDE * SIDE, WIDTH)
        self.words = nn.Embedding(50, WIDTH)
        self.head = TinyHead(noise) if head is None else MODELS.build(head)
        self.broken_video, self.broken_text = broken_video, broken_text
        self.calls: list[tuple[str, int]] = []

    def encode_video(self, pixels: Tensor, mask: Tensor) -> VideoFeatures:
        assert not self.training
        self.calls.append(('video', len(pixels)))
        frames = self.visual(pixels.flatten(2))
        if self.broken_video:
            frames[:, 0, 0] = torch.nan
        return VideoFeatures(frames, mask)

    def encode_text(self, token_ids: Tensor) -> TextFeatures:
        self.calls.append(('text', len(token_ids)))
        embeds = self.words(token_ids).mean(1)
        if self.broken_text:
            embeds[1, 0] = torch.inf
        return TextFeatures(embeds)

    def forward(
        self, inputs: dict, data_samples: Any = None, mode: str = 'loss'
    ) -> dict:
        frames = self.visual(inputs['pixels'].flatten(2))
        texts = self.words(inputs['token_ids'])
        return {'loss': frames.square().mean() + texts.square().mean()}


@DATASETS.register_module()
class TinyVideos(Dataset):
    """Videos with one to ``max_captions`` random captions each.

    Args:
        num_videos: How many.
        max_captions: Most captions of one.
        uneven: Whether token rows differ in length.
        keep: Items to keep.
        expand: Whether items are pairs.
        seed: Of pixels and words.
        name: In front of the ids of the videos.
        no_captions: Videos without caption.
        same_words: Whether all captions are one sentence.
        positives: By caption index, ids of its right videos.
        file: Whether samples name a file; it has the name of the video.
    """

    def __init__(
        self,
        num_videos: int = 7,
        max_captions: int = 1,
        uneven: bool = False,
        keep: list[int] | None = None,
        expand: bool = False,
        seed: int = 11,
        name: str = 'clip',
        no_captions: list[int] | None = None,
        same_words: bool = False,
        positives: dict[int, list[str]] | None = None,
        file: bool = False,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.items, start = [], 0
        for index in range(num_videos):
            count = index % max_captions + 1
            if index in (no_captions or []):
                count = 0
            length = WORDS + (index if uneven else 0)
            self.items.append(
                dict(
                    inputs=dict(
                        frames=torch.randint(
                            256, (FRAMES, 3, SIDE, SIDE), generator=generator
                        ).to(torch.uint8),
                        token_ids=torch.randint(
                            50, (count, length), generator=generator
                        ),
                    ),
                    data_samples=RetrievalDataSample(
                        metainfo=dict(
                            video_id=f'{name}{index}',
                            video_index=index,
                            caption_indices=list(range(start, start + count)),
                        )
                    ),
                )
            )
            sample = self.items[-1]['data_samples']
            if same_words:
                self.items[-1]['inputs']['token_ids'].fill_(7)
            if file:
                sample.set_metainfo(dict(video=f'/videos/{name}{index}.mp4'))
            if positives is not None:
                own = [
                    positives.get(caption, [sample.video_id])
                    for caption in sample.caption_indices
                ]
                sample.set_metainfo(dict(positives=own))
            start += count
        self.metainfo = dict(
            dataset=name if name != 'clip' else 'tiny',
            split='test',
            protocol='all',
            num_videos=num_videos,
            num_captions=start,
        )
        if keep is not None:
            self.items = [self.items[index] for index in keep]
        if expand:
            self.items = [p for item in self.items for p in pairs(item)][::-1]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict:
        return self.items[index]


@DATASETS.register_module()
class TinyJoin(ConcatDataset):
    """Several of them, or of joins of them, as torch joins data sets."""

    def __init__(self, parts: list[dict]) -> None:
        super().__init__(
            [
                TinyJoin(part['parts'])
                if 'parts' in part
                else TinyVideos(**part)
                for part in parts
            ]
        )


def pairs(item: dict) -> list[dict]:
    """One item for each caption of an item."""
    found = []
    for place, tokens in enumerate(item['inputs']['token_ids']):
        sample = item['data_samples'].clone()
        own = [sample.caption_indices[place]]
        sample.set_metainfo(dict(caption_indices=own))
        inputs = dict(item['inputs'], token_ids=tokens[None])
        found.append(dict(inputs=inputs, data_samples=sample))
    return found


def loader_config(
    batch_size: int, *, round_up: bool = True, **dataset: Any
) -> dict:
    return dict(
        batch_size=batch_size,
        num_workers=0,
        dataset=dict(
            type='TinyJoin' if 'parts' in dataset else 'TinyVideos', **dataset
        ),
        sampler=dict(type='DefaultSampler', shuffle=False, round_up=round_up),
        collate_fn=dict(type='pseudo_collate'),
    )


def build_runner(
    work_dir: str,
    *,
    batch_size: int = 2,
    dataset: dict | None = None,
    model: dict | None = None,
    loop: dict | None = None,
    evaluator: Any = None,
    round_up: bool = True,
    **runner: Any,
) -> Runner:
    """A runner with our test and validation loops on the tiny parts."""
    loader = loader_config(batch_size, round_up=round_up, **(dataset or {}))
    evaluator = evaluator or dict(type='RetrievalRankMetric')
    return Runner(
        model=dict(type='TinyRetriever', **(model or {})),
        work_dir=work_dir,
        val_dataloader=loader,
        val_cfg=dict(type='RetrievalValLoop', **(loop or {})),
        val_evaluator=evaluator,
        test_dataloader=loader,
        test_cfg=dict(type='RetrievalTestLoop', **(loop or {})),
        test_evaluator=evaluator,
        default_scope='eaglenet_mm',
        default_hooks=dict(runtime_info=dict(type='RuntimeInfoHook')),
        log_level='WARNING',
        experiment_name=f'tiny-{id(loader)}',
        **runner,
    )


def collate(items: list[dict]) -> dict:
    return pseudo_collate(items)
