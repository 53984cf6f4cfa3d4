"""VATEX with the validation set halved into val and test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eaglenet_mm.datasets.official.reading import captions_by_id, read_json
from eaglenet_mm.datasets.official.splits import (
    ConvertedSplit,
    SplitPlan,
    assemble_splits,
)

PLANS = {
    'train': SplitPlan('train', 'vatex', 'train', '1500/1500', 25991, 259910),
    'val': SplitPlan('val', 'vatex', 'val', '1500/1500', 1500, 15000),
    'test': SplitPlan('test', 'vatex', 'test', '1500/1500', 1500, 15000),
}
#: Key of each language in the official JSON.
LANGUAGES = {'en': 'enCap', 'zh': 'chCap'}


def read_vatex_captions(
    paths: Sequence[Path], language: str = 'en'
) -> dict[str, list[str]]:
    """Read the captions of one or more files; see :func:`convert_vatex`."""
    captions: dict[str, list[str]] = {}
    for path in paths:
        content = read_json(path)
        own = (
            _official(content, LANGUAGES[language], path)
            if isinstance(content, list)
            else captions_by_id(content, path)
        )
        twice = [name for name in own if name in captions]
        if twice:
            raise ValueError(
                f'{path}: {len(twice)} videos are also in another of the '
                f'files, for example {twice[0]!r}. Give each file once.'
            )
        captions.update(own)
    return captions


def _official(content: list, key: str, path: Path) -> dict[str, list[str]]:
    found: dict[str, Any] = {}
    for place, item in enumerate(content):
        name = item.get('videoID') if isinstance(item, dict) else None
        if not isinstance(name, str) or key not in item:
            raise ValueError(
                f"{path}: item {place} needs 'videoID' and '{key}', but is "
                f'{str(item)[:100]}.'
            )
        if name in found:
            raise ValueError(f'{path}: {name!r} is repeated.')
        found[name] = item[key]
    return captions_by_id(found, path)


def convert_vatex(
    captions: Sequence[Path],
    lists: Path,
    language: str = 'en',
    video_suffix: str = '.mp4',
) -> list[ConvertedSplit]:
    """Convert all splits of VATEX with a list in a folder.

    Args:
        captions (Sequence[Path]): Official files, lists of ``{videoID,
            enCap, chCap}``, or ``ref_captions.json``, ``{id: [caption,
            ...]}``.
        lists (Path): Folder with any of ``train_list.txt``, ``val_list.txt``
            and ``test_list.txt``.
        language (str): ``'en'`` or ``'zh'``, for official files. Default:
            ``'en'``.
        video_suffix (str): Suffix of the video files. Default: ``'.mp4'``.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file has an unexpected format or no captions in the
            language, or a video is in two files.
    """
    by_id = read_vatex_captions(captions, language)
    plans = {
        split: plan
        for split, plan in PLANS.items()
        if (lists / f'{split}_list.txt').is_file()
    }
    if not plans:
        raise FileNotFoundError(
            f'{lists}: expected a folder with train_list.txt, val_list.txt '
            'or test_list.txt of VATEX.'
        )
    return assemble_splits(plans, lists, by_id, video_suffix)
