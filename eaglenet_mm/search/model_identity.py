"""Which model encoded the rows of an index, and how to build it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from eaglenet_mm.registry import SCOPE
from eaglenet_mm.search.errors import DamagedIndexError, OtherModelError
from eaglenet_mm.search.stored_config import TUPLE

#: Settings of a model without an influence on a score: losses and memory.
_WITHOUT_INFLUENCE = (
    'pretrained',
    'init_cfg',
    'memory_budget',
    'encoder_micro_batch',
    'support_weight',
    'energy_support_weight',
)
_DECISIVE = {
    'encoders': 'weights of the encoders',
    'settings': 'settings of the encoders',
    'frames': 'choice or size of frames',
}


@dataclass(frozen=True)
class ModelIdentity:
    """Which model encoded the rows of an index.

    Args:
        encoders (str): Hash of the parameters and buffers of the encoders.
        settings (str): Hash of what the config says of them.
        frames (str): Hash of how frames are chosen and resized.
        head (str): Hash of the parameters and settings of the head, which a
            search may change.
        vectors (str): What made the vectors of the first stage: empty for
            the mean of the frames, else the hash of the head.
        config (dict[str, Any]): ``model`` and ``pipeline``, to build it
            again; see :mod:`~eaglenet_mm.search.stored_config`.
        checkpoint (str): Where the weights were read from; empty if from
            nowhere.
        untrained (list[str]): Parts with random weights.
    """

    encoders: str
    settings: str
    frames: str
    head: str = ''
    vectors: str = ''
    config: dict[str, Any] = field(default_factory=dict)
    checkpoint: str = ''
    untrained: list[str] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        """str: One hash of all that decides on a row, 16 hex digits."""
        parts = self.encoders, self.settings, self.frames, self.vectors
        return hashlib.sha256(' '.join(parts).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Return what :meth:`from_json` takes."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Any, where: str) -> ModelIdentity:
        """Read an identity."""
        kinds = {'config': dict, 'untrained': list}
        wanted = {x: kinds.get(x, str) for x in cls.__dataclass_fields__}
        found = content if isinstance(content, dict) else {}
        if {name: type(value) for name, value in found.items()} != wanted:
            raise DamagedIndexError(
                f'{where}: what it says of its model is not understood '
                f'({str(content)[:80]}). Make the index again.'
            )
        return cls(**found)

    def require(self, wanted: ModelIdentity, owner: str) -> None:
        """Refuse rows of other encoders; heads may differ."""
        different = [
            words
            for name, words in _DECISIVE.items()
            if getattr(self, name) != getattr(wanted, name)
        ]
        if self.vectors and self.vectors != wanted.head:
            different.append('the head whose own vectors make shortlists')
        if different:
            mine = self.checkpoint or 'no checkpoint'
            others = wanted.checkpoint or 'no checkpoint'
            raise OtherModelError(
                f'{owner} was made by another model: {" and ".join(different)}'
                f' differ ({owner}: {mine}; at hand: {others}). Use the '
                'config and checkpoint it was made with, or make it again.'
            )


def hash_weights(named: Iterable[tuple[str, Tensor]]) -> str:
    """Hash parameters and buffers, names and shapes included."""
    digest = hashlib.sha256()
    for name, tensor in sorted(named, key=lambda pair: pair[0]):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)};'.encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def hash_settings(settings: Any) -> str:
    """Hash settings, without those that have no influence on a score."""
    text = json.dumps(_reduced(settings), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _reduced(settings: Any) -> Any:
    if isinstance(settings, dict):
        if set(settings) == {TUPLE}:
            return _reduced(settings[TUPLE])
        return {
            key: _reduced(value)
            for key, value in settings.items()
            if key not in _WITHOUT_INFLUENCE and not key.startswith('loss')
        }
    if isinstance(settings, list | tuple):
        return [_reduced(value) for value in settings]
    if isinstance(settings, str):
        return settings.removeprefix(f'{SCOPE}.')
    return settings
