"""DiDeMo, paragraph to video: the official JSON and the lists."""

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

    The moments a description is about (``times``, of 1 to 7 annotators) play
    no part where all of them are joined to one paragraph.
    """
    content = read_json(path)
    if not isinstance(content, list):
        raise ValueError(
            f'{path}: expected a list of descriptions, the official form of '
            f'DiDeMo, but got {type(content).__name__}.'
        )
    where = f'{path}: item {{}}'
    return collect_captions(content, ('video', 'description'), where)


def stem_of(name: str) -> str:
    """Take off what follows the last dot; nothing may follow it.

    ``'12_34_ab.mov'``, ``'12_34_ab.'`` and ``'12_34_ab.null'`` all give
    ``'12_34_ab'``.
    """
    return name.rpartition('.')[0] or name


def convert_didemo(
    data: Path, lists: Path | None = None, video_suffix: str | None = None
) -> list[ConvertedSplit]:
    """Convert every split of DiDeMo that a folder holds.

    Args:
        data (Path): Folder with ``train_data.json``, ``val_data.json`` and
            ``test_data.json``, or some of them.
        lists (Path, optional): Folder with ``train_list.txt`` and so on, the
            videos of the protocol. Default: None, all videos of the JSON,
            which are more than the protocol has.
        video_suffix (str, optional): Of the video files, in the place of the
            one in their name, for copies that were written again. Default:
            None, files are named as officially.

    Raises:
        FileNotFoundError: If there is no JSON file, or a split has no list.
        ValueError: If a file has another form.
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
            # a list of copies has the stems of the official names
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
