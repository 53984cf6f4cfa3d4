"""VATEX with the halves of its validation set as val and test."""

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
#: Where the official JSON keeps the captions of a language.
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
                f'{path}: {len(twice)} videos stand in another of the files '
                f'as well, for example {twice[0]!r}. Give each file once.'
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
            raise ValueError(f'{path}: {name!r} stands twice.')
        found[name] = item[key]
    return captions_by_id(found, path)


def convert_vatex(
    captions: Sequence[Path],
    lists: Path,
    language: str = 'en',
    video_suffix: str = '.mp4',
) -> list[ConvertedSplit]:
    """Convert the splits of VATEX that a folder lists.

    Args:
        captions (Sequence[Path]): Official files, lists of ``{videoID,
            enCap, chCap}``, or ``ref_captions.json``, ``{id: [caption,
            ...]}``.
        lists (Path): Folder with ``train_list.txt``, ``val_list.txt`` and
            ``test_list.txt``, or some of them.
        language (str): ``'en'`` or ``'zh'``; of official files. Default:
            ``'en'``.
        video_suffix (str): Of the video files. Default: ``'.mp4'``.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file has another form, has no captions of the
            language, or a video stands in two of them.
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
