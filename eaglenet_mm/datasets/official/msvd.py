"""MSVD with all captions, in English or another language."""

from __future__ import annotations

from pathlib import Path

from eaglenet_mm.datasets.official.reading import (
    captions_by_id,
    read_csv,
    read_json,
    read_plain_pickle,
    read_text,
)
from eaglenet_mm.datasets.official.splits import (
    ConvertedSplit,
    SplitPlan,
    assemble_splits,
)

PLANS = {
    'train': SplitPlan('train', 'msvd', 'train', 'all captions', 1200, 48774),
    'val': SplitPlan('val', 'msvd', 'val', 'all captions', 100, 4290),
    'test': SplitPlan('test', 'msvd', 'test', 'all captions', 670, 27763),
}


def read_msvd_captions(
    path: Path, mapping: Path | None = None
) -> dict[str, list[str]]:
    """Read the captions of every video; see :func:`convert_msvd`."""
    if path.suffix == '.pkl':
        return captions_by_id(read_plain_pickle(path), path)
    if path.suffix != '.csv':
        return captions_by_id(read_json(path), path)
    if mapping is None:
        raise ValueError(
            f'{path}: a table of captions names its videos vid1, vid2 and so '
            'on. Give the official youtube_mapping.txt as well (--mapping).'
        )
    names = read_mapping(mapping)
    captions: dict[str, list[str]] = {}
    for row in read_csv(path, ['video_id', 'sentence']):
        number = row['video_id'].partition('.')[0]
        if number not in names:
            raise ValueError(
                f'{path}: {number!r} is not in {mapping}. Give the mapping '
                'that belongs to the captions.'
            )
        captions.setdefault(names[number], []).append(row['sentence'])
    return captions


def read_mapping(path: Path) -> dict[str, str]:
    """Read the video id of each ``vidN``."""
    names = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        parts = line.split()
        if len(parts) != 2:
            raise ValueError(
                f"{path}: line {number} must be an id and 'vidN', but is "
                f'{line[:100]!r}.'
            )
        names[parts[1]] = parts[0]
    return names


def convert_msvd(
    captions: Path,
    lists: Path,
    mapping: Path | None = None,
    video_suffix: str = '.avi',
) -> list[ConvertedSplit]:
    """Convert the splits of MSVD.

    Args:
        captions (Path): ``raw-captions.pkl``, a JSON file ``{id: [caption,
            ...]}``, or, as for translations, a CSV file with the columns
            ``video_id`` and ``sentence``.
        lists (Path): Folder with ``train_list.txt``, ``val_list.txt`` and
            ``test_list.txt``.
        mapping (Path, optional): ``youtube_mapping.txt``, the id of each
            ``vidN``; required for CSV. Default: None.
        video_suffix (str): Suffix of the video files. Default: ``'.avi'``.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file has an unexpected format, or a CSV file has no
            mapping.
    """
    by_id = read_msvd_captions(captions, mapping)
    return assemble_splits(PLANS, lists, by_id, video_suffix)
