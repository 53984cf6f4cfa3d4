"""Encoding sentences and frames with a trained model, as a test does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from eaglenet_mm.apis.retriever_loading import load_retriever
from eaglenet_mm.config.frame_counts import check_frame_counts
from eaglenet_mm.datasets.video_readers import VideoReadError
from eaglenet_mm.datasets.windows import pad_times
from eaglenet_mm.engine.loops.retrieval_evaluation import (
    check_texts,
    check_videos,
)
from eaglenet_mm.models.heads import BasePairHead
from eaglenet_mm.models.precision import at_least_float32
from eaglenet_mm.search.model_identity import (
    ModelIdentity,
    hash_settings,
    hash_weights,
)
from eaglenet_mm.search.moment_reading import MomentReader, ReadMoment
from eaglenet_mm.search.records import Moments
from eaglenet_mm.search.searching import video_vectors
from eaglenet_mm.search.state_rows import flatten_state
from eaglenet_mm.search.stored_config import to_plain, without_weights
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from eaglenet_mm.utils.downloads import naming_keys

#: Sentences encoded together, as in an evaluation.
_TEXT_BLOCK = 64


class RetrieverEncoder:
    """A model, built as :func:`load_retriever` does, and its test pipeline."""

    def __init__(
        self,
        cfg: Config,
        weights: str | None,
        device: str | torch.device | None = None,
        **options: bool,
    ) -> None:
        self.cfg = cfg
        self.weights = weights
        #: Whether rows keep patches, which are large.
        self.keeps_patches = False
        check_frame_counts(cfg)
        self.pipeline = _pipeline_of(cfg)
        with naming_keys({'test_dataloader': cfg.test_dataloader}):
            self._reader = MomentReader(self.pipeline)
        self.tokenizer = self._reader.tokenizer
        if self.tokenizer is None:
            raise ValueError(
                'The pipeline of test_dataloader has no TokenizeCaptions, so '
                'nothing can be searched. Add it to the pipeline.'
            )
        self.model = load_retriever(cfg, weights, device, **options)
        self.head: BasePairHead = self.model.head
        if self.head.needs_own_captions:
            raise ValueError(
                f'{type(self.head).__name__} as configured scores a video '
                'with the help of its own caption, which a search does not '
                "have. Set evaluation='pairwise' of the head."
            )

    @property
    def device(self) -> torch.device:
        """torch.device: Where the model computes."""
        return torch.device(self.model.data_preprocessor.device)

    @cached_property
    def identity(self) -> ModelIdentity:
        """ModelIdentity: What an index is compared with."""
        model, pipeline = to_plain([self.cfg.model, self.pipeline])
        dataset = dict(dataset=dict(pipeline=pipeline))
        config = dict(model=model, test_dataloader=dataset)
        settings = {k: v for k, v in model.items() if k != 'head'}
        steps = zip(pipeline, self._reader.transforms, strict=True)
        frames = [step for step, own in steps if own is not self.tokenizer]
        weights = self.model.state_dict().items()
        # weights of a loss have no influence on a score
        of_head = hash_weights(
            (name, weight)
            for name, weight in weights
            if name.startswith('head.') and not name.startswith('head.loss')
        )
        head = hash_settings([model['head'], of_head])
        kind = type(self.head).shortlist_video
        has_own_vectors = kind is not BasePairHead.shortlist_video
        return ModelIdentity(
            encoders=hash_weights(
                pair for pair in weights if not pair[0].startswith('head.')
            ),
            settings=hash_settings(settings),
            frames=hash_settings(frames),
            head=head,
            vectors=head if has_own_vectors else '',
            config=config if self.weights is None else without_weights(config),
            checkpoint=_absolute(self.weights),
            untrained=self.model.untrained,
        )

    def example_rows(self) -> Moments:
        """Encode a black frame, for the shapes of the rows of an index."""
        frame = self._reader.read_black()
        return self.encode_moments([frame], ['a black frame'])

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> TextFeatures:
        """Encode sentences; features are on the device of the model."""
        if not texts or not all(text.strip() for text in texts):
            raise ValueError(
                'The query is empty. Say in a sentence what the video shows.'
            )
        results = self.tokenizer.transform({'captions': list(texts)})
        blocks = results['token_ids'].to(self.device).split(_TEXT_BLOCK)
        features = TextFeatures.cat(list(map(self.model.encode_text, blocks)))
        features = features.map(at_least_float32)
        check_texts(features, range(len(texts)))
        return features

    @torch.no_grad()
    def _encode(
        self, found: Sequence[ReadMoment], names: Sequence[str]
    ) -> VideoFeatures:
        """Encode videos or segments in one call, on the device."""
        batch = [
            {'inputs': {'frames': torch.from_numpy(one.frames)}}
            for one in found
        ]
        inputs = self.model.data_preprocessor(pseudo_collate(batch))['inputs']
        features = self.model.encode_video(
            inputs['pixels'], inputs['frame_mask']
        ).map(at_least_float32)
        check_videos(features, list(names))
        return features

    @torch.no_grad()
    def encode_moments(
        self, found: Sequence[ReadMoment], names: Sequence[str]
    ) -> Moments:
        """Make rows of videos or segments, encoded in one call, on the CPU.

        Messages call them by ``names``.
        """
        features = self._encode(found, names)
        kept = {
            name: tensor.cpu()
            for name, tensor in vars(features).items()
            if tensor is not None and (name != 'patches' or self.keeps_patches)
        }
        state = {}
        if self.head.keeps_state:
            state = flatten_state(self.head.prepare_video(features))
        num_steps = features.frames.shape[1]
        # an encoder of clips makes one vector of several frames
        taken = getattr(self.model.video_encoder, 'num_input_frames', None)
        own = self.identity.vectors
        return Moments(
            spans=torch.tensor([x.span for x in found], dtype=torch.float64),
            vectors=video_vectors(self.head, features, own).cpu(),
            times=pad_times(
                [one.times for one in found], num_steps, taken or num_steps
            ),
            features=kept,
            state={name: tensor.cpu() for name, tensor in state.items()},
            thumbnails=[one.thumbnail for one in found],
        )

    def encode_files(
        self, paths: Sequence[str], num_workers: int
    ) -> VideoFeatures:
        """Encode whole videos, all of which must be readable, in order."""
        encoded: dict[str, VideoFeatures] = {}
        reader = MomentReader(self.pipeline, num_workers=num_workers)
        for path, found, _ in reader.read(paths):
            if not found.moments:
                raise VideoReadError(f'{path}: {found.error}')
            encoded[path] = self._encode(found.moments, [path])
        return VideoFeatures.cat([encoded[path] for path in paths])


def _pipeline_of(cfg: Config) -> list[dict[str, Any]]:
    """Find the pipeline of the test set below its wrappers."""
    found: list[list[dict[str, Any]]] = []
    waiting = [cfg.test_dataloader.dataset]
    while waiting:
        dataset = waiting.pop()
        if 'pipeline' in dataset:
            found.append([dict(step) for step in dataset['pipeline']])
        else:
            inner = [dataset['dataset']] if 'dataset' in dataset else []
            waiting += [*dataset.get('datasets', []), *inner]
    if not found or any(pipeline != found[0] for pipeline in found):
        raise ValueError(
            'test_dataloader.dataset of the config must say once how videos '
            f'are read, but its {len(found)} sets have '
            f'{"different pipelines" if found else "no pipeline"}. Take a '
            'config with one.'
        )
    return found[0]


def _absolute(weights: str | None) -> str:
    if weights is None or '://' in weights:
        return weights or ''
    return os.path.abspath(os.path.expanduser(weights))
