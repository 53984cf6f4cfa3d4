"""Registration of all classes of the package."""

import importlib

_PARTS = ('datasets', 'engine', 'evaluation', 'models')


def register_all_modules(init_default_scope: bool = True) -> None:
    """Import all modules that register classes.

    Registries import what they need by themselves; this function is for
    ``mmengine.hub.get_model`` and scripts of OpenMMLab's libraries.

    Args:
        init_default_scope (bool): Make ``'eaglenet_mm'`` the default scope.
            Default: True.
    """
    from mmengine.registry import init_default_scope as set_default_scope

    for part in _PARTS:
        importlib.import_module(f'eaglenet_mm.{part}')
    if init_default_scope:
        set_default_scope('eaglenet_mm')
