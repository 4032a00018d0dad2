"""What the survey is: bricks, releases, file names, masks.  Pure: no network, no files."""

from typing import TYPE_CHECKING

from .._rooms import modules_of

if TYPE_CHECKING:
    from . import sky_grids

__all__ = ["sky_grids"]

__getattr__ = modules_of(__name__)
