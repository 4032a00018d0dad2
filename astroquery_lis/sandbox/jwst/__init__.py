"""Uncalibrated JWST exposures of the embedded sky, and a CRDS cache that serves them offline."""

from .modes import ModeObservation, simulate_miri, simulate_niriss
from .observation import Observation, simulate

__all__ = ["ModeObservation", "Observation", "simulate", "simulate_miri", "simulate_niriss"]
