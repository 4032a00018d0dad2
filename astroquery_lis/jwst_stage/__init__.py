"""JWST exposures from MAST to a calibrated mosaic, and beside the Legacy Surveys.

The chain is the real `jwst` pipeline, run in processes of its own; nothing of it is imported before
it is needed.
"""

from .planning.plan import Plan
from .stage import JwstStage, JwstStageClass

__all__ = ["JwstStage", "JwstStageClass", "Plan"]
