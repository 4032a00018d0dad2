"""Uncalibrated JWST exposures of the embedded sky, and a CRDS cache that serves them offline."""

from .observation import Observation
from .simulation import simulate

__all__ = ["Observation", "simulate"]
