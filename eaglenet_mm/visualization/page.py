"""Pages that need nothing beside themselves, from the templates."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from eaglenet_mm.version import __version__
from eaglenet_mm.visualization.frame_strips import choose_slots
from eaglenet_mm.visualization.results_data import (
    RetrievalResults,
    ShownResult,
    ShownVideo,
)

#: Directions by the prefix of their metrics.
DIRECTIONS = {'t2v': 'text to video', 'v2t': 'video to text'}
_CAPTIONS = 5  # of a shown video
_MEANINGS = {
    'attention': 'what the pooling takes of each frame (sums to 1)',
    'cosine': 'of the sentence and each frame as the encoders give them, '
    'drawn over the range of the query',
}


def clock(seconds: float) -> str:
    """Write seconds as a player shows them: ``1:02:03.4`` or ``2:03.4``."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    text = f'{minutes}:{rest / 10:04.1f}'
    return f'{hours}:{minutes:02d}:{rest / 10:04.1f}' if hours else text


@cache
def _environment() -> Environment:
    folder = Path(__file__).parent / 'templates'
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    environment.policies['json.dumps_kwargs'] = dict(separators=(',', ':'))
    environment.filters['clock'] = clock
    script = (folder / 'page.js').read_text('utf-8')
    digest = hashlib.sha256(script.encode()).digest()
    environment.globals.update(
        script=Markup(script),
        script_hash=base64.b64encode(digest).decode(),
        style=Markup((folder / 'page.css').read_text('utf-8')),
        version=__version__,
    )
    return environment


def render(
    template: str,
    *,
    videos: Iterable[ShownVideo] = (),
    data: Mapping[str, Any] | None = None,
    **values: Any,
) -> str:
    """Write a page of which nothing is markup but the template.

    A policy in its head lets the browser load nothing and run only the script
    of the templates. ``data`` is what that script draws, with the strips of
    ``videos``.
    """
    page = _environment().get_template(template)
    return page.render(videos=videos, data=data, **values)


@dataclass
class Group:
    """Queries that a filter shows."""

    name: str
    rows: set[int]


def incomplete(results: RetrievalResults) -> str:
    """Say what an evaluation lacked, '' if nothing."""
    lacks = []
    for name in ('videos', 'texts'):
        expected = results.metrics.get(f'{name}_expected')
        found = results.metrics.get(f'{name}_found')
        if expected is not None and found is not None:
            lacks.append(f'{found:.0f} of {expected:.0f} {name}')
    return f'Not the complete set: {", ".join(lacks)}.' if lacks else ''


def stated_facts(about: Mapping[str, str]) -> dict[str, str]:
    """Join what belongs together, and leave out what the title says."""
    joined = [
        f'{name} {about[name]}'
        for name in ('split', 'protocol')
        if name in about
    ]
    rest = ('method', 'dataset', 'split', 'protocol')
    return {
        'data set': ', '.join([about.get('dataset', 'unknown'), *joined]),
        **{key: about[key] for key in about if key not in rest},
    }


def query_cards(
    results: Sequence[RetrievalResults],
    names: Sequence[str],
    groups: Sequence[Group],
    orders: Mapping[str, Callable[[int], float]],
) -> dict[str, Any]:
    """What templates need to list the queries that some results show.

    ``orders`` are keys of a row to sort by, by name; they stand behind the
    order of the set and before that of the captions.
    """
    first = results[0]
    shown = [{x.row: x.results for x in part.queries} for part in results]
    rows = sorted({row for part in shown for row in part})
    by_caption = sorted(rows, key=lambda row: first.captions[row])
    places = {row: place for place, row in enumerate(by_caption)}
    orders = {**orders, 'caption': places.__getitem__}
    videos: dict[int, ShownVideo] = {}
    for part in results:
        for video in part.videos:
            known = videos.get(video.column)
            if known is None or (video.strip and not known.strip):
                videos[video.column] = video
    answers = [
        item for part in shown for found in part.values() for item in found
    ]
    weights = dict.fromkeys(
        key for item in answers for key in item.frame_weights
    )
    data = dict(
        models=list(names),
        filters=[group.name for group in groups],
        sorts=['of the set', *orders],
        weights={key: _MEANINGS.get(key, '') for key in weights},
        ids=first.video_ids,
        videos=_videos(first, videos.values()),
        queries=[
            dict(
                c=first.captions[row],
                v=first.targets[row],
                **({} if first.right is None else dict(a=first.right[row])),
                t=[i for i, group in enumerate(groups) if row in group.rows],
                s=[key(row) for key in orders.values()],
                m=[
                    dict(
                        i=i,
                        r=part.ranks[row],
                        x=[
                            dict(
                                v=item.column,
                                r=item.rank,
                                s=item.score,
                                f=item.frame_weights,
                                t=item.text_weights,
                            )
                            for item in shown[i].get(row)
                            or _plain_answers(part, row)
                        ],
                    )
                    for i, part in enumerate(results)
                ],
            )
            for row in rows
        ],
    )
    slots = len(choose_slots(max(part.num_frames for part in results)))
    wide = slots * (60 if len(results) == 1 else 29)
    return dict(
        card_width=min(560, max(170, wide)),
        data=data,
        has_beta=any('beta' in item.text_weights for item in answers),
        videos=[videos[column] for column in sorted(videos)],
    )


def _videos(
    results: RetrievalResults, videos: Iterable[ShownVideo]
) -> dict[int, dict[str, Any]]:
    """Tell the script about the videos shown, by column."""
    captions: dict[int, list[str]] = {}
    for row, caption in enumerate(results.captions):
        for column in results.right_of(row):
            captions.setdefault(column, []).append(caption)
    return {
        video.column: dict(
            id=results.video_ids[video.column],
            captions=captions.get(video.column, [])[:_CAPTIONS],
            slots=video.slots,
            images=video.num_images,
            height=video.height,
            problem=video.problem,
        )
        for video in videos
    }


def _plain_answers(part: RetrievalResults, row: int) -> list[ShownResult]:
    """The first videos of a query that the page of a model does not show."""
    pairs = zip(part.top_columns[row], part.top_scores[row], strict=True)
    answers = [
        ShownResult(column, rank, score)
        for rank, (column, score) in enumerate(pairs, 1)
    ]
    # of several right ones, which is the first is not kept
    if part.ranks[row] > len(answers) and part.right is None:
        answers.append(
            ShownResult(part.targets[row], part.ranks[row], score=None)
        )
    return answers
