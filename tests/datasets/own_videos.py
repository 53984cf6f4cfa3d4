"""A data set that is none of ours, and a pipeline for the tiny retriever."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dataset import BaseDataset

from eaglenet_mm.registry import DATASETS, TRANSFORMS
from eaglenet_mm.structures import RetrievalDataSample


@TRANSFORMS.register_module()
class PackTiny:
    """Inputs of ``TinyRetriever`` that depend on video and captions."""

    def __call__(self, item: dict[str, Any]) -> dict[str, Any] | None:
        if item['video'].startswith('lost'):
            return None
        generator = torch.Generator().manual_seed(item['video_index'])
        keys = ('video_id', 'video_index', 'captions', 'caption_indices')
        return dict(
            inputs=dict(
                frames=torch.randint(
                    256, (3, 3, 5, 5), generator=generator
                ).to(torch.uint8),
                token_ids=torch.tensor(
                    [
                        [zlib.crc32(f'{x}{n}'.encode()) % 50 for n in range(6)]
                        for x in item['captions']
                    ]
                ),
            ),
            data_samples=RetrievalDataSample(
                metainfo={key: item[key] for key in keys}
            ),
        )


@DATASETS.register_module()
class OwnVideos(BaseDataset):
    """Videos ``<name>0``, ``<name>1``, ... with so many captions each."""

    def __init__(
        self,
        counts: Sequence[int] = (10,) * 12,
        *,
        name: str = 'v',
        pipeline: Sequence[Any] = (dict(type='PackTiny'),),
        leave_out: str = '',
        lost: Sequence[int] = (),
        **kwargs: Any,
    ) -> None:
        self.counts, self.name, self.lost = list(counts), name, set(lost)
        self.leave_out = leave_out
        # a name, as own data sets have it; no data set inside
        self.dataset = 'own'
        super().__init__(
            pipeline=[
                TRANSFORMS.build(x) if isinstance(x, dict) else x
                for x in pipeline
            ],
            **kwargs,
        )

    def load_data_list(self) -> list[dict[str, Any]]:
        items, start = [], 0
        for video, count in enumerate(self.counts):
            folder = 'lost' if video in self.lost else 'kept'
            item = dict(
                video_id=f'{self.name}{video}',
                video=f'{folder}/{self.name}{video}.mp4',
                captions=[f'{self.name}{video}-{n}' for n in range(count)],
                caption_indices=list(range(start, start + count)),
                video_index=video,
            )
            item.pop(self.leave_out, None)
            items.append(item)
            start += count
        return items

    def get_cat_ids(self, index: int) -> list[int]:
        """One video in three is of a rare class."""
        return [int(index % 3 == 0)]
