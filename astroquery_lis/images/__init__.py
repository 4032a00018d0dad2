"""From the bytes of image files to cutouts: tiles, readers, grids, PSFs, files.

The client imports a module of this room when it first needs it.
"""

from typing import TYPE_CHECKING

from .._packages import modules_of

if TYPE_CHECKING:
    from . import (
        array_files,
        coadds,
        cutting,
        map_values,
        open_images,
        reader,
        renderings,
        sources,
        viewer_service,
    )

__all__ = [
    "array_files",
    "coadds",
    "cutting",
    "map_values",
    "open_images",
    "reader",
    "renderings",
    "sources",
    "viewer_service",
]

__getattr__ = modules_of(__name__)
