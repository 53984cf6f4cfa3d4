"""DiDeMo: official JSON files, with moments, and split lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eaglenet_mm.datasets.official.reading import (
    collect_captions,
    read_id_list,
    read_json,
)
from eaglenet_mm.datasets.official.splits import (
    ConvertedSplit,
    SplitPlan,
    assemble_split,
)

PLANS = {
    'train': SplitPlan('train', 'didemo', 'train', 'paragraph', 8395),
    'val': SplitPlan('val', 'didemo', 'val', 'paragraph', 1065),
    'test': SplitPlan('test', 'didemo', 'test', 'paragraph', 1004),
}


#: Seconds of a chunk, by which annotators count.
CHUNK_SECONDS = 5.0


def read_didemo_captions(
    path: Path,
) -> tuple[dict[str, list[str]], dict[str, list[list[list[float]]]] | None]:
    """Read the descriptions of every video and their moments, in file order.

    ``times`` are the answers of several annotators, each the first and the
    last chunk of a moment. None instead of moments if no description has
    ``times``, as in some copies.
    """
    content = read_json(path)
    if not isinstance(content, list):
        raise ValueError(
            f'{path}: expected a list of descriptions, the official '
            f'format of DiDeMo, but got {type(content).__name__}.'
        )
    where = f'{path}: item {{}}'
    captions = collect_captions(content, ('video', 'description'), where)
    if not any('times' in item for item in content):
        return captions, None
    moments: dict[str, list[list[list[float]]]] = {}
    for place, item in enumerate(content):
        spans = _moments_of(item.get('times'), where.format(place))
        moments.setdefault(item['video'], []).append(spans)
    return captions, moments


def _moments_of(times: Any, where: str) -> list[list[float]]:
    """Turn pairs of first and last chunk into seconds."""
    pairs = times if isinstance(times, list) else []
    for pair in pairs or [times]:
        if (
            not isinstance(pair, list)
            or len(pair) != 2
            or not all(type(chunk) is int for chunk in pair)
            or not 0 <= pair[0] <= pair[1]
        ):
            raise ValueError(
                f"{where} needs 'times', a list of pairs of its first and its "
                f'last chunk of {CHUNK_SECONDS:g} seconds, but has '
                f'{str(times)[:100]}.'
            )
    return [
        [first * CHUNK_SECONDS, (last + 1) * CHUNK_SECONDS]
        for first, last in pairs
    ]


def stem_of(name: str) -> str:
    """Remove the last dot and what follows it, if anything.

    ``'12_34_ab.mov'``, ``'12_34_ab.'`` and ``'12_34_ab.null'`` all become
    ``'12_34_ab'``.
    """
    return name.rpartition('.')[0] or name


def convert_didemo(
    data: Path, lists: Path | None = None, video_suffix: str | None = None
) -> list[ConvertedSplit]:
    """Convert all splits of DiDeMo in a folder.

    Args:
        data (Path): Folder with any of ``train_data.json``, ``val_data.json``
            and ``test_data.json``.
        lists (Path, optional): Folder with ``train_list.txt`` and so on, the
            videos of the protocol. Default: None, all videos of the JSON
            files, which are more than the protocol has.
        video_suffix (str, optional): Suffix that replaces the official one of
            the video files, for re-encoded copies. Default: None.

    Raises:
        FileNotFoundError: If there is no JSON file, or a split has no list.
        ValueError: If a file has an unexpected format.
    """

    def video_name(name: str) -> str:
        return name if video_suffix is None else stem_of(name) + video_suffix

    splits = []
    for split, plan in PLANS.items():
        path = data / f'{split}_data.json'
        if not path.is_file():
            continue
        captions, moments = read_didemo_captions(path)
        listed = list(captions)
        if lists is not None:
            listed = read_id_list(lists / f'{split}_list.txt')
            by_stem = {stem_of(name): name for name in captions}
            # lists of re-encoded copies have other suffixes
            listed = [
                name if name in captions else by_stem.get(stem_of(name), name)
                for name in listed
            ]
        splits.append(
            assemble_split(plan, listed, captions, video_name, moments=moments)
        )
    if not splits:
        raise FileNotFoundError(
            f'{data}: expected a folder with train_data.json, val_data.json '
            'or test_data.json of DiDeMo.'
        )
    return splits
