"""Find the videos of a data set that fit a sentence."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.runner import load_checkpoint
from mmengine.utils import track_iter_progress

from eaglenet_mm.datasets.transforms import TokenizeCaptions
from eaglenet_mm.registry import DATASETS, MODELS, SCOPE
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from eaglenet_mm.utils.launch import skip_pretrained


@dataclass
class SearchHit:
    """One video that was found.

    Args:
        video_id (str): Its id in the annotation file.
        video (str): Path of the file.
        score (float): Higher is better.
        captions (list[str]): What the annotation file says of it.
    """

    video_id: str
    video: str
    score: float
    captions: list[str]


@torch.no_grad()
def search_videos(
    cfg: Config, checkpoint: str, query: str, top_k: int = 5
) -> list[SearchHit]:
    """Rank the videos of the test set of a config by a sentence.

    Args:
        cfg (Config): Names the model and, in ``test_dataloader``, the videos
            and the pipeline that tokenises the query like a caption.
        checkpoint (str): Weights of the model.
        query (str): The sentence.
        top_k (int): Videos wanted; fewer come back if there are fewer.
            Default: 5.

    Returns:
        list[SearchHit]: The best first.

    Raises:
        ValueError: If the query is empty, ``top_k`` is below 1, the
            checkpoint does not fit the model, or the pipeline has no
            ``TokenizeCaptions``.
    """
    if not query.strip():
        raise ValueError('The query is empty. Say what the video shows.')
    if top_k < 1:
        raise ValueError(f'top_k must be at least 1, but is {top_k}.')
    model = load_retriever(cfg, checkpoint)
    dataset = DATASETS.build({'_scope_': SCOPE, **cfg.test_dataloader.dataset})
    text = model.encode_text(
        _tokenize(query, dataset).to(model.data_preprocessor.device)
    )
    videos, samples = _encode_videos(model, dataset)
    head = model.head
    scores = head.score_chunked(
        head.prepare_text(TextFeatures(text.embeds)),
        head.prepare_video(videos),
    )[0]
    best = scores.topk(min(top_k, len(scores)))
    return [
        SearchHit(
            samples[place].video_id,
            samples[place].video,
            float(score),
            list(samples[place].captions),
        )
        for score, place in zip(
            best.values, best.indices.tolist(), strict=True
        )
    ]


def load_retriever(cfg: Config, checkpoint: str) -> Any:
    """Build the model of a config with the weights of a checkpoint.

    Pretrained weights that the config names are not read: the checkpoint has
    them all. Uses the GPU if there is one.

    Args:
        cfg (Config): With ``model``.
        checkpoint (str): File or URL.

    Returns:
        TextVideoRetriever: In evaluation mode.

    Raises:
        ValueError: If the checkpoint does not fit the model.
    """
    cfg = copy.deepcopy(cfg)
    skip_pretrained(cfg)
    model = MODELS.build({'_scope_': SCOPE, **cfg.model})
    try:
        load_checkpoint(model, checkpoint, map_location='cpu', strict=True)
    except RuntimeError as err:
        raise ValueError(
            f'{checkpoint} does not fit the model of the config: {err}\nUse '
            'the config that the checkpoint was trained with.'
        ) from err
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    return model.to(device).eval()


def _tokenize(query: str, dataset: Any) -> torch.Tensor:
    """Turn the query into token ids as the pipeline does captions."""
    source = dataset
    while not hasattr(source, 'pipeline'):
        source = source.dataset
    for transform in source.pipeline.transforms:
        if isinstance(transform, TokenizeCaptions):
            return transform({'captions': [query]})['token_ids']
    raise ValueError(
        'The pipeline of test_dataloader has no TokenizeCaptions, so the '
        'query cannot be tokenised. Add it to the pipeline.'
    )


def _encode_videos(model: Any, dataset: Any) -> tuple[VideoFeatures, list]:
    """Encode every video once, one at a time as an evaluation does."""
    features, samples = [], []
    for index in track_iter_progress(list(range(len(dataset)))):
        item = dataset[index]
        data = model.data_preprocessor(pseudo_collate([item]))
        inputs = data['inputs']
        features.append(
            model.encode_video(inputs['pixels'], inputs['frame_mask'])
        )
        samples += data['data_samples']
    return VideoFeatures.cat(features), samples
