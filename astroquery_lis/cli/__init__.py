"""The command ``astroquery-lis``."""

from .app import main

__all__ = ["main"]
