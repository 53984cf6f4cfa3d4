"""Ranks and their summaries against ``metrics.npz``.

Where scores tie we differ on purpose: the release counts every tie as one
more query (square cases) or leaves the order to an unstable sort (multi-
caption cases); we count each query once and ties against it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eaglenet_mm.evaluation.functional import (
    dual_softmax,
    summarize_ranks,
    text_to_video_ranks,
    video_caption_scores,
    video_to_text_ranks,
)
from eaglenet_mm.evaluation.functional.ranking import RankResult

OURS = {
    'R1': 'R1',
    'R5': 'R5',
    'R10': 'R10',
    'R50': 'R50',
    'MR': 'MdR',
    'MedianR': 'MdR',
    'MeanR': 'MnR',
}


@pytest.fixture(scope='module')
def golden(golden_dir: Path) -> Any:
    path = golden_dir / 'metrics.npz'
    if not path.is_file():
        pytest.skip(f'{path} is not there')
    return np.load(path)


def cases(golden: Any, part: str) -> list[str]:
    """Names of the cases that have an array of this name."""
    return sorted(
        name.removesuffix(f'/{part}')
        for name in golden.files
        if name.endswith(f'/{part}')
    )


def check_summary(report, path: str, golden: Any, ranks: torch.Tensor):
    """Every named value of the release equals ours."""
    summary = summarize_ranks(ranks)
    for name, value in zip(
        golden[f'{path}/names'], golden[f'{path}/values'], strict=True
    ):
        if str(name) in OURS:
            report(
                f'metrics/{path}/{name}',
                summary[OURS[str(name)]],
                value,
                1e-12,
            )


def release_columns(result: RankResult) -> np.ndarray:
    """Ranks as the release finds them: every tied place of every row."""
    return np.concatenate(
        [
            np.arange(rank - ties - 1, rank)
            for rank, ties in zip(
                result.ranks.tolist(), result.ties.tolist(), strict=True
            )
        ]
    )


def check_square(
    report, path: str, golden: Any, result: RankResult, exact: bool = True
):
    """Equality without ties; our rule for ties, tied to theirs, with them."""
    columns = golden[f'{path}/cols']
    if int(result.ties.sum()) == 0:
        assert len(columns) == len(result.ranks)
        np.testing.assert_array_equal(columns + 1, result.ranks.numpy())
        check_summary(report, path, golden, result.ranks)
        return
    # a query counts once, at its last place; the release's extra places are
    # exactly the ties we report
    assert len(columns) == len(result.ranks) + int(result.ties.sum())
    np.testing.assert_array_equal(
        np.sort(columns), np.sort(release_columns(result))
    )
    summary = summarize_ranks(result.ranks)
    ranks = result.ranks.numpy()
    assert summary['R1'] == 100 * np.sum(ranks <= 1) / len(ranks)
    assert summary['MnR'] == pytest.approx(np.mean(ranks), rel=1e-12)
    assert summary['MdR'] == np.median(ranks)
    optimistic = summarize_ranks(result.ranks - result.ties)
    assert summary['R1'] <= optimistic['R1']
    assert summary['MnR'] >= optimistic['MnR']


def both_directions(scores: torch.Tensor) -> dict[str, RankResult]:
    targets = torch.arange(len(scores))
    return {
        't2v': text_to_video_ranks(scores, targets),
        'v2t': video_to_text_ranks(scores, targets),
    }


def test_square_cases(golden, golden_report):
    found = [
        case
        for case in cases(golden, 't2v/cols')
        if golden[f'{case}/sim'].shape[0] == golden[f'{case}/sim'].shape[1]
    ]
    if not found:
        pytest.skip('the file has no such case')
    for case in found:
        scores = torch.from_numpy(golden[f'{case}/sim'])
        for direction, result in both_directions(scores).items():
            check_square(golden_report, f'{case}/{direction}', golden, result)


def test_dual_softmax_cases(golden, golden_report):
    """The release's DSL has no temperature and works in float32."""
    found = cases(golden, 'dsl/cols')
    if not found:
        pytest.skip('the file has no such case')
    for case in found:
        scores = torch.from_numpy(golden[f'{case}/sim'])
        targets = torch.arange(len(scores))
        for path, matrix in [('dsl', scores), ('dsl_v2t', scores.t())]:
            result = text_to_video_ranks(
                # rounded as theirs, so that the same scores tie
                dual_softmax(matrix, temperature=1.0).to(scores.dtype),
                targets,
            )
            columns = golden[f'{case}/{path}/cols']
            theirs = np.bincount(columns, minlength=len(scores))
            ours = np.bincount(release_columns(result), minlength=len(scores))
            if len(columns) == len(targets):  # theirs have no tie at all
                result = text_to_video_ranks(
                    dual_softmax(matrix, temperature=1.0), targets
                )
            if len(columns) == len(targets) or (theirs == ours).all():
                check_square(golden_report, f'{case}/{path}', golden, result)
                continue
            # which of the nearly equal products tie is a matter of the last
            # bit of a float32 softmax; nearly all places must still agree
            assert np.minimum(theirs, ours).sum() >= 0.95 * len(columns)


def pairing(golden: Any, case: str) -> torch.Tensor:
    """Video of each caption, from the cumulative counts as well."""
    counts = torch.from_numpy(golden[f'{case}/captions_per_video'])
    # the release's cut-off points are the last captions of the videos
    np.testing.assert_array_equal(
        np.diff(golden[f'{case}/cut_off_points']), counts[1:].numpy()
    )
    return torch.repeat_interleave(torch.arange(len(counts)), counts)


def test_multi_caption_text_to_video(golden, golden_report):
    for case in cases(golden, 't2v_rank_lowest'):
        scores = torch.from_numpy(golden[f'{case}/sim'])
        result = text_to_video_ranks(scores, pairing(golden, case))
        lowest = golden[f'{case}/t2v_rank_lowest']
        highest = golden[f'{case}/t2v_rank_highest']
        # ties against us: the highest of the release's possible ranks
        np.testing.assert_array_equal(result.ranks.numpy() - 1, highest)
        np.testing.assert_array_equal(
            (result.ranks - 1 - result.ties).numpy(), lowest
        )
        ours = summarize_ranks(result.ranks)
        best = summarize_ranks(torch.from_numpy(lowest) + 1)
        values = dict(
            zip(
                golden[f'{case}/t2v/names'].tolist(),
                golden[f'{case}/t2v/values'].tolist(),
                strict=True,
            )
        )
        ordered = np.sort(result.ranks.numpy())
        lower_median = float(ordered[(len(ordered) - 1) // 2])
        if int(result.ties.sum()) == 0:
            for name in ('R1', 'R5', 'R10', 'R50', 'MeanR'):
                golden_report(
                    f'metrics/{case}/t2v/{name}',
                    ours[OURS[name]],
                    values[name],
                    1e-6,  # the release rounds to float32
                )
            # the release takes the lower of the two middle ranks here and
            # their mean elsewhere; ours is the mean everywhere
            assert values['MedianR'] == values['MR'] == lower_median
            assert ours['MdR'] == np.median(ordered)
            ranks = result.ranks.double()
            golden_report(
                f'metrics/{case}/t2v/Std_Rank',
                ranks.std(correction=0),
                values['Std_Rank'],
                1e-6,
            )
        else:
            for name in ('R1', 'R5', 'R10', 'R50'):
                low, high = ours[OURS[name]], best[OURS[name]]
                assert low - 1e-4 <= values[name] <= high + 1e-4
            assert best['MnR'] - 1e-4 <= values['MeanR'] <= ours['MnR'] + 1e-4


def test_multi_caption_video_to_text(golden, golden_report):
    for case in cases(golden, 'v2t_sim'):
        scores = torch.from_numpy(golden[f'{case}/sim'])
        video_of_caption = pairing(golden, case)
        by_video, videos = video_caption_scores(scores, video_of_caption)
        assert len(videos) == scores.shape[1]
        golden_report(
            f'metrics/{case}/v2t_sim',
            by_video,
            golden[f'{case}/v2t_sim'],
            0.0,
        )
        result = video_to_text_ranks(scores, video_of_caption)
        check_square(golden_report, f'{case}/v2t', golden, result)


def test_returned_similarity_is_the_same_matrix(golden, golden_report):
    """The release's padded layout holds the rows we keep flat."""
    for case in cases(golden, 'returned_sim'):
        returned = golden[f'{case}/returned_sim']
        if returned.ndim == 2:
            golden_report(
                f'metrics/{case}/returned_sim',
                golden[f'{case}/sim'],
                returned,
                0.0,
            )
            continue
        owner = pairing(golden, case).numpy()
        rows = golden[f'{case}/sim']
        for video in range(len(returned)):
            own = rows[owner == video]
            golden_report(
                f'metrics/{case}/returned_sim',
                own,
                returned[video, : len(own)],
                0.0,
            )
            assert np.isneginf(returned[video, len(own) :]).all()


def test_summary_lines(golden):
    """The lines the release logs hold our numbers, where nothing ties."""
    for case in cases(golden, 'summary_lines'):
        scores = torch.from_numpy(golden[f'{case}/sim'])
        owner = (
            pairing(golden, case)
            if f'{case}/captions_per_video' in golden.files
            else torch.arange(len(scores))
        )
        lines = golden[f'{case}/summary_lines'].tolist()
        for line, result, lower in [
            (
                lines[0],
                text_to_video_ranks(scores, owner),
                f'{case}/captions_per_video' in golden,
            ),
            (lines[1], video_to_text_ranks(scores, owner), False),
        ]:
            if int(result.ties.sum()):
                continue
            ours = summarize_ranks(result.ranks)
            if lower:
                ordered = result.ranks.sort().values
                ours['MdR'] = float(ordered[(len(ordered) - 1) // 2])
            assert line.endswith(
                f'R@1: {ours["R1"]:.1f} - R@5: {ours["R5"]:.1f} - '
                f'R@10: {ours["R10"]:.1f} - Median R: {ours["MdR"]:.1f} - '
                f'Mean R: {ours["MnR"]:.1f}'
            ), (case, line, ours)


def test_published_matrix(shared_dir, golden_report):
    """The values that the README of the published matrix states."""
    path = shared_dir / 'data/similarity/msrvtt_1ka_cap4video_video_t2v.npz'
    scores = torch.from_numpy(np.load(path)['sim'])
    results = both_directions(scores)
    optimistic = results['v2t'].ranks - results['v2t'].ties
    expected = {
        't2v': (results['t2v'].ranks, [48.0, 73.0, 82.9, 2, 13.13]),
        'v2t ties against': (
            results['v2t'].ranks,
            [45.6, 74.1, 82.7, 2, 8.69],
        ),
        'v2t ties in favour': (optimistic, [46.0, 74.1, 82.8, 2, 8.67]),
    }
    for name, (ranks, values) in expected.items():
        summary = summarize_ranks(ranks)
        got = [summary[key] for key in ('R1', 'R5', 'R10', 'MdR', 'MnR')]
        golden_report(
            f'similarity/{name}', np.round(got, 2), np.array(values), 1e-12
        )
    targets = torch.arange(len(scores))
    for temperature, value in [
        (1, 47.5),
        (10, 46.6),
        (50, 50.4),
        (100, 52.8),
        (200, 50.6),
    ]:
        rescored = dual_softmax(scores, temperature=temperature)
        ranks = text_to_video_ranks(rescored, targets).ranks
        golden_report(
            f'similarity/dsl {temperature}',
            summarize_ranks(ranks)['R1'],
            value,
            1e-12,
        )
    ranks = text_to_video_ranks(dual_softmax(scores), targets).ranks
    summary = summarize_ranks(ranks)
    assert (summary['R5'], summary['R10']) == (78.0, 85.8)
