"""Canonical order of the videos and captions of an evaluation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from eaglenet_mm.datasets.joined_parts import Part
from eaglenet_mm.structures import RetrievalDataSample

Key = tuple[int, int]  # number of the part, index within it
#: Key, id and file of a video. The file is (path, start, end), where custom
#: datasets may have another object for the path, or None if unknown.
FoundVideo = tuple[Key, str, tuple | None]
#: Key of a caption, index of its own video, and ids of its right videos
#: (None: only its own).
FoundCaption = tuple[Key, int, tuple[str, ...] | None]


class Found:
    """Videos and captions found by one process, in order of arrival."""

    def __init__(self) -> None:
        self.videos: list[FoundVideo] = []
        self.captions: list[FoundCaption] = []
        self.is_marked = False  # whether samples name their part
        self._known: set[tuple] = set()

    def add(self, sample: RetrievalDataSample) -> tuple[bool, list[int]]:
        """Register a video and its captions.

        Returns whether the video is new, and the positions of new captions.
        """
        part, index = sample.get('part', 0), sample.video_index
        self.is_marked = self.is_marked or 'part' in sample
        path = sample.get('video')
        file = None
        if path is not None:
            path = path if isinstance(path, str) else repr(path)
            file = (path, sample.get('start'), sample.get('end'))
        # including the file: joined sets may share ids by chance
        video = ((part, index), sample.video_id, file)
        new_video = self._is_new(video)
        if new_video:
            self.videos.append(video)
        captions = sample.caption_indices
        positives = sample.get('positives')
        if positives is not None and len(positives) != len(captions):
            raise ValueError(
                f"Video '{sample.video_id}' has positives of "
                f'{len(positives)} captions, but {len(captions)} '
                'caption_indices. A transform that removes captions must '
                'remove their positives as well.'
            )
        new_captions = []
        for place, caption in enumerate(captions):
            # two videos with one index are an error, not a duplicate
            if self._is_new((*video, caption)):
                right = None if positives is None else tuple(positives[place])
                self.captions.append(((part, caption), index, right))
                new_captions.append(place)
        return new_video, new_captions

    def _is_new(self, item: tuple) -> bool:
        """Whether an item is new; it no longer is afterwards."""
        if item in self._known:
            return False
        self._known.add(item)
        return True


class CanonicalOrder:
    """Rows and columns of the score matrix, for any sampler."""

    def __init__(
        self,
        videos: Sequence[FoundVideo],
        captions: Sequence[FoundCaption],
        parts: Sequence[Part] = (),
    ) -> None:
        if not videos or not captions:
            raise ValueError(
                f'The evaluation set has {len(videos)} videos and '
                f'{len(captions)} captions; it needs at least one of each. '
                "Look at the dataloader's ann_file."
            )
        self.parts = parts
        self._order_videos(videos)
        self._order_captions(captions)

    def _order_videos(self, videos: Sequence[FoundVideo]) -> None:
        """Sort the videos; the same video in two parts is one column."""
        keys, places = _first_places([key for key, _, _ in videos])
        known = dict(zip(keys, places, strict=True))
        for key, video_id, file in videos:
            _, one, other = videos[known[key]]
            if (one, other) != (video_id, file):
                names = [one, video_id]
                if one == video_id:  # only their files differ
                    names = [
                        str(x[0]) if x else 'of an unknown file'
                        for x in (other, file)
                    ]
                raise ValueError(
                    f"Videos '{names[0]}' and '{names[1]}' have the same "
                    f'video_index {key[1]}, so their captions would be mixed '
                    'up. Number the videos of a data set from 0 on, or join '
                    'data sets by ConcatDataset, whose parts are told apart.'
                )
        bounds = self._bounds(keys, 0)
        # for each column: canonical id (ascending), name, first position
        self.videos: list[int] = []
        self.video_ids: list[str] = []
        self.video_places: list[int] = []
        self._column: dict[Key, int] = {}
        self._by_id: dict[tuple[int, str], list[int]] = defaultdict(list)
        first: dict[tuple, int] = {}
        for key, place in known.items():
            _, video_id, file = videos[place]
            column = len(self.videos)
            if file is not None:
                column = first.setdefault((video_id, file), column)
            if column == len(self.videos):
                self.videos.append(bounds[key[0]] + key[1])
                self.video_ids.append(video_id)
                self.video_places.append(place)
            self._column[key] = column
            if column not in self._by_id[key[0], video_id]:
                self._by_id[key[0], video_id].append(column)

    def _order_captions(self, captions: Sequence[FoundCaption]) -> None:
        """Sort the captions and find the columns of their right videos."""
        keys, self.caption_places = _first_places(
            [key for key, _, _ in captions]
        )
        bounds = self._bounds(keys, 1)
        # canonical id of each row, ascending
        self.captions = [bounds[part] + index for part, index in keys]
        self._part_of_row = [part for part, _ in keys]
        # for each caption: its videos, with the positives listed there
        stands: dict[Key, dict[int, tuple[str, ...] | None]] = {}
        self._copies: list[tuple[int, int]] = []
        places = dict(zip(keys, self.caption_places, strict=True))
        for place, (key, video, right) in enumerate(captions):
            own = stands.setdefault(key, {})
            if own and video not in own:
                self._copies.append((places[key], place))
            own.setdefault(video, right)
        self.columns, answers = [], []
        for key in keys:
            own = stands[key]
            found: set[int] = set()
            for video, right in own.items():
                if right is None:
                    found.add(self._column[key[0], video])
                else:
                    found.update(self._columns_of(key[0], right))
            home = self._column[key[0], min(own)]
            first = min(found, default=-1)
            self.columns.append(home if home in found else first)
            answers.append(sorted(found))
        single = all(len(found) == 1 for found in answers)
        self.positives = None if single else answers

    def _columns_of(
        self, part: int, video_ids: Iterable[str]
    ) -> Iterable[int]:
        """Find the columns of videos by id, skipping unknown ids."""
        for video_id in video_ids:
            columns = self._by_id.get((part, video_id), [])
            if len(columns) > 1:
                raise ValueError(
                    f"'positives' name '{video_id}', but {len(columns)} "
                    'videos have this video_id. Give every video of a data '
                    'set an id of its own.'
                )
            yield from columns

    def _bounds(self, keys: Sequence[Key], side: int) -> list[int]:
        """First canonical id of each part, of videos (0) or captions (1)."""
        used: dict[int, int] = {}
        for number, index in keys:
            used[number] = max(used.get(number, 0), index + 1)
        bounds = [0]
        for number, part in enumerate(self.parts):
            size = part.sizes()[side]
            most = used.get(number, 0)
            if size is not None and most > size:
                raise ValueError(
                    f"Part '{part.name}' of the joined set declares "
                    f'{size} {("videos", "captions")[side]}, but one has '
                    f'index {most - 1}. Correct its metainfo.'
                )
            bounds.append(bounds[-1] + (most if size is None else size))
        return bounds

    def check_tokens(self, token_ids: Tensor) -> None:
        """Refuse one caption index for different sentences.

        ``token_ids`` are in order of arrival, ``(n, L)``.
        """
        if not self._copies:
            return
        one, other = torch.tensor(self._copies, device=token_ids.device).t()
        differ = (token_ids[one] != token_ids[other]).any(dim=1)
        if bool(differ.any()):
            row = self.caption_places.index(int(one[differ][0]))
            raise ValueError(
                f'Caption index {self.captions[row]} stands with several '
                'videos, and with different sentences. One index is one '
                'caption, which may fit several videos: number the captions '
                'of a data set from 0 on.'
            )

    def row(self, row: int) -> dict[str, Any]:
        """Describe a row; see :meth:`RetrievalEvaluation.score`."""
        column = self.columns[row]
        said: dict[str, Any] = {
            'caption_index': self.captions[row],
            'video_index': self.videos[column] if column >= 0 else -1,
            'video_id': self.video_ids[column] if column >= 0 else '',
            'column': column,
        }
        if self.positives is not None:
            said['positives'] = self.positives[row]
        if self.parts:
            said['part'] = self.parts[self._part_of_row[row]].name
        return said

    def announcement(self) -> dict[str, Any]:
        """Describe the parts; see :meth:`RetrievalRankMetric.process`."""
        num_repeated = len(self._column) - len(self.videos)
        if not self.parts:
            return {'num_repeated': num_repeated} if num_repeated else {}
        parts, start = [], 0
        for number, part in enumerate(self.parts):
            stop = start + self._part_of_row.count(number)
            columns = {
                column
                for (of_part, _), column in self._column.items()
                if of_part == number
            }
            parts.append(
                {
                    'name': part.name,
                    'metainfo': part.metainfo,
                    'rows': (start, stop),
                    'columns': sorted(columns),
                }
            )
            start = stop
        return {'parts': parts, 'num_repeated': num_repeated}


def _first_places(keys: Sequence[Key]) -> tuple[list[Key], list[int]]:
    """Sort the distinct keys; also give the first position of each."""
    first: dict[Key, int] = {}
    for place, key in enumerate(keys):
        first.setdefault(key, place)
    ordered = sorted(first)
    return ordered, [first[key] for key in ordered]
