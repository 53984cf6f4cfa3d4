from __future__ import annotations

from typing import Any

import pytest

from eaglenet_mm.datasets.fetching import fetch


class Numbers:
    def __init__(self, dropped: set[int]) -> None:
        self.dropped = dropped

    def __len__(self) -> int:
        return 5

    def get_data_info(self, index: int) -> dict[str, Any]:
        return {'index': index}

    def process(self, item: dict[str, Any]) -> int | None:
        return None if item['index'] in self.dropped else item['index']


def test_gives_the_item_or_the_next() -> None:
    source = Numbers({1, 2, 4})
    assert [fetch(source, index, 5) for index in range(5)] == [0, 3, 3, 3, 0]
    assert fetch(source, -2, 5) == 3


@pytest.mark.parametrize('index', [5, -6])
def test_no_such_item(index: int) -> None:
    with pytest.raises(IndexError, match=f'0 to 4, but got {index}'):
        fetch(Numbers(set()), index, 5)


def test_gives_up() -> None:
    with pytest.raises(
        RuntimeError, match='nothing for item 1 and the 1 items'
    ):
        fetch(Numbers({1, 2}), 1, 1)
