"""An index as a service: searches over HTTP, and a page that asks them."""

from eaglenet_mm.service.application import Settings, make_app
from eaglenet_mm.service.guards import is_loopback

__all__ = ['Settings', 'is_loopback', 'make_app']
