"""Rows of the catalogue and tables of bricks and exposures, from whichever source answers.

The client imports a module of this room when it first needs it.
"""

from typing import TYPE_CHECKING

from .._packages import modules_of

if TYPE_CHECKING:
    from . import (
        brick_tables,
        catalog_files,
        catalog_services,
        catalog_table,
        match,
        sweep_files,
        table_file,
    )

__all__ = [
    "brick_tables",
    "catalog_files",
    "catalog_services",
    "catalog_table",
    "match",
    "sweep_files",
    "table_file",
]

__getattr__ = modules_of(__name__)
