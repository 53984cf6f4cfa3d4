"""Types in configs: strings with and without a scope, paths, classes."""

import pytest
from mmengine.optim import AmpOptimWrapper

from eaglenet_mm.models import EagleNetHead
from eaglenet_mm.utils.type_name import named_class, scoped_name, type_name


@pytest.mark.parametrize(
    'kind',
    [
        *('AmpOptimWrapper', 'mmengine.AmpOptimWrapper'),
        *('mmengine.optim.AmpOptimWrapper', AmpOptimWrapper),
    ],
)
def test_name_of_a_type(kind):
    assert type_name(dict(type=kind)) == 'AmpOptimWrapper'


def test_without_a_type():
    assert type_name({}) == type_name(None) == ''
    assert type_name(dict(a=1), 'OptimWrapper') == 'OptimWrapper'


def test_names_with_their_scope():
    from torch.optim import Adam

    assert scoped_name(AmpOptimWrapper) == 'AmpOptimWrapper'
    assert scoped_name(EagleNetHead) == 'EagleNetHead'
    assert scoped_name(Adam) == 'torch.Adam'
    assert scoped_name('mmaction.ResNet') == 'mmaction.ResNet'


def test_classes_by_their_path():
    path = 'mmengine.optim.AmpOptimWrapper'
    assert named_class(path) is AmpOptimWrapper
    for kind in (AmpOptimWrapper, 'EagleNetHead', 'no.such.path', 'os.path'):
        assert named_class(kind) is kind
