"""Two stages: a shortlist by one vector, then the head on the shortlist."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
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
from eaglenet_mm.search.records import MomentFilter
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


@dataclass(frozen=True)
class SearchHit:
    """A video, or a segment of one, that was found.

    Args:
        moment_id (int): Its number in the index.
        path (str): Of the file.
        start (float): First second.
        end (float): Last second.
        best_time (float): Second of the frame nearest to the query.
        score (float): Of the head; higher is better. Of the first stage, if
            a video was searched with.
        similarity (float): Of the first stage: the cosine of the query and
            the mean frame, unless the head has vectors of its own.
        duration (float): Seconds of the file; 0 if unknown.
        size (int): Bytes of the file when it was indexed.
        changed (int): Time of its last change then, in nanoseconds.
        tags (tuple[str, ...]): Of the file.
        others (tuple[SearchHit, ...]): Further moments of the same video,
            the best first, where hits are grouped.

    Example:
        >>> hit = SearchHit(7, '/videos/dog.mp4', 0.0, 9.5, 2.5, 0.4, 0.3)
        >>> hit.to_dict()['best_time']
        2.5
    """

    moment_id: int
    path: str
    start: float
    end: float
    best_time: float
    score: float
    similarity: float
    duration: float = 0.0
    size: int = 0
    changed: int = 0
    tags: tuple[str, ...] = ()
    others: tuple[SearchHit, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Describe the hit for JSON.

        Returns:
            dict[str, Any]: The fields, None in the place of what is no
            number, and ``exists``: whether the file is still there.
        """
        plain = {
            name: None
            if isinstance(value, float) and not math.isfinite(value)
            else value
            for name, value in asdict(replace(self, others=())).items()
        }
        plain['tags'] = list(self.tags)
        plain['others'] = [other.to_dict() for other in self.others]
        return {**plain, 'exists': os.path.isfile(self.path)}


@dataclass
class SearchAnswer:
    """What was found for one query; iterates over its hits.

    Args:
        hits (list[SearchHit]): The best first.
        has_more (bool): Whether a larger ``offset`` gives more.
        scored (int): Rows that the head scored; 0 if only the first stage
            ran.
        total (int): Rows that the filter allows.
        unknown_words (list[str]): Words that the tokenizer has no id of.
        unseen_words (list[str]): Words that the captions of the training do
            not have; empty if those are not known.
        p_value (float, optional): Share of calibration captions whose best
            score is as low as this one's; None without a calibration.
        nothing_found (bool): Whether that share is so low that the index
            probably shows nothing of the kind.
        cut_at (int, optional): Characters of the text that the model reads;
            None for all.

    Example:
        >>> answer = SearchAnswer([], has_more=False, scored=0, total=0)
        >>> len(answer)
        0
    """

    hits: list[SearchHit]
    has_more: bool
    scored: int
    total: int
    unknown_words: list[str] = field(default_factory=list)
    unseen_words: list[str] = field(default_factory=list)
    p_value: float | None = None
    nothing_found: bool = False
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
    def search(
        self,
        text: TextFeatures,
        count: int,
        shortlist: int,
        *,
        offset: int = 0,
        where: MomentFilter | None = None,
        per_video: int = 0,
    ) -> list[SearchAnswer]:
        """Find videos by sentences.

        ``shortlist`` rows, ``count`` at least, are scored and sorted; behind
        them come the next as many, sorted among themselves, and so on. So
        pages by ``offset`` never change what came before them.
        """

        def run() -> list[SearchAnswer]:
            allowed = self.index.select(where)
            total = len(allowed)
            block = max(shortlist, count)
            everything = not shortlist or block >= total
            whole = self._scores(text, allowed) if everything else None
            answers = []
            for n, one in enumerate(text.split(1)):

                def rank(wanted: int, n: int = n, one: Any = one) -> Ranked:
                    if whole is not None:
                        return _sorted(allowed, whole[n])
                    wanted = -(-wanted // block) * block
                    near = self.shortlist(one, wanted, where)[0][1]
                    blocks = [
                        _sorted(ids, self._scores(one, ids)[0])
                        for ids in (x.sort().values for x in near.split(block))
                    ]
                    ids, scores = zip(*blocks, strict=True)
                    return torch.cat(ids), torch.cat(scores)

                query = one.embeds.float().cpu()
                side = self._text_vectors(one)
                answer, ranked = self._answer(
                    rank, total, count, offset, per_video, query, side
                )
                answer.scored = len(ranked[0])
                if not where and total:
                    # of the first block, whatever page is shown
                    answer.top_score = float(ranked[1][0])
                answers.append(answer)
            return answers

        return self._retry(run)

    @torch.no_grad()
    def search_video(
        self,
        video: VideoFeatures,
        count: int,
        *,
        offset: int = 0,
        where: MomentFilter | None = None,
        per_video: int = 0,
    ) -> SearchAnswer:
        """Find videos by a video, with the first stage alone."""
        side = video_vectors(self.head, video, self.index.model.vectors)
        frames = video.frames[video.frame_mask].float().cpu()  # (n, D)

        def rank(wanted: int) -> Ranked:
            found = self.shortlister.search(side.float().cpu(), wanted, where)
            return found[0][1], found[0][0]

        def run() -> SearchAnswer:
            self.shortlister.synchronise()
            return self._answer(
                rank,
                len(self.index.select(where)),
                count,
                offset,
                per_video,
                frames,
                side,
            )[0]

        return self._retry(run)

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
        if self.index.model.vectors:
            return self.head.shortlist_text(text).float().cpu()
        return unit_sentences(text).float().cpu()

    def _retry(self, run: Callable[[], ResultT]) -> ResultT:
        """Search anew where a writer replaced what was just found."""
        for _ in range(_ATTEMPTS):
            self.index.refresh()
            try:
                return run()
            except KeyError as err:
                if not self.index.refresh():
                    raise DamagedIndexError(
                        f'{self.index.where} lacks a row that it lists '
                        f'({err}). Run tools/index.py with --repair.'
                    ) from err
        with self.index.store.snapshot():
            self.index.refresh()
            return run()

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
                frames = features['frames']
                features['patches'] = frames.new_zeros(
                    *frames.shape[:2],
                    self.head.num_patches,
                    frames.shape[-1],
                )
            self._template = self.head.prepare_video(VideoFeatures(**features))
        return self._template

    def _answer(
        self,
        rank: Callable[[int], Ranked],
        total: int,
        count: int,
        offset: int,
        per_video: int,
        query: Tensor,
        side: Tensor,
    ) -> tuple[SearchAnswer, Ranked]:
        """Show a page of what is ranked, as far as it must be."""
        wanted, needed = offset + count, offset + count + bool(per_video)
        ranked = (torch.zeros(0).long(), torch.zeros(0))
        groups: list[list[tuple[int, float]]] = []
        while total:
            ranked = rank(min(wanted, total))
            pairs = list(zip(*(x.tolist() for x in ranked), strict=True))
            groups = self._group(pairs, per_video)
            if len(groups) >= needed or len(pairs) >= total or not per_video:
                break
            if len(pairs) < wanted:  # an approximate first stage has no more
                break
            wanted *= 2
        page = groups[offset : offset + count]
        hits = iter(self._hits([x for own in page for x in own], query, side))
        shown = []
        for own in page:
            best, *others = (next(hits) for _ in own)
            shown.append(replace(best, others=tuple(others)))
        has_more = len(groups) > offset + count or (
            not per_video and offset + count < total and len(page) == count
        )
        return SearchAnswer(shown, has_more, 0, total), ranked

    def _group(
        self, pairs: Sequence[tuple[int, float]], per_video: int
    ) -> list[list[tuple[int, float]]]:
        """Put further moments of a video behind its best."""
        if not per_video:
            return [[pair] for pair in pairs]
        moments = self.index.store.moments([one for one, _ in pairs])
        groups: list[list[tuple[int, float]]] = []
        of_video: dict[str, list[list[tuple[int, float]]]] = {}
        spans: dict[str, list[tuple[float, float]]] = {}
        for moment, pair in zip(moments, pairs, strict=True):
            path = moment.file.path
            seen = spans.setdefault(path, [])
            if any(moment.start < b and moment.end > a for a, b in seen):
                continue  # a better one shows the same seconds
            seen.append((moment.start, moment.end))
            own = of_video.setdefault(path, [])
            if len(own) < per_video:
                own.append([pair])
                groups.append(own[-1])
            else:
                own[0].append(pair)
        return groups

    def _hits(
        self,
        pairs: Sequence[tuple[int, float]],
        query: Tensor,
        side: Tensor,
    ) -> list[SearchHit]:
        """Describe rows; ``query`` is ``(n, D)`` for any ``n``."""
        if not pairs:
            return []
        ids = torch.tensor([one for one, _ in pairs])
        features, _, times = self.index.read(ids)
        # the frame that is nearest to any vector of the query
        unit = F.normalize(features['frames'].float(), dim=-1)
        nearness = (unit @ F.normalize(query, dim=-1).t()).amax(dim=-1)
        nearness[times.isnan()] = -torch.inf
        best = times.gather(1, nearness.argmax(dim=1, keepdim=True))[:, 0]
        near = self.index.vectors(ids) @ side.float().cpu()[0]
        return [
            SearchHit(
                moment.moment_id,
                moment.file.path,
                moment.start,
                moment.end,
                # times are rounded to float32, spans are not
                min(max(second, moment.start), moment.end),
                score,
                similarity,
                moment.file.duration,
                moment.file.size,
                moment.file.changed,
                moment.file.tags,
            )
            for moment, (_, score), similarity, second in zip(
                self.index.moments(ids),
                pairs,
                near.tolist(),
                best.tolist(),
                strict=True,
            )
        ]


def video_vectors(
    head: BasePairHead, video: VideoFeatures, own: str
) -> Tensor:
    """Make vectors of the first stage: the head's own, or mean frames."""
    return head.shortlist_video(video) if own else mean_of_unit_frames(video)


def _sorted(ids: Tensor, scores: Tensor) -> Ranked:
    order = scores.argsort(descending=True, stable=True)
    return ids[order], scores[order]
