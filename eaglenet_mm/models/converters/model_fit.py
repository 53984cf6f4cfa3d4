"""Whether a converted checkpoint fills a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from eaglenet_mm.utils.name_lists import name_some


def check_model_fit(
    state_dict: Mapping[str, Tensor], model: nn.Module
) -> list[str]:
    """Check that a state dict gives every parameter of a model its value.

    Args:
        state_dict (dict[str, Tensor]): By the model's names.
        model (nn.Module): The model; it is not changed.

    Returns:
        list[str]: Buffers and fixed loss parameters of the model that the
        state dict leaves as they are, such as a table of evaluation noise.

    Raises:
        ValueError: If a parameter is missing, a name unknown to the model or
            a shape another.
    """
    expected = model.state_dict()
    # Fixed loss parameters are constants of the config; the release stores
    # none of them.
    parameters = {
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad or not name.startswith('head.loss_match.')
    }
    absent = [name for name in expected if name not in state_dict]
    problems = {
        'missing': [name for name in absent if name in parameters],
        'unknown to the model': [k for k in state_dict if k not in expected],
        'of another shape (checkpoint, model)': [
            f'{name} {tuple(value.shape)}, {tuple(expected[name].shape)}'
            for name, value in state_dict.items()
            if name in expected and value.shape != expected[name].shape
        ],
    }
    lines = [
        f'{len(names)} {kind}: {name_some(names)}'
        for kind, names in problems.items()
        if names
    ]
    if lines:
        raise ValueError(
            'The checkpoint does not fit the model of the config; '
            f'{"; ".join(lines)}. Choose the config of the data set and CLIP '
            'size the checkpoint was trained with.'
        )
    return [name for name in absent if name not in parameters]


def read_model_options(model: nn.Module) -> dict[str, Any]:
    """Read off a model what a checkpoint of the release leaves open.

    Args:
        model (nn.Module): A text-video retriever with an EagleNet head.

    Returns:
        dict: The options of
        :func:`~.eaglenet_release.convert_eaglenet_release`.
    """
    names = model.state_dict()
    prefix = 'head.graph.hidden.'
    hidden = {n.split('.')[3] for n in names if n.startswith(prefix)}
    has_scale = 'head.loss_match.log_scale' in names
    is_clip = has_scale and 'head.loss_match.bias' not in names
    table = names['text_encoder.tower.positional_embedding']
    return dict(
        num_graph_layers=len(hidden) + 1,
        loss='clip' if is_clip else 'sig',
        max_words=table.shape[0],
    )
