"""What the arguments of the public methods may be, for type checkers only: nothing runs here."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from os import PathLike
from typing import Any, Literal, TypeAlias

from astropy.coordinates import BaseCoordinateFrame, SkyCoord
from astropy.io.fits import HDUList, Header
from astropy.table import Row, Table
from astropy.time import Time
from astropy.units import Quantity
from astropy.wcs import WCS

__all__ = [
    "WCS",
    "Angle",
    "Bands",
    "Coordinates",
    "Executor",
    "FilePath",
    "HDUList",
    "Header",
    "Mapping",
    "Mirror",
    "OnMissing",
    "Positions",
    "Products",
    "Quantity",
    "Region",
    "Row",
    "Sequence",
    "Size",
    "SkyCoord",
    "Table",
    "Time",
]

Coordinates: TypeAlias = SkyCoord | BaseCoordinateFrame | str
Positions: TypeAlias = (
    Coordinates | Table | Row | Sequence[Coordinates] | Sequence[tuple[float, float]]
)
Angle: TypeAlias = Quantity | str
Size: TypeAlias = int | Quantity | str | tuple[int | Quantity | str, int | Quantity | str]
Bands: TypeAlias = str | Sequence[str]
Products: TypeAlias = str | Sequence[str]
FilePath: TypeAlias = str | PathLike[str]
Mirror: TypeAlias = str | PathLike[str] | Sequence[str | PathLike[str]]
Region: TypeAlias = Literal["auto", "north", "south"]
OnMissing: TypeAlias = Literal["raise", "warn"]
Payload: TypeAlias = Any
"""The other thing that a method returns with ``get_query_payload=True``."""
