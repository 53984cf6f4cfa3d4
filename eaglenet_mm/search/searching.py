"""Two stages: a shortlist by one vector, then the head on the shortlist."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from eaglenet_mm.models.heads import BasePairHead
from eaglenet_mm.models.heads.base_pair_head import (
    mean_of_unit_frames,
    unit_sentences,
)
from eaglenet_mm.search.errors import DamagedIndexError, OtherModelError
from eaglenet_mm.search.records import Moment, MomentFilter
from eaglenet_mm.search.shortlisters import Shortlister
from eaglenet_mm.search.state_rows import restore_state
from eaglenet_mm.search.video_index import VideoIndex
from eaglenet_mm.structures import Features, TextFeatures, VideoFeatures

#: Rows whose state is in memory at once.
_BLOCK = 1024
#: Searches that may be begun again because a row was replaced meanwhile.
_ATTEMPTS = 2

ResultT = TypeVar('ResultT')
Ranked = tuple[Tensor, Tensor]  # ids and scores, the best first
Group = list[tuple[int, float]]  # likewise, of one video


@dataclass(frozen=True)
class SearchHit:
    """A video, or a segment of one, that was found.

    Example:
        >>> hit = SearchHit(7, '/videos/dog.mp4', 0.0, 9.5, 2.5, 0.4, 0.3)
        >>> hit.to_dict()['best_time']
        2.5
    """

    #: Its number in the index.
    moment_id: int
    path: str
    #: First and last second, and that of the frame nearest to the query.
    start: float
    end: float
    best_time: float
    #: Of the head, higher is better; of the first stage, if a video was
    #: searched with.
    score: float
    #: Of the first stage: the cosine of the query and the mean frame, unless
    #: the head has vectors of its own.
    similarity: float
    #: Of the file: seconds (0 if unknown), bytes, the time of its last change
    #: in nanoseconds when it was indexed, and tags.
    duration: float = 0.0
    size: int = 0
    changed: int = 0
    tags: tuple[str, ...] = ()
    #: Further moments of the video, the best first, where hits are grouped.
    others: tuple[SearchHit, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Describe the hit for JSON.

        Returns:
            dict[str, Any]: The fields, None in the place of what is no
            number, and ``exists``: whether the file is still there.
        """
        plain = dict(vars(self), tags=list(self.tags))
        for name, value in plain.items():
            if isinstance(value, float) and not math.isfinite(value):
                plain[name] = None
        plain['others'] = [other.to_dict() for other in self.others]
        return {**plain, 'exists': os.path.isfile(self.path)}


@dataclass(frozen=True)
class Page:
    """Which of the hits are wanted, see :meth:`RetrievalInferencer.search`."""

    k: int
    offset: int = 0
    where: MomentFilter | None = None
    per_video: int = 0
    shortlist: int = 100

    def __post_init__(self) -> None:
        if self.k < 1 or min(self.offset, self.shortlist, self.per_video) < 0:
            raise ValueError(
                'k must be at least 1, offset, shortlist and per_video at '
                f'least 0, but they are {self.k}, {self.offset}, '
                f'{self.shortlist} and {self.per_video}.'
            )


@dataclass
class SearchAnswer:
    """What was found for one query; iterates over its hits.

    Example:
        >>> answer = SearchAnswer([], has_more=False, scored=0, total=0)
        >>> len(answer)
        0
    """

    #: The best first.
    hits: list[SearchHit]
    #: Whether a larger ``offset`` gives more.
    has_more: bool
    #: Rows that the head scored (0 if only the first stage ran), and those
    #: that the filter allows.
    scored: int
    total: int
    #: Words that the tokenizer has no id of, and that the captions of the
    #: training do not have, as far as those are known.
    unknown_words: list[str] = field(default_factory=list)
    unseen_words: list[str] = field(default_factory=list)
    #: Share of calibration captions whose best score is as low; None without
    #: a calibration. If it is very low, nothing of the kind was found.
    p_value: float | None = None
    nothing_found: bool = False
    #: Characters of the text that the model reads; None for all.
    cut_at: int | None = None
    #: Best score of the query before filters and pages.
    top_score: float = math.nan

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[SearchHit]:
        return iter(self.hits)

    def __getitem__(self, place: Any) -> Any:
        return self.hits[place]


class VideoSearcher:
    """Searches an index with encoded queries."""

    def __init__(
        self,
        head: BasePairHead,
        head_id: str,
        index: VideoIndex,
        shortlister: Shortlister,
        device: torch.device | str = 'cpu',
    ) -> None:
        self.head = head
        self.index = index
        self.shortlister = shortlister
        self.device = torch.device(device)
        self._template: Features | None = None
        # of this head, else features are prepared for every query
        self._has_state = (
            bool(index.layout.state.columns) and index.model.head == head_id
        )
        if (
            head.needs_patches
            and not self._has_state
            and 'patches' not in index.layout.features.columns
        ):
            raise OtherModelError(
                f'{type(head).__name__} needs patches of the frames, which '
                f'{index.where} does not keep. Make the index with this head.'
            )

    @torch.no_grad()
    def search(self, text: TextFeatures, page: Page) -> list[SearchAnswer]:
        """Find videos by sentences.

        ``shortlist`` rows, ``k`` at least, are scored and sorted; behind them
        come the next as many, sorted among themselves, and so on. So pages by
        ``offset`` never change what came before them.
        """

        def run(allowed: Tensor) -> list[SearchAnswer]:
            block = max(page.shortlist, page.k)
            everything = not page.shortlist or block >= len(allowed)
            whole = self._scores(text, allowed) if everything else ()
            answers = []
            for n, one in enumerate(text.split(1)):
                vector = self._text_vectors(one)
                if everything:
                    rounds = iter([_sorted(allowed, whole[n])])
                else:
                    score = partial(self._scores, one)
                    rounds = self._rounds(vector, page, allowed, block, score)
                answers.append(
                    self._answer(rounds, allowed, page, one.embeds, vector)
                )
            return answers

        return self._retry(run, page)

    @torch.no_grad()
    def search_video(self, video: VideoFeatures, page: Page) -> SearchAnswer:
        """Find videos by a video, with the first stage alone."""
        vector = video_vectors(self.head, video, self.index.model.vectors)
        vector = vector.float().cpu()
        frames = video.frames[video.frame_mask]  # (n, D)

        def run(allowed: Tensor) -> SearchAnswer:
            rounds = self._rounds(vector, page, allowed)
            answer = self._answer(rounds, allowed, page, frames, vector)
            return replace(answer, scored=0, top_score=math.nan)

        return self._retry(run, page)

    @torch.no_grad()
    def shortlist(
        self,
        text: TextFeatures,
        count: int,
        where: MomentFilter | None = None,
    ) -> list[tuple[Tensor, Tensor]]:
        """Run the first stage alone: similarities and ids of each text."""
        self.shortlister.synchronise()
        return self.shortlister.search(self._text_vectors(text), count, where)

    def _text_vectors(self, text: TextFeatures) -> Tensor:
        own = self.index.model.vectors
        make = self.head.shortlist_text if own else unit_sentences
        return make(text).float().cpu()

    def _retry(self, run: Callable[[Tensor], ResultT], page: Page) -> ResultT:
        """Search anew where a writer replaced what was just found."""
        for _ in range(_ATTEMPTS):
            self.index.refresh()
            try:
                return run(self.index.select(page.where))
            except KeyError as err:
                if not self.index.refresh():
                    raise DamagedIndexError(
                        f'{self.index.where} lacks a row that it lists '
                        f'({err}). Run tools/index.py with --repair.'
                    ) from err
        with self.index.store.snapshot():
            self.index.refresh()
            return run(self.index.select(page.where))

    def _scores(self, text: TextFeatures, ids: Tensor) -> Tensor:
        """Score rows with the head, a block at a time, ``(B, n)``.

        Rows are ascending: in the order of the index, as a test scores its
        gallery.
        """
        text_state = self.head.prepare_text(text)
        scorer = self.head.chunk_scorer()
        scores = [torch.zeros(len(text), 0)]
        for block in ids.split(_BLOCK) if len(ids) else ():
            features, state, _ = self.index.read(block)
            if self._has_state:
                prepared = restore_state(self._state_template(), state)
                prepared = prepared.to(self.device)
            else:
                video = VideoFeatures(**features).to(self.device)
                prepared = self.head.prepare_video(video)
            scores.append(
                self.head.score_chunked(text_state, prepared, scorer).cpu()
            )
        return torch.cat(scores, dim=1)

    def _state_template(self) -> Any:
        """Prepare a video of zeros, for the kind of the state."""
        if self._template is None:
            columns = self.index.layout.features.columns
            features = {
                name: torch.zeros(1, *shape, device=self.device)
                for name, (_, shape) in columns.items()
            }
            features['frame_mask'] = features['frame_mask'] == 0
            if self.head.needs_patches and 'patches' not in features:
                *outer, width = features['frames'].shape
                features['patches'] = features['frames'].new_zeros(
                    *outer, self.head.num_patches, width
                )
            self._template = self.head.prepare_video(VideoFeatures(**features))
        return self._template

    def _rounds(
        self,
        vector: Tensor,
        page: Page,
        allowed: Tensor,
        block: int = 1,
        score: Callable[[Tensor], Tensor] | None = None,
    ) -> Iterator[Ranked]:
        """Rank rows a block at a time, twice as many in the next round."""
        self.shortlister.synchronise()
        wanted, total, done = page.offset + page.k, len(allowed), 0
        while done < total:
            count = -(-min(wanted, total) // block) * block
            wanted *= 2
            if count == done:
                continue
            found = self.shortlister.search(vector, count, page.where)
            near, ids = (tensor[done:] for tensor in found[0])
            if score is not None:
                blocks = [
                    _sorted(x, score(x)[0])
                    for x in (x.sort().values for x in ids.split(block))
                ]
                ids, near = map(torch.cat, zip(*blocks, strict=True))
            yield ids, near
            done += len(ids)
            if done < count:  # an approximate first stage has no more
                return

    def _answer(
        self,
        rounds: Iterator[Ranked],
        allowed: Tensor,
        page: Page,
        query: Tensor,
        vector: Tensor,
    ) -> SearchAnswer:
        """Show a page of what is ranked, as far as it must be."""
        total, end = len(allowed), page.offset + page.k
        answer = SearchAnswer([], has_more=False, scored=0, total=total)
        groups: list[Group] = []
        seen: dict[str, tuple[list[Moment], list[Group]]] = {}
        for ids, scores in rounds:
            if not page.where and not answer.scored and len(ids):
                # of the first block, whatever page is shown
                answer.top_score = float(scores[0])
            answer.scored += len(ids)
            pairs = list(zip(ids.tolist(), scores.tolist(), strict=True))
            if page.per_video:
                self._group(pairs, page.per_video, groups, seen)
            else:
                groups += [[pair] for pair in pairs]
            if len(groups) >= end + bool(page.per_video):
                break
        shown = groups[page.offset : end]
        answer.has_more = len(groups) > end or (
            not page.per_video and end < total and len(shown) == page.k
        )
        answer.hits = self._hits(shown, query.float().cpu(), vector)
        return answer

    def _group(
        self,
        pairs: list[tuple[int, float]],
        per_video: int,
        groups: list[Group],
        seen: dict[str, tuple[list[Moment], list[Group]]],
    ) -> None:
        """Put further moments of a video behind its best."""
        moments = self.index.store.moments([number for number, _ in pairs])
        for moment, pair in zip(moments, pairs, strict=True):
            better, own = seen.setdefault(moment.file.path, ([], []))
            if any(
                moment.start < x.end and moment.end > x.start for x in better
            ):
                continue  # a better one shows the same seconds
            better.append(moment)
            if len(own) < per_video:
                own.append([pair])
                groups.append(own[-1])
            else:
                own[0].append(pair)

    def _hits(
        self,
        groups: list[Group],
        query: Tensor,
        vector: Tensor,
    ) -> list[SearchHit]:
        """Describe rows; ``query`` is ``(n, D)`` for any ``n``."""
        numbers = [number for own in groups for number, _ in own]
        if not numbers:
            return []
        ids = torch.tensor(numbers)
        features, _, times = self.index.read(ids)
        # the frame that is nearest to any vector of the query
        unit = F.normalize(features['frames'].float(), dim=-1)
        nearness = (unit @ F.normalize(query, dim=-1).t()).amax(dim=-1)
        nearness[times.isnan()] = -torch.inf
        best = times.gather(1, nearness.argmax(dim=1, keepdim=True))[:, 0]
        near = self.index.vectors(ids) @ vector[0]
        facts = zip(
            self.index.store.moments(numbers),
            best.tolist(),
            near.tolist(),
            strict=True,
        )
        hits = []
        for own in groups:
            described = []
            for _, score in own:
                moment, second, similarity = next(facts)
                file = {**vars(moment.file)}
                del file['error']
                hit = SearchHit(
                    moment.moment_id,
                    start=moment.start,
                    end=moment.end,
                    # times are rounded to float32, spans are not
                    best_time=min(max(second, moment.start), moment.end),
                    score=score,
                    similarity=similarity,
                    **file,
                )
                described.append(hit)
            hits.append(replace(described[0], others=tuple(described[1:])))
        return hits


def video_vectors(
    head: BasePairHead, video: VideoFeatures, own: str
) -> Tensor:
    """Make vectors of the first stage: the head's own, or mean frames."""
    return head.shortlist_video(video) if own else mean_of_unit_frames(video)


def _sorted(ids: Tensor, scores: Tensor) -> Ranked:
    order = scores.argsort(descending=True, stable=True)
    return ids[order], scores[order]
