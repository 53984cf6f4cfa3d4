"""A module in the place of transformers, with what we use of it."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class _Config(types.SimpleNamespace):
    @classmethod
    def for_model(cls, kind: str, **fields: Any) -> _Config:
        return cls(model_type=kind, **fields)

    @classmethod
    def from_pretrained(cls, folder: str, **options: Any) -> _Config:
        assert options == dict(local_files_only=True, trust_remote_code=False)
        return cls(**json.loads((Path(folder) / 'config.json').read_text()))


@dataclass
class _Output:
    """As in transformers a dataclass, which an export can follow."""

    last_hidden_state: Tensor


class _Model(nn.Module):
    """Embeddings, a linear layer, and a pooler without use."""

    def __init__(self, config: _Config) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.words = nn.Embedding(config.vocab_size, width)
        self.layer = nn.Linear(width, width)
        self.pooler = nn.Linear(width, width)

    @classmethod
    def from_config(cls, config: _Config) -> _Model:
        return cls(config)

    @classmethod
    def from_pretrained(cls, folder: str, **options: Any) -> _Model:
        assert options == dict(local_files_only=True, trust_remote_code=False)
        fields = json.loads((Path(folder) / 'config.json').read_text())
        model = cls(_Config(**fields))
        model.load_state_dict(torch.load(Path(folder) / 'weights.pth'))
        return model.eval()

    def get_encoder(self) -> _Model:
        return self

    def init_weights(self) -> None:
        raise AssertionError('would draw loaded weights anew')

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        hidden = torch.tanh(self.layer(self.words(input_ids)))
        name = getattr(self.config, 'output', None)
        if name is not None:  # of a model that gives something else
            return types.SimpleNamespace(**{name: hidden})
        return _Output(hidden)


class _Tokenizer:
    """Words of a vocabulary, between [CLS] and [SEP]."""

    def __init__(self, tokenizer_file: str) -> None:
        content = json.loads(Path(tokenizer_file).read_text())
        self.vocabulary: Mapping[str, int] = content['model']['vocab']
        self.pad_token: str | None = None
        self.padding_side = 'left'

    @property
    def pad_token_id(self) -> int:
        return self.vocabulary[str(self.pad_token)]

    def get_vocab(self) -> Mapping[str, int]:
        return self.vocabulary

    def __len__(self) -> int:
        return len(self.vocabulary)

    @classmethod
    def from_pretrained(cls, folder: str, **options: Any) -> _Tokenizer:
        assert options == dict(local_files_only=True, trust_remote_code=False)
        return cls(str(Path(folder) / 'tokenizer.json'))

    def __call__(
        self,
        sentences: list[str],
        *,
        padding: str,
        truncation: bool,
        max_length: int,
    ) -> dict[str, list[list[int]]]:
        assert padding == 'max_length'
        assert truncation
        assert self.padding_side == 'right'
        rows = []
        for sentence in sentences:
            words = sentence.split()[: max_length - 2]
            row = [
                self.vocabulary.get(word, self.vocabulary['[UNK]'])
                for word in ('[CLS]', *words, '[SEP]')
            ]
            rows.append(row + [self.pad_token_id] * (max_length - len(row)))
        return dict(input_ids=rows)


def stand_in() -> types.ModuleType:
    """Make the module."""
    module: Any = types.ModuleType('transformers')
    module.AutoConfig = _Config
    module.AutoModel = _Model
    module.AutoTokenizer = _Tokenizer
    module.PreTrainedTokenizerFast = _Tokenizer
    return module
