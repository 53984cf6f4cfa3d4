"""Fine-grained text-video retrieval on MMEngine.

Importing the package repairs what today's versions of MMEngine, mmaction2
and transformers break for each other (:mod:`eaglenet_mm.compat`) and makes
checkpoint reading safe; it imports no model. ``custom_imports =
dict(imports=['eaglenet_mm'])`` in a config is therefore all that another
library's train script needs.
"""

from eaglenet_mm import compat
from eaglenet_mm.version import __version__

compat.apply()

__all__ = ['__version__', 'compat']
