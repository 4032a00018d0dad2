"""What the survey is: bricks, releases, file names, masks.  Pure: no network, no files.

Modules that need much themselves are imported when they are first needed.
"""

from typing import TYPE_CHECKING

from .._packages import modules_of

if TYPE_CHECKING:
    from . import (
        catalog_request,
        layers,
        paths,
        pixel_grids,
        releases,
        request,
        sphere,
        tractor,
        tractor_columns,
    )

__all__ = [
    "catalog_request",
    "layers",
    "paths",
    "pixel_grids",
    "releases",
    "request",
    "sphere",
    "tractor",
    "tractor_columns",
]

__getattr__ = modules_of(__name__)
