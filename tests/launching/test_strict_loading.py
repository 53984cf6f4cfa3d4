"""A checkpoint that does not fit is an error that names the keys."""

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import FlexibleRunner, Runner
from torch import nn

from eaglenet_mm.launching.strict_loading import require_matching_weights


class Model(BaseModel):
    def __init__(self, layers=1):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(layers))

    def forward(self, inputs, mode='tensor'):
        return inputs


@pytest.fixture
def runner(tmp_path, request):
    runner = Runner(
        Model(), work_dir=str(tmp_path), experiment_name=request.node.name
    )
    require_matching_weights(runner)
    return runner


def save(state, path):
    torch.save({'state_dict': state, 'meta': {}}, path)
    return str(path)


def test_loads_what_fits(runner, tmp_path):
    other = Model()
    path = save(other.state_dict(), tmp_path / 'a.pth')
    runner.load_checkpoint(path)
    torch.testing.assert_close(
        runner.model.layers[0].weight, other.layers[0].weight
    )


def test_strict_even_where_mmengine_asks_for_less(runner, tmp_path):
    path = save({}, tmp_path / 'empty.pth')
    with pytest.raises(ValueError, match=r'missing keys.*layers\.0\.weight'):
        runner.load_checkpoint(path, strict=False)


@pytest.mark.parametrize(
    ('change', 'match'),
    [
        (lambda s: s.pop('layers.0.bias'), r'missing.*layers\.0\.bias'),
        (lambda s: s.update(old=torch.ones(1)), 'unexpected.* old'),
        (
            lambda s: s.update({'layers.0.bias': torch.ones(3)}),
            r'size mismatch for layers\.0\.bias',
        ),
    ],
    ids=['missing', 'unexpected', 'mismatched'],
)
def test_names_file_and_key(runner, tmp_path, change, match):
    state = Model().state_dict()
    change(state)
    path = save(state, tmp_path / 'wrong.pth')
    with pytest.raises(ValueError, match=r'wrong\.pth does not fit') as info:
        runner.load_checkpoint(path)
    assert info.match(match)


@pytest.fixture
def partial_runner(tmp_path, request):
    runner = Runner(
        Model(2), work_dir=str(tmp_path), experiment_name=request.node.name
    )
    require_matching_weights(runner, partial=True)
    return runner


def test_partial_checkpoints_may_lack_keys(partial_runner, tmp_path):
    state = {f'module.{k}': v for k, v in Model().state_dict().items()}
    path = save({**state, 'old': torch.ones(1)}, tmp_path / 'part.pth')
    partial_runner.load_checkpoint(path)
    torch.testing.assert_close(
        partial_runner.model.layers[0].weight, state['module.layers.0.weight']
    )


@pytest.mark.parametrize(
    ('state', 'match'),
    [
        (
            {'layers.1.bias': torch.ones(3), 'layers.0.bias': torch.ones(2)},
            r'size mismatch for layers\.1\.bias: .*\(2,\), .*\(3,\)',
        ),
        ({'other': torch.ones(1)}, r'none of the 4 keys .*layers.* but other'),
    ],
    ids=['shape', 'nothing in common'],
)
def test_partial_checkpoints_must_fit(partial_runner, tmp_path, state, match):
    path = save(state, tmp_path / 'part.pth')
    with pytest.raises(ValueError, match=match):
        partial_runner.load_checkpoint(path)


def test_partial_checkpoints_with_positions_of_another_size(
    partial_runner, tmp_path
):
    """An encoder that resizes them has done so when shapes are compared."""

    class Encoder(nn.Module):
        resize_positions = True

        def __init__(self):
            super().__init__()
            self.tower = nn.Module()
            self.tower.positional_embedding = nn.Parameter(torch.zeros(3, 1))

        def _load_from_state_dict(self, state_dict, prefix, *rest):
            name = f'{prefix}tower.positional_embedding'
            state_dict[name] = state_dict[name][:3]
            super()._load_from_state_dict(state_dict, prefix, *rest)

    partial_runner.model.encoder = Encoder()
    state = partial_runner.model.state_dict()
    name = 'encoder.tower.positional_embedding'
    state[name] = torch.arange(4.0).unsqueeze(1)
    partial_runner.load_checkpoint(save(state, tmp_path / 'a.pth'))
    table = partial_runner.model.encoder.tower.positional_embedding
    assert torch.equal(table.data, state[name][:3])
    Encoder.resize_positions = False
    with pytest.raises(ValueError, match=name):
        partial_runner.load_checkpoint(str(tmp_path / 'a.pth'))


def test_long_lists_are_cut(runner, tmp_path):
    path = save(Model(400).state_dict(), tmp_path / 'deep.pth')
    with pytest.raises(ValueError, match='unexpected') as info:
        runner.load_checkpoint(path)
    assert len(str(info.value)) < 3000


def test_many_lines_are_cut():
    from eaglenet_mm.launching.strict_loading import _shortened

    assert _shortened('a\n' * 40).endswith('... (10 more lines)')


@pytest.fixture
def flexible(tmp_path, request):
    """MMEngine's other Runner, with its model ready."""

    def build(layers=1, partial=False):
        runner = FlexibleRunner(
            Model(layers),
            work_dir=str(tmp_path),
            strategy=dict(type='SingleDeviceStrategy'),
            experiment_name=f'{request.node.name}-{partial}',
        )
        require_matching_weights(runner, partial=partial)
        runner.strategy.prepare(runner.model)
        runner.model = runner.strategy.model
        return runner

    return build


@pytest.mark.parametrize('partial', [False, True])
@pytest.mark.parametrize('bare', [False, True])
def test_flexible_runner_loads_what_fits(flexible, tmp_path, partial, bare):
    """Its load_checkpoint returns nothing, which was taken for a dict."""
    other = Model().state_dict()
    path = tmp_path / 'a.pth'
    torch.save(dict(other) if bare else {'state_dict': other}, path)
    runner = flexible(partial=partial)
    runner.load_checkpoint(str(path))
    torch.testing.assert_close(
        runner.model.layers[0].weight, other['layers.0.weight']
    )


def test_flexible_runner_resumes_strictly(flexible, tmp_path):
    state = Model().state_dict()
    state.pop('layers.0.bias')
    path = save(state, tmp_path / 'wrong.pth')
    for load in ('resume', 'load_checkpoint'):
        runner = flexible()
        with pytest.raises(ValueError, match=r'(?s)wrong.*layers\.0\.bias'):
            getattr(runner, load)(path)


@pytest.mark.parametrize(
    ('state', 'match'),
    [
        ({'layers.0.bias': torch.ones(3)}, r'size mismatch .*\(2,\), .*\(3'),
        ({'other': torch.ones(1)}, 'none of the 4 keys'),
    ],
)
def test_flexible_runner_and_parts(flexible, tmp_path, state, match):
    path = save(state, tmp_path / 'part.pth')
    with pytest.raises(ValueError, match=match):
        flexible(2, partial=True).load_checkpoint(path)
