"""The JWST class, put together from one module per job."""

from .archive_methods import ArchiveMethods
from .chain_methods import ChainMethods
from .legacy_methods import LegacyMethods


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
