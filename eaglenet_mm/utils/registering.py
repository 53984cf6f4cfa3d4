"""Making every class of the package known to MMEngine's registries."""

import importlib

_PARTS = ('datasets', 'engine', 'evaluation', 'models')


def register_all_modules(init_default_scope: bool = True) -> None:
    """Import all modules that register classes.

    Registries import what they need by themselves; this is what
    ``mmengine.hub.get_model`` and scripts for OpenMMLab's libraries call.

    Args:
        init_default_scope (bool): Whether ``'eaglenet_mm'`` becomes the
            default scope. Defaults to True.
    """
    from mmengine.registry import init_default_scope as set_default_scope

    for part in _PARTS:
        importlib.import_module(f'eaglenet_mm.{part}')
    if init_default_scope:
        set_default_scope('eaglenet_mm')
