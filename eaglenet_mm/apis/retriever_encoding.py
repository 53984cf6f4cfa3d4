"""Encoding sentences and frames with a trained model, as a test does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import Tensor

from eaglenet_mm.apis.retriever_loading import load_retriever
from eaglenet_mm.config.frame_counts import check_frame_counts
from eaglenet_mm.datasets.transforms import DecodeFrames, TokenizeCaptions
from eaglenet_mm.datasets.video_readers import VideoReadError
from eaglenet_mm.engine.loops.retrieval_evaluation import (
    check_texts,
    check_videos,
)
from eaglenet_mm.models.heads import BasePairHead
from eaglenet_mm.models.precision import at_least_float32
from eaglenet_mm.registry import SCOPE, TRANSFORMS
from eaglenet_mm.search.model_identity import (
    ModelIdentity,
    hash_settings,
    hash_weights,
)
from eaglenet_mm.search.moment_reading import (
    MomentReader,
    ReadMoments,
    pad_times,
)
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
        *,
        untrained: bool = False,
        encoders_only: bool = False,
    ) -> None:
        self.cfg = cfg
        self.weights = weights
        check_frame_counts(cfg)
        self.pipeline = _pipeline_of(cfg)
        with naming_keys({'test_dataloader': cfg.test_dataloader}):
            self._transforms = [
                TRANSFORMS.build({'_scope_': SCOPE, **settings})
                for settings in self.pipeline
            ]
        self.tokenizer: TokenizeCaptions = self._find(TokenizeCaptions)
        self._find(DecodeFrames)
        self.model = load_retriever(
            cfg,
            weights,
            device,
            untrained=untrained,
            encoders_only=encoders_only,
        )
        self.head: BasePairHead = self.model.head
        if self.head.needs_own_captions:
            raise ValueError(
                f'{type(self.head).__name__} as configured scores a video '
                'with the help of its own caption, which a search does not '
                "have. Set evaluation='pairwise' of the head."
            )
        #: Whether rows keep patches, which are large.
        self.keeps_patches = False
        self._identity: ModelIdentity | None = None

    def _find(self, kind: type) -> Any:
        for transform in self._transforms:
            if isinstance(transform, kind):
                return transform
        raise ValueError(
            f'The pipeline of test_dataloader has no {kind.__name__}, so '
            'nothing can be searched. Add it to the pipeline.'
        )

    @property
    def device(self) -> torch.device:
        """torch.device: Where the model computes."""
        return torch.device(self.model.data_preprocessor.device)

    @property
    def identity(self) -> ModelIdentity:
        """ModelIdentity: What an index is compared with."""
        if self._identity is None:
            frames = [
                settings
                for settings, built in zip(
                    self.pipeline, self._transforms, strict=True
                )
                if built is not self.tokenizer
            ]
            settings = to_plain(self.cfg.model)
            own = settings.pop('head')
            weights = self.model.state_dict().items()
            is_head = {k: k.startswith('head.') for k, _ in weights}
            head = hash_settings(
                [
                    own,
                    # weights of a loss have no influence on a score
                    hash_weights(
                        (k, v)
                        for k, v in weights
                        if is_head[k] and not k.startswith('head.loss')
                    ),
                ]
            )
            kind = type(self.head).shortlist_video
            has_own_vectors = kind is not BasePairHead.shortlist_video
            self._identity = ModelIdentity(
                encoders=hash_weights(
                    (k, v) for k, v in weights if not is_head[k]
                ),
                settings=hash_settings(settings),
                frames=hash_settings(to_plain(frames)),
                head=head,
                vectors=head if has_own_vectors else '',
                config=self._stored_config(),
                checkpoint=_absolute(self.weights),
                untrained=self.model.untrained,
            )
        return self._identity

    def example_rows(self) -> Moments:
        """Encode a black frame, for the shapes of the rows of an index."""
        black = np.zeros((1, 64, 64, 3), np.uint8)
        results: dict[str, Any] = dict(
            frames=black, video_id='', video='', frame_indices=[0]
        )
        decoded = False
        for transform in self._transforms:
            if decoded and transform is not self.tokenizer:
                results = transform(results)
            if isinstance(transform, DecodeFrames):
                decoded = True
                if transform.resize is not None:
                    results = transform.resize(results)
        frames = results['inputs']['frames'].numpy()
        found = ReadMoments([(0.0, 0.0)], [frames], [[0.0]], [b''])
        return self.encode_moments(found, ['a black frame'])

    def _stored_config(self) -> dict[str, Any]:
        config = dict(
            model=self.cfg.model,
            test_dataloader=dict(dataset=dict(pipeline=self.pipeline)),
        )
        plain = to_plain(config)
        return plain if self.weights is None else without_weights(plain)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> TextFeatures:
        """Encode sentences; features are on the device of the model."""
        if not texts or not all(text.strip() for text in texts):
            raise ValueError(
                'The query is empty. Say in a sentence what the video shows.'
            )
        results = self.tokenizer.transform({'captions': list(texts)})
        token_ids = results['token_ids'].to(self.device)
        blocks = [
            self.model.encode_text(block)
            for block in token_ids.split(_TEXT_BLOCK)
        ]
        features = TextFeatures.cat(blocks).map(at_least_float32)
        check_texts(features, range(len(texts)))
        return features

    def encode_frames(self, frames: Tensor, name: str) -> VideoFeatures:
        """Encode one video or segment; see :meth:`encode_batch`."""
        return self.encode_batch([frames], [name])

    @torch.no_grad()
    def encode_batch(
        self, frames: Sequence[Tensor], names: Sequence[str]
    ) -> VideoFeatures:
        """Encode videos or segments in one call.

        ``frames`` of the pipeline are uint8, (n, 3, H, W) each; ``names`` are
        what messages call them. Features are on the device of the model.
        """
        batch = [{'inputs': {'frames': own}} for own in frames]
        inputs = self.model.data_preprocessor(pseudo_collate(batch))['inputs']
        features = self.model.encode_video(
            inputs['pixels'], inputs['frame_mask']
        ).map(at_least_float32)
        check_videos(features, list(names))
        return features

    @torch.no_grad()
    def encode_moments(
        self, found: ReadMoments, names: Sequence[str]
    ) -> Moments:
        """Make rows of videos or segments, encoded in one call, on the CPU."""
        features = self.encode_batch(
            [torch.from_numpy(own) for own in found.frames], names
        )
        kept = {
            name: tensor.cpu()
            for name, tensor in vars(features).items()
            if tensor is not None and (name != 'patches' or self.keeps_patches)
        }
        state = {}
        if self.head.keeps_state:
            state = flatten_state(self.head.prepare_video(features))
        own = self.identity.vectors
        return Moments(
            spans=torch.tensor(found.spans, dtype=torch.float64),
            vectors=video_vectors(self.head, features, own).cpu(),
            times=self.pad_times(found.frame_times, features.frames.shape[1]),
            features=kept,
            state={name: tensor.cpu() for name, tensor in state.items()},
            thumbnails=found.thumbnails,
        )

    def pad_times(
        self, times: Sequence[Sequence[float]], num_steps: int
    ) -> Tensor:
        """Say when the vectors of videos are shown, by seconds of frames.

        An encoder of clips makes one vector of several frames, whose mean
        time is taken. NaN where padded, float32, (n, num_steps).
        """
        taken = getattr(self.model.video_encoder, 'num_input_frames', None)
        return pad_times(times, num_steps, taken or num_steps)

    def encode_files(
        self, paths: Sequence[str], num_workers: int
    ) -> VideoFeatures:
        """Encode whole videos, all of which must be readable, in order."""
        encoded: dict[str, VideoFeatures] = {}
        reader = MomentReader(self.pipeline, num_workers=num_workers)
        for path, found, _ in reader.read(list(dict.fromkeys(paths))):
            if not found.frames:
                raise VideoReadError(f'{path}: {found.error}')
            frames = torch.from_numpy(found.frames[0])
            encoded[path] = self.encode_frames(frames, path)
        return VideoFeatures.cat([encoded[path] for path in paths])


def _pipeline_of(cfg: Config) -> list[dict[str, Any]]:
    """Find the pipeline of the test set below its wrappers."""
    found: list[list[dict[str, Any]]] = []
    waiting = [cfg.test_dataloader.dataset]
    while waiting:
        dataset = waiting.pop()
        if 'pipeline' in dataset:
            found.append([dict(step) for step in dataset['pipeline']])
            continue
        inner = [dataset['dataset']] if 'dataset' in dataset else []
        waiting += [*dataset.get('datasets', []), *inner]
    if not found:
        raise ValueError(
            'test_dataloader.dataset of the config has no pipeline, so '
            'videos cannot be read. Take a config with one.'
        )
    if any(pipeline != found[0] for pipeline in found):
        raise ValueError(
            'The joined sets of test_dataloader.dataset have different '
            f'pipelines ({len(found)} sets), so it is not said how videos '
            'are to be read. Take a config with one.'
        )
    return found[0]


def _absolute(weights: str | None) -> str:
    if weights is None or '://' in weights:
        return weights or ''
    return os.path.abspath(os.path.expanduser(weights))
