"""Reading golden files case by case, and building our modules from them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from eaglenet_mm.models.converters.release_names import (
    ReleaseOptions,
    eaglenet_table,
)
from eaglenet_mm.models.heads import EagleNetHead
from eaglenet_mm.models.layers import KeyedRandom, PairRandom
from tests.golden.conftest import find_golden_dir
from tests.golden.rules import rule_noise, rule_weight

ModuleT = TypeVar('ModuleT', bound=nn.Module)
ENERGIES = {
    'mlp': 'MLPEnergy',
    'bilinear': 'BilinearEnergy',
    'cossim': 'CosineEnergy',
}
#: Where tensors and modules go; the tests set it.
DEVICE = torch.device('cpu')
REDUCTIONS = {'avg': 'mean', 'max': 'max', 'min': 'min'}


def load(folder: Path, name: str) -> dict[str, np.ndarray]:
    """Read all arrays of a file; skip if the folder lacks it."""
    path = folder / name
    if not path.is_file():
        pytest.skip(f'{path} is not there')
    with np.load(path) as arrays:
        return {key: arrays[key] for key in arrays.files}


def case_names(config: pytest.Config, name: str) -> list[str]:
    """List the cases of a file, those with a ``meta`` of their own."""
    path = find_golden_dir(config) / name
    if not path.is_file():
        return []
    with np.load(path) as arrays:
        return [
            key.removesuffix('/meta')
            for key in arrays.files
            if key.count('/') == 1 and key.endswith('/meta')
        ]


def part(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Take the arrays below a prefix."""
    prefix = prefix + '/'
    return {
        key.removeprefix(prefix): value
        for key, value in arrays.items()
        if key.startswith(prefix)
    }


def meta_of(case: dict[str, np.ndarray]) -> dict[str, Any]:
    """Read the options of a case."""
    return json.loads(str(case['meta']))


def tensor(
    array: np.ndarray, dtype: torch.dtype = torch.float32, grad: bool = False
) -> Tensor:
    """Copy an array into a tensor."""
    result = torch.from_numpy(np.array(array)).to(DEVICE)
    if result.is_floating_point():
        result = result.to(dtype)
    return result.requires_grad_(grad)


def place(module: ModuleT, dtype: torch.dtype = torch.float32) -> ModuleT:
    """Bring a module to the device of the tests, and to a type."""
    return module.to(DEVICE, dtype)


def release_options(meta: dict[str, Any]) -> ReleaseOptions:
    """Options of the release as our converter wants them."""
    return ReleaseOptions(
        embed_dim=meta.get('dim', meta.get('embed_dim', 0)),
        num_frames=meta.get('max_frames', 0),
        max_words=meta.get('max_words', 77),
        graph_type=meta['gnn_type'],
        num_graph_layers=meta['gnn_num_layers'],
        frame_embedding=bool(meta['framepe']),
        loss=meta['loss_fn'],
        energy=meta['energy_fn'],
        replay_size=meta['max_buffer_vol'],
    )


def our_names(names: list[str], options: ReleaseOptions) -> dict[str, str]:
    """Our head's name of each release name that is used."""
    used, _ = eaglenet_table(options, names)
    if options.loss == 'clip':
        used['clip.logit_scale'] = 'loss_match.log_scale'
    return {name: used[name] for name in names if name in used}


class RecordedHead(EagleNetHead):
    """The head, fed with the random numbers of a recorded run."""

    def feed(self, draws: list[tuple[str, np.ndarray]]) -> None:
        """Give the draws that follow, in order."""
        self.draws = list(draws)
        self.recorded: dict[int, Tensor] = {}
        self.num_videos = 0

    def take(self, kind: str, shape: tuple[int, ...]) -> np.ndarray:
        recorded_kind, array = self.draws.pop(0)
        kinds = (kind, 'normal') if kind == 'rand' else (kind,)
        assert recorded_kind in kinds, (recorded_kind, kind)
        assert array.shape == shape, (array.shape, shape)
        return array

    def pair_noise(self, random: PairRandom, like: Tensor) -> Tensor:
        step = random.random.step
        if step not in self.recorded:  # one draw for all chunks of a step
            count = self.candidate_noise.num_candidates
            size = len(like), self.num_videos or len(random.columns)
            array = self.take('rand', (count, math.prod(size), like.shape[-1]))
            noise = torch.from_numpy(array).to(like)
            noise = noise.view(count, *size, -1).permute(2, 1, 0, 3)
            self.recorded = {step: noise}
        columns = slice(random.columns.start, random.columns.stop)
        return self.recorded[step][columns]

    def loss(self, text: Any, video: Any) -> dict[str, Tensor]:
        self.num_videos = len(video)
        self.recorded = {}
        return super().loss(text, video)

    def energy_noise(self, random: KeyedRandom, purpose: str) -> Recorded:
        return Recorded(self)


class Recorded:
    """Energy noise out of the recorded draws."""

    def __init__(self, head: Any) -> None:
        self.head = head

    def uniform(
        self, rows: range, shape: tuple[int, ...], like: Tensor
    ) -> Tensor:
        return self._numbers('rand', (len(rows), *shape), like)

    def normal(
        self, rows: range, shape: tuple[int, ...], like: Tensor
    ) -> Tensor:
        return self._numbers('randn', (len(rows), *shape), like)

    def _numbers(
        self, kind: str, shape: tuple[int, ...], like: Tensor
    ) -> Tensor:
        return torch.from_numpy(self.head.take(kind, shape)).to(like)

    def permutation(self, size: int, like: Tensor) -> Tensor:
        return tensor(self.head.take('randperm', (size,)))


def build_head(meta: dict[str, Any], **overrides: Any) -> RecordedHead:
    """Build our head with the options of a case.

    As in the golden runs there is no dropout, and the replay buffer is
    replayed where it was never filled.
    """
    graph = dict(
        type=meta['gnn_type'],
        num_layers=meta['gnn_num_layers'],
        num_heads=meta['gnn_nheads'],
        negative_slope=meta['gnn_leaky_slope'],
        dropout=0.0,
    )
    if meta['gnn_type'] == 'gat':
        graph['version'] = 2 if meta.get('gnn_v2') else 1
    if meta['loss_fn'] == 'clip':
        loss = dict(type='InfoNCELoss')
    else:
        loss = dict(
            type='PairwiseSigmoidLoss',
            init_log_scale=meta.get('temperature', 4.77),
            init_bias=meta.get('bias', -12.93),
            learnable=not meta.get('fix_sig_loss_param', 0),
        )
    energy_weight = meta['eam_loss_weight']
    support_weight = meta['support_loss_weight']
    energy_support = meta['eam_support_loss_weight'] if support_weight else 0
    loss_energy = None
    if energy_weight or energy_support:
        loss_energy = dict(
            type='EnergyMatchingLoss',
            energy=dict(
                type=ENERGIES[meta['energy_fn']],
                reduction=REDUCTIONS[meta['energy_pooling']],
            ),
            regularization=meta['mcmc_coef_reg'],
            sampler=dict(
                num_steps=meta['mcmc_steps'],
                step_size=meta['mcmc_step_size'],
                noise_std=meta['mcmc_noise'],
                buffer_size=meta['max_buffer_vol'],
                replay_unfilled=True,
            ),
        )
    options = dict(
        embed_dim=meta.get('dim', meta.get('embed_dim')),
        num_frames=meta['max_frames'],
        num_candidates=meta.get(
            'stochastic_trials', meta.get('stochasic_trials')
        ),
        prior=meta['stochastic_prior'],
        prior_std=meta.get('stochastic_prior_std', 1.0),
        graph=graph,
        pooling=dict(num_heads=meta['pooling_head'], dropout=0.0),
        frame_embedding=bool(meta['framepe']),
        noise='pair',
        loss_match=loss,
        support_weight=support_weight,
        loss_energy=loss_energy,
        energy_weight=energy_weight,
        # in the release the support energy needs the support loss
        energy_support_weight=energy_support,
    )
    return place(RecordedHead(**{**options, **overrides}))


def load_head(
    head: EagleNetHead, weights: dict[str, np.ndarray], meta: dict[str, Any]
) -> dict[str, str]:
    """Load release weights; every parameter of ours must get one.

    Returns:
        dict[str, str]: Release name of each of our names.
    """
    options = release_options(meta)
    names = our_names(list(weights), options)
    state = {}
    for theirs, ours in names.items():
        value = torch.from_numpy(weights[theirs])
        is_side = ours.rpartition('.')[2] in ('left', 'right')
        state[ours] = value.squeeze(0) if is_side else value
    own = dict(head.named_parameters())
    fixed = bool(meta.get('fix_sig_loss_param', 0))
    if fixed:  # constants in the release, so no golden weights either
        own = {k: v for k, v in own.items() if not k.startswith('loss_match')}
    known = {name: value for name, value in state.items() if name in own}
    absent = [name for name in own if name not in known]
    assert not absent, f'no golden weight for {absent}'
    unfit = head.load_state_dict(known, strict=False).unexpected_keys
    assert not unfit
    return {ours: theirs for theirs, ours in names.items() if ours in own}


def stored_draws(
    case: dict[str, np.ndarray], prefix: str
) -> list[tuple[str, np.ndarray]]:
    """Read recorded noise, ``<k>_<kind>`` in order of drawing."""
    names = sorted(name for name in part(case, prefix))
    return [
        (name.split('_', 1)[1], case[f'{prefix}/{name}']) for name in names
    ]


def ruled_draws(
    case: dict[str, np.ndarray], prefix: str, seed: int, std: float
) -> list[tuple[str, np.ndarray]]:
    """Make noise by rule, and check it against the stored sums."""
    draws = []
    for name in sorted(part(case, f'{prefix}/noise_spec')):
        number, kind = name.split('_', 1)
        shape = tuple(case[f'{prefix}/noise_spec/{name}'].tolist())
        array = rule_noise(kind, int(number), shape, seed, std)
        total = float(case[f'{prefix}/noise_sum/{name}'])
        np.testing.assert_allclose(
            array.sum(dtype=np.float64), total, rtol=1e-6, atol=1e-6
        )
        draws.append((kind, array))
    return draws


def weights_by_rule(
    names: list[str], shapes: list[Any], seed: int
) -> dict[str, np.ndarray]:
    """Make weights by rule under the release's names."""
    return {
        name: rule_weight(name, tuple(shape), seed)
        for name, shape in zip(names, shapes, strict=True)
    }


def gradient_scale(
    expected: np.ndarray, all_expected: list[np.ndarray]
) -> float | None:
    """Scale to hold a gradient to: its own, unless it vanishes.

    A gradient that is zero but for rounding, below 1e-6 of the largest of its
    case, has no scale of its own.
    """
    largest = max(float(np.abs(array).max()) for array in all_expected)
    own = float(np.abs(expected).max())
    return None if own > 1e-6 * largest else largest
