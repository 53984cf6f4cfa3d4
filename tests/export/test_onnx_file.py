"""Names of sizes in a graph."""

from __future__ import annotations

import pytest

from eaglenet_mm.export.exported_file import tidy_up

ir = pytest.importorskip('onnx_ir', reason='needs onnx')


def test_only_what_is_known_has_a_name() -> None:
    """onnxruntime shares memory between sizes of one name."""
    shape = [ir.SymbolicDim('s1'), 4]
    source = ir.Value(name='source', shape=ir.Shape(shape))
    middle = ir.node('Relu', [source], metadata_props={'source': '/home/me'})
    middle.outputs[0].shape = ir.Shape([ir.SymbolicDim(None), 's1*s12', 's1'])
    last = ir.node('Relu', middle.outputs)
    graph = ir.Graph([source], last.outputs, nodes=[middle, last])
    tidy_up(ir.Model(graph, ir_version=10), [{0: 'texts'}])
    assert list(source.shape) == [ir.SymbolicDim('texts'), 4]
    unknown, product, known = middle.outputs[0].shape
    assert unknown.value is None
    assert product.value == 'texts*s12'
    assert known.value == 'texts'
    assert middle.metadata_props == {}
