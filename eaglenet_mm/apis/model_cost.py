"""What a model costs: parameters, and arithmetic of a pair's score."""

from __future__ import annotations

import copy
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from eaglenet_mm.config import skip_pretrained
from eaglenet_mm.models.heads import BasePairHead
from eaglenet_mm.registry import DATASETS, MODELS, SCOPE
from eaglenet_mm.structures import TextFeatures, VideoFeatures

#: Texts and videos of the block that is counted.
BLOCK = 16


@dataclass
class ModelCost:
    """Size of a model."""

    #: Numbers in the head, its losses included.
    head_parameters: int
    #: Numbers in all of the model.
    parameters: int
    #: Floating-point operations of the matrix products in a pair's score.
    flops_per_pair: float


@torch.no_grad()
def measure_cost(config: Config) -> ModelCost:
    """Count parameters and the arithmetic of a score.

    What a head prepares once a text or video is not counted: for a gallery
    it is done once, the score once a query and video. Of a block of 16 texts
    and 16 videos the matrix products are counted, a multiplication and an
    addition as two; other operations are not. The first video of
    ``test_dataloader`` tells the size of the inputs.
    """
    config = copy.deepcopy(config)
    skip_pretrained(config)
    model = MODELS.build({'_scope_': SCOPE, **config.model}).eval()
    text, video = _one_of_each(model, config)
    head: BasePairHead = model.head
    texts = TextFeatures.cat([text] * BLOCK)
    text_state = head.prepare_text(texts)
    video_state = head.prepare_video(VideoFeatures.cat([video] * BLOCK))
    if head.needs_own_captions:
        video_state = head.attach_captions(video_state, texts)
    with FlopCounterMode(display=False) as counter:
        head.score(text_state, video_state)
    return ModelCost(
        head_parameters=_count(head),
        parameters=_count(model),
        flops_per_pair=counter.get_total_flops() / BLOCK**2,
    )


def measure_cost_apart(config: Config) -> ModelCost:
    """Do as :func:`measure_cost` in a process, which gives memory back."""
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure_cost, config).result()


def _one_of_each(
    model: Any, config: Config
) -> tuple[TextFeatures, VideoFeatures]:
    """Encode the first video of the test list and its first caption."""
    dataset = DATASETS.build(
        {'_scope_': SCOPE, **config.test_dataloader.dataset}
    )
    data = model.data_preprocessor(pseudo_collate([dataset[0]]))
    inputs = data['inputs']
    return (
        model.encode_text(inputs['token_ids'][:1]),
        model.encode_video(inputs['pixels'], inputs['frame_mask']),
    )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
