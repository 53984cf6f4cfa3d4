"""Compiled scoring, and the way back from it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from eaglenet_mm.models.heads.compiled import CompiledScore
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
        'eaglenet_mm.models.heads.compiled.print_log',
        lambda message, **_options: said.append(message),
    )
    first, second = score(head), score(head)
    torch.testing.assert_close(first, score(plain_head()), rtol=0, atol=1e-6)
    assert torch.equal(first, second)
    assert len(said) == 1
    assert 'scoring goes on without it' in said[0]


def test_training_is_not_compiled() -> None:
    head = head_with('aot_eager').train()
    text, video = random_features(4, 4, dtype=torch.float32)
    losses = head.loss(text, video)
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    assert head.stochastic_text.radius.weight.grad is not None
