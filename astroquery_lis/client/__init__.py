"""The query class: arguments in, products out.

`LegacySurveyClass` is put together from one module per kind of product, each a class of methods
over the same base, so that no module does two jobs.
"""

import sys

from .about import AboutMethods
from .batch import BatchMethods
from .cache import CacheMethods
from .catalogs import CatalogMethods
from .ccds import CcdMethods
from .files import FileMethods
from .footprint import FootprintMethods
from .images import ImageMethods

__all__ = ["LegacySurvey", "LegacySurveyClass"]


class LegacySurveyClass(
    ImageMethods,
    BatchMethods,
    CatalogMethods,
    FootprintMethods,
    CcdMethods,
    FileMethods,
    AboutMethods,
    CacheMethods,
):
    """Images of the DESI Legacy Imaging Surveys, DR5 to DR11.

    Use the instance `~astroquery_lis.LegacySurvey`.  Its attributes ``release``, ``mirror`` and
    ``timeout`` stand above ``conf`` and below the arguments of a call.  An instance may be shared
    among threads and can be pickled.

    Examples
    --------
    >>> from astropy.coordinates import SkyCoord
    >>> from astroquery_lis import LegacySurvey, sandbox
    >>> with sandbox.serve() as sky:
    ...     hdul = LegacySurvey.get_cutout(sky.positions['star'], 64, bands='r')
    >>> hdul['IMAGE_R'].data.shape
    (64, 64)
    """


LegacySurvey = LegacySurveyClass()

if "IPython" in sys.modules:
    # Pictures bring a dozen modules along, which nothing else needs here.
    from ..pictures.page import show_in_notebooks

    show_in_notebooks()
