from __future__ import annotations

import torch

from eaglenet_mm.engine.loops.gather_by_id import gather_rows, order_by_id


def test_order_drops_later_duplicates():
    ids, places = order_by_id([4, 1, 4, 0, 1])
    assert ids == [0, 1, 4]
    assert places == [3, 1, 0]


def test_one_process_keeps_its_rows():
    rows = torch.rand(3, 2)
    assert gather_rows(rows, torch.device('cpu')) is rows
