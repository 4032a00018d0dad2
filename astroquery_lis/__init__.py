"""Client of the DESI Legacy Imaging Surveys, by the conventions of astroquery.

Everything exported here is the stable public surface.
"""

from ._conf import Conf, conf
from .core import LegacySurvey, LegacySurveyClass

__all__ = ["Conf", "LegacySurvey", "LegacySurveyClass", "conf"]
