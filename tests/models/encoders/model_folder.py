"""Model folders as open_clip writes them, and the Hub's cache of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from open_clip.push_to_hf_hub import save_for_hf

from tests.models.encoders.tiny_clip import tiny_arch

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


class _Tokenizer:
    def save_pretrained(self, folder: Path) -> None:
        (folder / 'tokenizer.json').write_text('{}')


def write_model_folder(
    folder: Path,
    model: torch.nn.Module,
    arch: dict[str, Any] | None = None,
    *,
    safe: bool | str = True,
) -> Path:
    """Let open_clip write a model, with pixel statistics of its own."""
    model.visual.image_mean, model.visual.image_std = MEAN, STD
    save_for_hf(
        model,
        tokenizer=_Tokenizer(),
        model_config=arch or tiny_arch(),
        save_directory=str(folder),
        safe_serialization=safe,
    )
    return folder


def write_hub_cache(cache: Path, name: str, folder: Path) -> None:
    """Lay a model folder out as the cache of the Hugging Face Hub does."""
    commit = '0123456789abcdef0123456789abcdef01234567'
    root = cache / f'models--{name.replace("/", "--")}'
    (root / 'refs').mkdir(parents=True)
    (root / 'refs' / 'main').write_text(commit)
    snapshot = root / 'snapshots' / commit
    snapshot.mkdir(parents=True)
    for file in folder.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())


def change_config(folder: Path, **changes: Any) -> None:
    """Change entries of a folder's config."""
    path = folder / 'open_clip_config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
