"""MSR-VTT: official JSON files and the usual split lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eaglenet_mm.datasets.official.reading import (
    collect_captions,
    read_csv,
    read_json,
)
from eaglenet_mm.datasets.official.splits import (
    ConvertedSplit,
    SplitPlan,
    assemble_split,
)

_ON_TEST = (
    'there is no list to choose models on: they are chosen on the test list'
)

#: Lists with one column of ids, and their plans.
ID_LISTS = {
    'MSRVTT_train.9k.csv': SplitPlan(
        'train_9k', 'msrvtt', 'train', '1k-A', 9000, 180000
    ),
    'MSRVTT_train.7k.csv': SplitPlan(
        'train_7k', 'msrvtt', 'train', '1k-A', 7010, 140200
    ),
    'MSRVTT_train.full.csv': SplitPlan(
        'train_full', 'msrvtt', 'train', 'full', 6513, 130260
    ),
    'MSRVTT_val.full.csv': SplitPlan(
        'val_full', 'msrvtt', 'val', 'full', 497, 9940
    ),
    'MSRVTT_test.full.csv': SplitPlan(
        'test_full', 'msrvtt', 'test', 'full', 2990, 59800
    ),
}
#: The list that also gives one sentence per video.
SENTENCE_LIST = 'MSRVTT_JSFUSION_test.csv'
SENTENCE_PLAN = SplitPlan(
    'test_1k-a', 'msrvtt', 'test', '1k-A', 1000, 1000, _ON_TEST
)


def read_msrvtt_captions(paths: Sequence[Path]) -> dict[str, list[str]]:
    """Read the captions of official JSON files, in order."""
    captions: dict[str, list[str]] = {}
    for path in paths:
        content = read_json(path)
        sentences = (
            content.get('sentences') if isinstance(content, dict) else 0
        )
        if not isinstance(sentences, list):
            raise ValueError(
                f"{path}: expected an object with a list 'sentences', the "
                'official format of MSR-VTT.'
            )
        where = f"{path}: 'sentences'[{{}}]"
        found = collect_captions(sentences, ('video_id', 'caption'), where)
        for name, own in found.items():
            captions.setdefault(name, []).extend(own)
    return captions


def convert_msrvtt(
    data: Sequence[Path], lists: Path, video_suffix: str = '.mp4'
) -> list[ConvertedSplit]:
    """Convert all splits of MSR-VTT with a list in a folder.

    Args:
        data (Sequence[Path]): Official JSON files with the captions.
        lists (Path): Folder with the lists, under their usual names.
        video_suffix (str): Suffix of the video files. Default: ``'.mp4'``.

    Raises:
        FileNotFoundError: If the folder contains none of the lists.
        ValueError: If a file has an unexpected format.
    """
    captions = read_msrvtt_captions(data)
    ids = {
        name: [row['video_id'] for row in read_csv(lists / name, ['video_id'])]
        for name in ID_LISTS
        if (lists / name).is_file()
    }
    has_sentences = (lists / SENTENCE_LIST).is_file()
    if not ids and not has_sentences:
        raise FileNotFoundError(
            f'{lists}: expected a folder with lists of MSR-VTT, at least one '
            f'of {[*ID_LISTS, SENTENCE_LIST]}.'
        )

    def video_name(name: str) -> str:
        return name + video_suffix

    own: dict[str, list[str]] = {}
    rows: list[str] = []
    if has_sentences:
        columns = ['video_id', 'sentence']
        for row in read_csv(lists / SENTENCE_LIST, columns):
            rows.append(row['video_id'])
            own.setdefault(row['video_id'], []).append(row['sentence'])
    siblings = {*rows, *(name for names in ids.values() for name in names)}
    splits = [
        assemble_split(ID_LISTS[name], listed, captions, video_name, siblings)
        for name, listed in ids.items()
    ]
    if has_sentences:
        splits.append(assemble_split(SENTENCE_PLAN, rows, own, video_name))
    return splits
