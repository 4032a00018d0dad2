"""Corrections between the stages: named, with parameters, recorded, and never applied twice.

``corrections=`` of a plan takes names (``"flicker"``), pairs (``("wisp", {"templates": ...})``),
functions of one's own, and steps of stpipe; see `normalise`.
"""

from .correction import IN_STEP, POINTS, Correction, apply, hooks, register, register_inputs
from .normalise import correction, normalise, switches

__all__ = [
    "IN_STEP",
    "POINTS",
    "Correction",
    "apply",
    "correction",
    "hooks",
    "normalise",
    "register",
    "register_inputs",
    "switches",
]
