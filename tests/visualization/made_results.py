"""Results made by hand, for pages without an evaluation."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from eaglenet_mm.visualization.results_data import (
    Confusion,
    ConfusionMatrix,
    Curves,
    Projection,
    RetrievalResults,
    ShownQuery,
    ShownResult,
    ShownVideo,
)

#: Would run, load or break something if it were markup.
NASTY = (
    '<img src="http://evil.example/x.png" onerror="hacked=1"></script>&amp;'
    " '$x^ clip-path=\"font-family: '"
)


def jpeg(color: int = 90) -> str:
    buffer = io.BytesIO()
    frames = np.full((96, 3 * 96, 3), color, np.uint8)
    Image.fromarray(frames).save(buffer, 'JPEG')
    return base64.b64encode(buffer.getvalue()).decode()


def result(column: int, rank: int, score: float) -> ShownResult:
    return ShownResult(
        column,
        rank,
        score,
        {
            'attention': [0.5, 0.25, 0.25, 0.0],
            'cosine': [0.3, 0.31, 0.29, 0.0],
        },
        {'beta': [0.7, 0.2, 0.1]},
    )


def make_results(**changes: Any) -> RetrievalResults:
    """Eight captions of seven videos: ranks 1 1 2 7 1 3 1 1.

    Video 6 has two captions; video 5 could not be read.
    """
    ranks = [1, 1, 2, 7, 1, 3, 1, 1]
    targets = [0, 1, 2, 3, 4, 5, 6, 6]
    tops, queries = [], []
    for row, (rank, target) in enumerate(zip(ranks, targets, strict=True)):
        others = [column for column in range(7) if column != target]
        order = [*others[: rank - 1], target, *others[rank - 1 :]]
        tops.append(order[:5])
        places = list(enumerate(order[:5], 1))
        if rank > 5:
            places.append((rank, target))
        if row != 7:
            queries.append(
                ShownQuery(row, [result(c, r, 1 - 0.1 * r) for r, c in places])
            )
    settings: dict[str, Any] = dict(
        about=dict(
            method='EagleNet',
            dataset='made',
            split='test',
            protocol='all',
            config='config.py',
            checkpoint='best.pth',
        ),
        num_frames=4,
        metrics={'t2v/R1': 62.5, 't2v/R5': 87.5, 'v2t/R1': 50.0, 'Rsum': 200},
        captions=[f'caption number {row}' for row in range(8)],
        video_ids=[f'video-{column}' for column in range(7)],
        targets=targets,
        ranks=ranks,
        video_ranks=[1, 1, 2, 1, 2, 3, 4],
        top_columns=tops,
        top_scores=[[0.9, 0.8, 0.7, 0.6, 0.5] for _ in ranks],
        selection='7 of 8 queries are shown.',
        queries=queries,
        videos=[
            ShownVideo(
                column,
                [0, 1, 2, 3],
                num_images=3 if column != 5 else 0,
                height=96 if column != 5 else 0,
                strip=jpeg() if column != 5 else '',
                problem='' if column != 5 else 'FileNotFoundError: gone',
            )
            for column in range(7)
        ],
        projections=[
            Projection(
                title='Before',
                text_name='text',
                rows=[0, 3],
                texts=[[0.0, 0.1], [0.5, -0.2]],
                videos=[[0.1, 0.0], [-0.5, 0.4]],
                explained=0.75,
                own_cosine=0.321,
            )
        ],
        confusions=[Confusion(3, 0, 2, 0.125, 0, 0.875)],
        matrix=ConfusionMatrix([3, 0], [3, 0], [[0.5, 0.6], [0.1, 0.9]],
                               [[0, 1], [0, 1]]),
        curves=Curves(
            {'loss': [[10.0, 3.0], [20.0, 1.5]]},
            {'t2v/R1': [[20.0, 40.0]]},
            'From the log of one run.',
        ),
    )  # fmt: skip
    return RetrievalResults(**{**settings, **changes})


def nasty_results() -> RetrievalResults:
    """Everything that comes from data is hostile."""
    results = make_results(
        captions=[f'{NASTY} {row}' for row in range(8)],
        video_ids=[f'{NASTY} {column}' for column in range(7)],
        selection=NASTY,
    )
    results.about = dict.fromkeys([*results.about, NASTY], NASTY)
    results.projections[0].title = results.projections[0].text_name = NASTY
    results.videos[5].problem = NASTY
    results.curves.note = NASTY
    results.curves.losses[NASTY] = [[10.0, 1.0]]
    for query in results.queries:
        for item in query.results:
            item.frame_weights[NASTY] = [0.1, 0.2, 0.3, 0.4]
            item.text_weights[NASTY] = [0.5, 0.5]
    return results
