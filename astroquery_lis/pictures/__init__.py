"""Pictures of cutouts: in colour, with axes and overlays, on a sheet, and on a page.

Everything here takes what `~astroquery_lis.LegacySurveyClass.get_cutout` or
`~astroquery_lis.LegacySurveyClass.download_cutouts` returned.  `rgb` needs numpy and astropy only;
`plot` needs matplotlib, and labels pillow, both of which come with ``astroquery_lis[plot]``.
"""

from .page import gallery, summary
from .plot import plot
from .rgb import rgb
from .sheet import contact_sheet

__all__ = ["contact_sheet", "gallery", "plot", "rgb", "summary"]
