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


def test_gives_the_item_or_a_stand_in() -> None:
    source = Numbers({1, 2, 4})
    items = [fetch(source, index, 50) for index in range(5)]
    assert items[0] == 0
    assert items[3] == 3
    assert set(items) == {0, 3}
    assert fetch(source, -2, 5) == 3


def test_stand_ins_repeat_and_spread() -> None:
    class Many(Numbers):
        def __len__(self) -> int:
            return 1000

    lost = set(range(100, 200))
    items = [fetch(Many(lost), index, 50) for index in sorted(lost)]
    assert items == [fetch(Many(lost), index, 50) for index in sorted(lost)]
    assert not lost & set(items)
    assert len(set(items)) > 80


@pytest.mark.parametrize('index', [5, -6])
def test_no_such_item(index: int) -> None:
    with pytest.raises(IndexError, match=f'0 to 4, but got {index}'):
        fetch(Numbers(set()), index, 5)


def test_gives_up() -> None:
    with pytest.raises(RuntimeError, match='nothing for item 1 and 1 others'):
        fetch(Numbers({0, 1, 2, 3, 4}), 1, 1)
