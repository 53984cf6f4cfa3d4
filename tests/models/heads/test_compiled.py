"""Compiled scoring, and the way back from it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from eaglenet_mm.models.heads.eaglenet_head import CompiledScore
from eaglenet_mm.registry import MODELS
from tests.models.tiny import eaglenet_head, random_features


def head_with(backend: Any) -> Any:
    torch.manual_seed(0)
    head = MODELS.build(eaglenet_head(compile_score=True)).eval()
    head.compiled_score = CompiledScore(head._score, backend=backend)
    return head


def plain_head() -> Any:
    torch.manual_seed(0)
    return MODELS.build(eaglenet_head()).eval()


def score(head: Any, texts: int = 5, videos: int = 4) -> torch.Tensor:
    text, video = random_features(texts, videos, dtype=torch.float32)
    return head.score_chunked(
        head.prepare_text(text), head.prepare_video(video)
    )


@pytest.mark.nightly
@pytest.mark.timeout(120)
def test_scores_are_those_of_the_plain_head() -> None:
    """Traced whole, without the compiler of the last stage."""
    head = head_with('aot_eager')
    for sizes in ((5, 4), (3, 7)):
        compiled = score(head, *sizes)
        assert head.compiled_score.compiled is not None
        torch.testing.assert_close(
            compiled, score(plain_head(), *sizes), rtol=0, atol=1e-6
        )


def test_it_falls_back_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_args: Any) -> None:
        raise RuntimeError('no compiler here')

    head = head_with(broken)
    said: list[str] = []
    monkeypatch.setattr(
        'eaglenet_mm.models.heads.eaglenet_head.print_log',
        lambda message, **_options: said.append(message),
    )
    first, second = score(head), score(head)
    torch.testing.assert_close(first, score(plain_head()), rtol=0, atol=1e-6)
    assert torch.equal(first, second)
    assert len(said) == 1
    assert 'scoring goes on without it' in said[0]


def test_a_compiler_that_cannot_even_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unsupported(*_args: Any, **_options: Any) -> None:
        raise RuntimeError('this Python is not supported')

    monkeypatch.setattr(torch, 'compile', unsupported)
    torch.manual_seed(0)
    head = MODELS.build(eaglenet_head(compile_score=True)).eval()
    torch.testing.assert_close(
        score(head), score(plain_head()), rtol=0, atol=1e-6
    )
    assert head.compiled_score.has_failed


@pytest.mark.timeout(120)
def test_a_copy_scores_with_its_own_noise() -> None:
    """As loops do that repeat an evaluation over several noises."""
    head = head_with('eager')
    first = score(head)
    copied = copy.deepcopy(head)
    copied.reseed(7)
    reseeded = plain_head()
    reseeded.reseed(7)
    torch.testing.assert_close(
        score(copied), score(reseeded), rtol=0, atol=1e-6
    )
    assert (score(copied) - first).abs().max() > 1e-3
    assert torch.equal(score(head), first)


def test_a_gradient_is_not_compiled() -> None:
    head = head_with('aot_eager')
    text, video = random_features(4, 4, dtype=torch.float32)
    scores = head.chunk_scorer()(
        head.prepare_text(text), head.prepare_video(video)
    )
    scores.sum().backward()
    assert head.stochastic_text.radius.weight.grad is not None
    assert head.compiled_score.compiled is None
