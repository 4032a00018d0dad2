"""Rows of the catalogue and tables of bricks and exposures, from whichever source answers.

The client imports a module of this room when it first needs it.
"""

from typing import TYPE_CHECKING

from .._rooms import modules_of

if TYPE_CHECKING:
    from . import (
        any_file,
        brick_tables,
        catalog_files,
        catalog_table,
        catalog_tap,
        catalog_viewer,
        exposure_tables,
        match,
        sweep_files,
        tap_client,
    )

__all__ = [
    "any_file",
    "brick_tables",
    "catalog_files",
    "catalog_table",
    "catalog_tap",
    "catalog_viewer",
    "exposure_tables",
    "match",
    "sweep_files",
    "tap_client",
]

__getattr__ = modules_of(__name__)
