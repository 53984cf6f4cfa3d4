"""Random videos for the tiny CLIP of the tests of encoders."""

import torch
from mmengine.registry import DATASETS
from torch.utils.data import Dataset

from eaglenet_mm.structures import RetrievalDataSample


@DATASETS.register_module()
class MiniVideos(Dataset):
    """Four videos of three frames with a caption each."""

    def __init__(self, words: int = 6) -> None:
        generator = torch.Generator().manual_seed(5)
        self.items = []
        for index in range(4):
            tokens = torch.randint(1, 39, (1, words), generator=generator)
            tokens[:, -1] = 39
            frames = torch.randint(256, (3, 3, 12, 12), generator=generator)
            sample = RetrievalDataSample(
                metainfo=dict(
                    video_id=f'clip{index}',
                    video_index=index,
                    caption_indices=[index],
                )
            )
            inputs = dict(frames=frames.to(torch.uint8), token_ids=tokens)
            self.items.append(dict(inputs=inputs, data_samples=sample))
        self.metainfo = dict(
            dataset='mini',
            split='test',
            protocol='all',
            num_videos=4,
            num_captions=4,
        )

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict:
        return self.items[index]
