"""Splits of the one schema, and what was found on the way to them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from eaglenet_mm.datasets.annotation import write_annotation
from eaglenet_mm.datasets.official.reading import read_id_list
from eaglenet_mm.utils.durable_file import write_text_durably
from eaglenet_mm.utils.name_lists import name_some


@dataclass(frozen=True)
class SplitPlan:
    """What a split is, and how many videos and captions it was published with.

    All but ``file`` stands in the header of the annotation file.
    """

    #: Name of the annotation file without ``.json``.
    file: str
    dataset: str
    #: ``'train'``, ``'val'`` or ``'test'``.
    split: str
    protocol: str
    #: Published numbers, if known.
    videos: int | None = None
    captions: int | None = None
    #: What models are chosen on, where the protocol has no list for it.
    selection: str | None = None


@dataclass
class SplitReport:
    """What was found of a split."""

    file: str
    expected_videos: int | None
    expected_captions: int | None
    #: Lines of the list.
    listed: int = 0
    #: Videos and captions written.
    found_videos: int = 0
    found_captions: int = 0
    #: Videos of the list without captions.
    missing: list[str] = field(default_factory=list)
    #: Videos that stand more than once in the list.
    duplicate: list[str] = field(default_factory=list)
    #: Videos of which an empty caption was left out, once a caption.
    empty: list[str] = field(default_factory=list)
    #: Videos with captions that the list leaves out.
    unlisted: list[str] = field(default_factory=list)

    @property
    def as_published(self) -> bool:
        """Whether nothing is lost and the numbers are the published ones."""
        return (
            self.expected_videos in (None, self.found_videos)
            and self.expected_captions in (None, self.found_captions)
            and not (self.missing or self.duplicate or self.empty)
        )

    def lines(self) -> list[str]:
        """Say it in some lines of text."""
        note = '' if self.as_published else '  <- NOT AS PUBLISHED'
        if not self.found_videos:
            note += ', not written'
        lines = [
            f'{self.file}: {_count(self.found_videos, self.expected_videos)} '
            f'videos, {_count(self.found_captions, self.expected_captions)} '
            f'captions{note}'
        ]
        for names, what in (
            (self.missing, 'listed without captions, left out'),
            (self.duplicate, 'listed more than once, taken once'),
            (self.empty, 'empty captions, left out, of'),
            (self.unlisted, 'have captions but are not listed, left out'),
        ):
            if names:
                lines.append(f'  {len(names)} {what}: {name_some(names)}')
        return lines


def _count(found: int, expected: int | None) -> str:
    return f'{found}' if expected is None else f'{found} of {expected}'


class ConvertedSplit(NamedTuple):
    """A split, ready to be written; ``records`` are of the one schema."""

    plan: SplitPlan
    records: list[dict[str, Any]]
    report: SplitReport

    def metainfo(self) -> dict[str, Any]:
        """Make the header; it says what is missing."""
        plan, report = self.plan, self.report
        header: dict[str, Any] = dict(
            dataset=plan.dataset,
            split=plan.split,
            protocol=plan.protocol,
            selection=plan.selection,
            published_videos=plan.videos,
            published_captions=plan.captions,
            missing_videos=report.missing or None,
        )
        return {k: v for k, v in header.items() if v is not None}


def assemble_split(
    plan: SplitPlan,
    listed: Sequence[str],
    captions: Mapping[str, Sequence[str]],
    video_name: Callable[[str], str],
    siblings: Iterable[str] = (),
) -> ConvertedSplit:
    """Bring a list of ids and the captions of ids together.

    Args:
        plan (SplitPlan): What the split is.
        listed (Sequence[str]): Ids of its videos; records are in their
            order, each once, if they have captions.
        captions (Mapping): Captions of each id, of more videos maybe.
        video_name (Callable): Gives the file of an id.
        siblings (Iterable[str]): Ids that other splits list, which are then
            not reported as left out. Default: none.

    Raises:
        ValueError: If a caption holds a NUL character.
    """
    report = SplitReport(plan.file, plan.videos, plan.captions, len(listed))
    records = []
    for name, times in Counter(listed).items():
        if times > 1:
            report.duplicate.append(name)
        sentences = []
        for sentence in captions.get(name, ()):
            if '\0' in sentence:
                raise ValueError(
                    f'{plan.dataset}: a caption of {name!r} holds a NUL '
                    'character, so the file is damaged. Download it again.'
                )
            if sentence.strip():
                sentences.append(sentence.strip())
            else:
                report.empty.append(name)
        if not sentences:
            report.missing.append(name)
            continue
        records.append(
            dict(video_id=name, video=video_name(name), captions=sentences)
        )
    known = {*listed, *siblings}
    report.unlisted = [name for name in captions if name not in known]
    report.found_videos = len(records)
    report.found_captions = sum(len(x['captions']) for x in records)
    return ConvertedSplit(plan, records, report)


def assemble_splits(
    plans: Mapping[str, SplitPlan],
    lists: Path,
    captions: Mapping[str, Sequence[str]],
    video_suffix: str,
) -> list[ConvertedSplit]:
    """Assemble the splits of a set whose lists are ``train_list.txt`` etc."""
    listed = {x: read_id_list(lists / f'{x}_list.txt') for x in plans}
    siblings = {name for names in listed.values() for name in names}
    return [
        assemble_split(
            plan, listed[split], captions, lambda x: x + video_suffix, siblings
        )
        for split, plan in plans.items()
    ]


def find_overlaps(
    splits: Sequence[ConvertedSplit],
) -> dict[str, list[str]]:
    """Find ids that stand in two splits of a protocol, by file & file."""
    found = {}
    for one, other in combinations(splits, 2):
        if (
            one.plan.protocol != other.plan.protocol
            or one.plan.split == other.plan.split
        ):
            continue
        names = {record['video_id'] for record in one.records}
        ids = [record['video_id'] for record in other.records]
        both = [name for name in ids if name in names]
        if both:
            found[f'{one.plan.file} & {other.plan.file}'] = both
    return found


def write_splits(out: Path, splits: Sequence[ConvertedSplit]) -> list[str]:
    """Write the annotation files and ``conversion_report.json``.

    A split without any video is reported, and not written.

    Args:
        out (Path): Folder; made if missing.
        splits (Sequence[ConvertedSplit]): Of one data set.

    Returns:
        list[str]: Lines that say what was found.

    Raises:
        ValueError: If no split has any video.
    """
    if not any(split.records for split in splits):
        raise ValueError(
            'none of the listed videos has captions, so nothing was written. '
            'Give the lists and the captions of the same release.'
        )
    overlaps = find_overlaps(splits)
    lines = []
    for split in splits:
        if split.records:
            write_annotation(
                out / f'{split.plan.file}.json',
                split.metainfo(),
                split.records,
            )
        lines += split.report.lines()
    for pair, names in overlaps.items():
        lines.append(f'{pair}: {len(names)} in both: {name_some(names)}')
    report = dict(
        dataset=splits[0].plan.dataset,
        splits=[asdict(split.report) for split in splits],
        overlaps=overlaps,
    )
    write_text_durably(
        out / 'conversion_report.json',
        json.dumps(report, ensure_ascii=False, indent=1) + '\n',
    )
    return lines
