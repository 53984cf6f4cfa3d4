"""DiDeMo, paragraph-to-video: official JSON files and split lists."""

from __future__ import annotations

from pathlib import Path

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


def read_didemo_captions(path: Path) -> dict[str, list[str]]:
    """Read the descriptions of every video, in file order.

    The annotated moments (``times``) are not needed for paragraphs.
    """
    content = read_json(path)
    if not isinstance(content, list):
        raise ValueError(
            f'{path}: expected a list of descriptions, the official '
            f'format of DiDeMo, but got {type(content).__name__}.'
        )
    where = f'{path}: item {{}}'
    return collect_captions(content, ('video', 'description'), where)


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
        captions = read_didemo_captions(path)
        listed = list(captions)
        if lists is not None:
            listed = read_id_list(lists / f'{split}_list.txt')
            by_stem = {stem_of(name): name for name in captions}
            # lists of re-encoded copies have other suffixes
            listed = [
                name if name in captions else by_stem.get(stem_of(name), name)
                for name in listed
            ]
        splits.append(assemble_split(plan, listed, captions, video_name))
    if not splits:
        raise FileNotFoundError(
            f'{data}: expected a folder with train_data.json, val_data.json '
            'or test_data.json of DiDeMo.'
        )
    return splits
