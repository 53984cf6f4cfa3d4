"""Version of the package, read by ``setup.py`` without importing torch."""

__version__ = '1.0.0rc1'
