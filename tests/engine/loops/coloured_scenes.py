"""Videos of coloured scenes, and a model that knows colours."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor

from eaglenet_mm.datasets import write_annotation
from eaglenet_mm.models import RetrievalDataPreprocessor
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import TextFeatures, VideoFeatures

COLOURS = {
    'red': (255, 0, 0),
    'green': (0, 255, 0),
    'blue': (0, 0, 255),
    'white': (255, 255, 255),
}
FPS, FRAMES = 10, 4

#: Colour and length in seconds of each scene.
Scenes = Sequence[tuple[str, float]]


@MODELS.register_module()
class ColourModel(BaseModel):
    """Mean colours of frames, and the colours that words name."""

    def __init__(self, head: dict | None = None) -> None:
        super().__init__(
            RetrievalDataPreprocessor((0, 0, 0), (1, 1, 1), num_frames=FRAMES)
        )
        self.head = MODELS.build(head or dict(type='MeanPoolingHead'))
        colours = torch.tensor(list(COLOURS.values())) / 255
        # padding, unknown words, the words, start and end
        blank = torch.zeros(2, 3)
        self.register_buffer('words', torch.cat([blank, colours, blank]))
        self.calls: list[int] = []

    def encode_video(self, pixels: Tensor, mask: Tensor) -> VideoFeatures:
        self.calls.append(len(pixels))
        return VideoFeatures(pixels.mean(dim=(3, 4)), mask)

    def encode_text(self, token_ids: Tensor) -> TextFeatures:
        return TextFeatures(self.words[token_ids].sum(dim=1))

    def forward(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError


def write_video(path: Path, scenes: Scenes) -> None:
    """Write scenes one after the other."""
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=FPS)
        stream.width = stream.height = 32
        stream.pix_fmt = 'yuv444p'
        stream.options = {'qp': '0'}
        for name, seconds in scenes:
            image = np.full((32, 32, 3), COLOURS[name], np.uint8)
            for _ in range(round(seconds * FPS)):
                frame = av.VideoFrame.from_ndarray(image, format='rgb24')
                container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_set(
    folder: Path, videos: Sequence[Scenes], name: str = 'scenes', **extra: Any
) -> Path:
    """Write videos whose captions name the colour of each of their scenes."""
    records = []
    for number, scenes in enumerate(videos):
        file = f'{name}{number}.mp4'
        write_video(folder / file, scenes)
        ends = np.cumsum([seconds for _, seconds in scenes])
        spans = [
            [float(end - seconds), float(end)]
            for end, (_, seconds) in zip(ends, scenes, strict=True)
        ]
        records.append(
            dict(
                video_id=f'{name}{number}',
                video=file,
                captions=[colour for colour, _ in scenes],
                moments=[[span] for span in spans],
                **extra,
            )
        )
    path = folder / f'{name}.json'
    header = dict(dataset=name, split='test', protocol='all')
    write_annotation(path, header, records)
    return path


def change_records(path: Path, change: Callable[[dict], Any]) -> Path:
    """Change each record of an annotation file in place."""
    content = json.loads(path.read_text())
    for record in content['data_list']:
        change(record)
    del content['metainfo']['num_captions']
    path.write_text(json.dumps(content))
    return path


def dataset_config(
    ann_file: Path, *, sampling: dict | None = None, **changes: Any
) -> dict[str, Any]:
    sampling = sampling or dict(fps=4, mode='clean')
    words = dict(type='WordTokenizer', vocabulary=list(COLOURS))
    return dict(
        type='TextVideoDataset',
        ann_file=str(ann_file),
        data_prefix=dict(video=str(ann_file.parent)),
        test_mode=True,
        serialize_data=False,  # collects garbage, for seconds
        pipeline=[
            dict(type='OpenVideo'),
            dict(type='SampleFrames', num_frames=FRAMES, **sampling),
            dict(type='DecodeFrames'),
            dict(type='TokenizeCaptions', tokenizer=words, max_words=4),
            dict(type='PackRetrievalInputs'),
        ],
        **changes,
    )


def build_runner(
    dataset: dict[str, Any],
    work_dir: Path,
    *,
    moments: dict[str, Any] | None,
    model: dict[str, Any] | None = None,
    loop: dict[str, Any] | None = None,
    batch_size: int = 2,
    num_workers: int = 0,
    evaluator: Sequence[dict] = (dict(type='RetrievalRankMetric'),),
    **runner: Any,
) -> Runner:
    evaluator = [dict(x) for x in evaluator]
    if moments is not None:
        evaluator.append(dict(type='MomentMetric', **moments))
    return Runner(
        model=dict(type='ColourModel', **(model or {})),
        work_dir=str(work_dir),
        test_dataloader=dict(
            batch_size=batch_size,
            num_workers=num_workers,
            dataset=dataset,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='pseudo_collate'),
        ),
        test_cfg=dict(type='RetrievalTestLoop', **(loop or {})),
        test_evaluator=evaluator,
        default_scope='eaglenet_mm',
        default_hooks=dict(runtime_info=dict(type='RuntimeInfoHook')),
        log_level='WARNING',
        experiment_name=f'scenes-{id(evaluator)}',
        **runner,
    )
