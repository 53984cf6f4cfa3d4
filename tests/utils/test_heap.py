from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace

from eaglenet_mm.utils import heap


def test_it_asks_the_c_library(monkeypatch):
    asked: list[int] = []
    monkeypatch.setattr(sys, 'platform', 'linux')
    monkeypatch.setattr(
        ctypes, 'CDLL', lambda _: SimpleNamespace(malloc_trim=asked.append)
    )
    heap.release_free_heap()
    assert asked == [0]


def test_it_does_nothing_elsewhere(monkeypatch):
    monkeypatch.setattr(ctypes, 'CDLL', lambda _: SimpleNamespace())
    heap.release_free_heap()  # a C library without it
    monkeypatch.delattr(ctypes, 'CDLL')
    monkeypatch.setattr(sys, 'platform', 'win32')
    heap.release_free_heap()
