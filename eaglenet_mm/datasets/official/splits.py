"""Assembly of splits in the annotation schema, with a report."""

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
    """Identity and published size of a split.

    All fields but ``file`` go into the header of the annotation file.
    """

    #: Name of the annotation file without ``.json``.
    file: str
    dataset: str
    #: ``'train'``, ``'val'`` or ``'test'``.
    split: str
    protocol: str
    #: Published counts, if known.
    videos: int | None = None
    captions: int | None = None
    #: How models are selected, if the protocol has no list for it.
    selection: str | None = None


@dataclass
class SplitReport:
    """Result of assembling a split."""

    file: str
    expected_videos: int | None
    expected_captions: int | None
    #: Number of lines of the list.
    listed: int = 0
    #: Numbers of videos and captions written.
    found_videos: int = 0
    found_captions: int = 0
    #: Videos of the list without captions.
    missing: list[str] = field(default_factory=list)
    #: Videos that occur more than once in the list.
    duplicate: list[str] = field(default_factory=list)
    #: Videos of the empty captions left out, once per caption.
    empty: list[str] = field(default_factory=list)
    #: Videos with captions that are not in the list.
    unlisted: list[str] = field(default_factory=list)

    @property
    def as_published(self) -> bool:
        """Whether nothing is missing and all counts are as published."""
        return (
            self.expected_videos in (None, self.found_videos)
            and self.expected_captions in (None, self.found_captions)
            and not (self.missing or self.duplicate or self.empty)
        )

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
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
    """A split ready to write; ``records`` follow the annotation schema."""

    plan: SplitPlan
    records: list[dict[str, Any]]
    report: SplitReport

    def metainfo(self) -> dict[str, Any]:
        """Build the header, including the missing videos."""
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
    *,
    moments: Mapping[str, Sequence[list]] | None = None,
) -> ConvertedSplit:
    """Assemble a split from a list of ids and captions by id.

    Args:
        plan (SplitPlan): Identity of the split.
        listed (Sequence[str]): Video ids of the split. Records keep their
            order, without duplicates and videos without captions.
        captions (Mapping): Captions by id, possibly of more videos.
        video_name (Callable): Maps an id to the name of its file.
        siblings (Iterable[str]): Ids of other splits, not to be reported as
            unlisted. Default: none.
        moments (Mapping, optional): By id, the moments of each caption.
            Default: None.

    Raises:
        ValueError: If a caption holds a NUL character.
    """
    report = SplitReport(plan.file, plan.videos, plan.captions, len(listed))
    records: list[dict[str, Any]] = []
    for name, times in Counter(listed).items():
        if times > 1:
            report.duplicate.append(name)
        sentences, places = [], []
        for place, sentence in enumerate(captions.get(name, ())):
            if '\0' in sentence:
                raise ValueError(
                    f'{plan.dataset}: a caption of {name!r} holds a NUL '
                    'character, so the file is damaged. Download it again.'
                )
            if sentence.strip():
                sentences.append(sentence.strip())
                places.append(place)
            else:
                report.empty.append(name)
        if not sentences:
            report.missing.append(name)
            continue
        records.append(
            dict(video_id=name, video=video_name(name), captions=sentences)
        )
        if moments is not None:
            records[-1]['moments'] = [moments[name][place] for place in places]
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
    """Assemble the splits of a dataset with lists ``train_list.txt`` etc."""
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
    """Find ids shared by two splits of a protocol, keyed by file & file."""
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

    A split without videos is reported but not written.

    Args:
        out (Path): Output folder; created if missing.
        splits (Sequence[ConvertedSplit]): Splits of one dataset.

    Returns:
        list[str]: The report as lines of text.

    Raises:
        ValueError: If all splits are empty.
    """
    if not any(split.records for split in splits):
        raise ValueError(
            'none of the listed videos has captions, so nothing was written. '
            'Use lists and captions of the same release.'
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
