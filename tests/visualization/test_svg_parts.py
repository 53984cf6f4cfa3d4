from __future__ import annotations

import pytest

from eaglenet_mm.visualization.svg_parts import (
    label,
    nice_ticks,
    short_number,
    tag,
)


@pytest.mark.parametrize(
    ('low', 'high', 'ticks'),
    [
        (0, 10, [0, 2.5, 5, 7.5, 10]),
        (0, 37, [0, 10, 20, 30, 40]),
        (-0.3, 12.8, [-5, 0, 5, 10, 15]),
        (0, 0.004, [0, 0.001, 0.002, 0.003, 0.004]),
        (0, 1e-9, [0, 2.5e-10, 5e-10, 7.5e-10, 1e-9]),
    ],
)
def test_ticks_are_round_and_span_the_range(low, high, ticks) -> None:
    assert nice_ticks(low, high) == pytest.approx(ticks)


def test_ticks_of_a_single_value() -> None:
    ticks = nice_ticks(3.0, 3.0)
    assert ticks[0] < 3 < ticks[-1]


def test_what_is_written_is_escaped() -> None:
    assert label('<b>&', 1, 2.5).endswith('>&lt;b&gt;&amp;</text>')
    assert tag('a', cls='"x"', x=None, stroke_width=1.50) == (
        '<a class="&quot;x&quot;" stroke-width="1.5"></a>'
    )


def test_numbers_of_axes() -> None:
    assert [short_number(x) for x in (0.25, 50.0, 1000.0, 12500.0)] == [
        '0.25',
        '50',
        '1k',
        '12.5k',
    ]
