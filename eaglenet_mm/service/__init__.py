"""An index as a service: searches over HTTP, and a page that asks them."""

from eaglenet_mm.service.application import make_app
from eaglenet_mm.service.guards import is_loopback
from eaglenet_mm.service.models import Settings

__all__ = ['Settings', 'is_loopback', 'make_app']
