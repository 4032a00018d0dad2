"""JWST exposures from MAST to a calibrated mosaic, and beside the Legacy Surveys.

The chain is the real `jwst` pipeline, run in processes of its own; nothing of it is imported before
it is needed.
"""

from .archive_methods import ArchiveMethods
from .chain_methods import ChainMethods
from .legacy_methods import LegacyMethods
from .planning import Plan

__all__ = ["JwstStage", "JwstStageClass", "Plan"]


class JwstStageClass(ArchiveMethods, ChainMethods, LegacyMethods):
    """JWST exposures from MAST to a calibrated mosaic, and beside the Legacy Surveys.

    Use the instance `~astroquery_lis.jwst_stage.JwstStage`.  Its attributes ``crds_path``,
    ``crds_context``, ``crds_server_url`` and ``timeout`` stand above ``conf`` and the environment.
    The pipelines run in processes of their own, with the `jwst` package of the extra ``jwst``.

    Examples
    --------
    >>> from astroquery_lis.jwst_stage import JwstStage
    >>> plan = JwstStage.plan("uncal/*_uncal.fits", output_dir="reduced")  # doctest: +SKIP
    >>> manifest = JwstStage.run(plan)  # doctest: +SKIP
    """


JwstStage = JwstStageClass()
