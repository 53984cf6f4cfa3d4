"""Self-contained HTML pages, rendered from templates."""

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

#: Names of directions, by metric prefix.
DIRECTIONS = {'t2v': 'text to video', 'v2t': 'video to text'}
_CAPTIONS = 5  # listed per shown video
_MEANINGS = {
    'attention': 'weight of each frame in the pooling (sums to 1)',
    'cosine': 'between the sentence and each frame as encoded, scaled to the '
    'range of the query',
}


def clock(seconds: float) -> str:
    """Format seconds like a player: ``1:02:03.4`` or ``2:03.4``."""
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
    """Render a page in which only the template is markup.

    Its content security policy allows no loading and only the script of the
    templates. ``data`` is the input of that script, together with the strips
    of ``videos``.
    """
    page = _environment().get_template(template)
    return page.render(videos=videos, data=data, **values)


@dataclass
class Group:
    """Queries selected by a filter."""

    name: str
    rows: set[int]


def incomplete(results: RetrievalResults) -> str:
    """Describe what the evaluation lacked, '' if nothing."""
    lacks = []
    for name in ('videos', 'texts'):
        expected = results.metrics.get(f'{name}_expected')
        found = results.metrics.get(f'{name}_found')
        if expected is not None and found is not None:
            lacks.append(f'{found:.0f} of {expected:.0f} {name}')
    return f'Not the complete set: {", ".join(lacks)}.' if lacks else ''


def stated_facts(about: Mapping[str, str]) -> dict[str, str]:
    """Merge related facts, and omit those in the title."""
    joined = [
        f'{name} {about[name]}'
        for name in ('split', 'protocol')
        if name in about
    ]
    rest = ('method', 'dataset', 'split', 'protocol')
    return {
        'dataset': ', '.join([about.get('dataset', 'unknown'), *joined]),
        **{key: about[key] for key in about if key not in rest},
    }


def query_cards(
    results: Sequence[RetrievalResults],
    names: Sequence[str],
    groups: Sequence[Group],
    orders: Mapping[str, Callable[[int], float]],
) -> dict[str, Any]:
    """Build the template values that list the queries of some results.

    ``orders`` maps names of sort orders to key functions of rows. They are
    offered between the original order and the order by caption.
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
    """Build the script's data of the shown videos, by column."""
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
    """The top videos of a query that a model's own page does not show."""
    pairs = zip(part.top_columns[row], part.top_scores[row], strict=True)
    answers = [
        ShownResult(column, rank, score)
        for rank, (column, score) in enumerate(pairs, 1)
    ]
    # with several right videos, the first of them is not recorded
    if part.ranks[row] > len(answers) and part.right is None:
        answers.append(
            ShownResult(part.targets[row], part.ranks[row], score=None)
        )
    return answers
