"""Client of the DESI Legacy Imaging Surveys, by the conventions of astroquery.

Everything exported here is the stable public surface; the rooms behind it may be renamed.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from ._conf import Conf, conf
from ._packages import package_version

if TYPE_CHECKING:
    from . import exceptions, jwst_stage, pictures, sandbox
    from .client import LegacySurvey, LegacySurveyClass
    from .images import analysis
    from .survey import bitmasks, bricks, photometry, tractor

__all__ = [
    "Conf",
    "LegacySurvey",
    "LegacySurveyClass",
    "__version__",
    "analysis",
    "bitmasks",
    "bricks",
    "conf",
    "exceptions",
    "jwst_stage",
    "photometry",
    "pictures",
    "sandbox",
    "tractor",
]

__version__ = package_version()

_ROOMS = {
    "analysis": ".images.analysis",
    "bitmasks": ".survey.bitmasks",
    "bricks": ".survey.bricks",
    "exceptions": ".exceptions",
    "jwst_stage": ".jwst_stage",
    "photometry": ".survey.photometry",
    "pictures": ".pictures",
    "sandbox": ".sandbox",
    "tractor": ".survey.tractor",
}


def __getattr__(name: str) -> object:
    # The class brings ninety modules along; `conf` and the JWST room do without them.
    if name in ("LegacySurvey", "LegacySurveyClass"):
        attribute = getattr(import_module(".client", __name__), name)
    elif name in _ROOMS:
        attribute = import_module(_ROOMS[name], __name__)
    else:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg, name=name, obj=sys.modules[__name__])
    globals()[name] = attribute
    return attribute


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
