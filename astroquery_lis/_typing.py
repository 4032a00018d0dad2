"""What the public methods take and give, for type checkers: nothing here does anything."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from os import PathLike
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Literal,
    NotRequired,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypedDict,
    TypeVar,
    cast,
    overload,
)

from astropy.coordinates import BaseCoordinateFrame, SkyCoord
from astropy.io.fits import HDUList, Header
from astropy.table import Row, Table
from astropy.time import Time
from astropy.units import Quantity

if TYPE_CHECKING:
    # It takes a moment, and is only named here.
    from astropy.wcs import WCS as WCS

__all__ = [
    "Angle",
    "Bands",
    "ByRow",
    "CacheInfo",
    "Coordinates",
    "Executor",
    "FilePath",
    "HDUList",
    "Header",
    "Keywords",
    "Mapping",
    "Mirror",
    "OnMissing",
    "Payload",
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
    "answering",
    "answering_each",
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
Keywords: TypeAlias = dict[str, Any]
"""Keyword arguments on their way to a method, which knows their types."""


class CacheInfo(TypedDict):
    """What the cache holds."""

    location: str
    bytes: int
    limit_bytes: int
    stores: dict[str, dict[str, int]]


class Payload(TypedDict):
    """What a method returns with ``get_query_payload=True``: whom it would ask, and what."""

    service: str
    urls: NotRequired[list[str]]
    params: NotRequired[Mapping[str, object]]
    query: NotRequired[str]


P = ParamSpec("P")
T = TypeVar("T")
ByRow: TypeAlias = T | str | Sequence[T] | Callable[[Any], T]
"""A value for all rows; a column's name, a value for each row, or a function of the row."""
Answer_co = TypeVar("Answer_co", covariant=True)
Payload_co = TypeVar("Payload_co", covariant=True)


class _Answering(Protocol[P, Answer_co, Payload_co]):
    @overload
    def __call__(
        self, *args: Any, get_query_payload: Literal[True], **options: Any
    ) -> Payload_co: ...
    @overload
    def __call__(self, *args: P.args, **options: P.kwargs) -> Answer_co: ...


class _AnsweringMethod(Protocol[P, Answer_co, Payload_co]):
    def __get__(self, instance: object, owner: type, /) -> _Answering[P, Answer_co, Payload_co]: ...


def answering(
    method: Callable[Concatenate[Any, P], T | Payload],
) -> _AnsweringMethod[P, T, Payload]:
    """Mark a method that returns a payload only if it is called with ``get_query_payload=True``."""
    return cast(_AnsweringMethod[P, T, Payload], method)


def answering_each(
    method: Callable[Concatenate[Any, P], list[HDUList] | list[Payload]],
) -> _AnsweringMethod[P, list[HDUList], list[Payload]]:
    """Mark a method as `answering` does, one that returns a list of cutouts or of payloads."""
    return cast(_AnsweringMethod[P, list[HDUList], list[Payload]], method)
