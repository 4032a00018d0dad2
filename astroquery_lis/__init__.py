"""Client of the DESI Legacy Imaging Surveys, by the conventions of astroquery.

Everything exported here is the stable public surface.
"""

from typing import TYPE_CHECKING

from ._conf import Conf, conf

if TYPE_CHECKING:
    from .core import LegacySurvey, LegacySurveyClass

__all__ = ["Conf", "LegacySurvey", "LegacySurveyClass", "conf"]


def __getattr__(name):
    # The class brings ninety modules along; `conf` and the JWST room do without them.
    if name not in ("LegacySurvey", "LegacySurveyClass"):
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from . import core

    globals().update(LegacySurvey=core.LegacySurvey, LegacySurveyClass=core.LegacySurveyClass)
    return globals()[name]


def __dir__():
    return sorted({*globals(), *__all__})
