"""Columns by the names that users know: those of the files, families, and computed ones.

Magnitudes, errors and colours are computed here from what every source has, so that they are the
same from each.  Astro Data Lab's table holds some of them, rounded; there they serve to ask for
fewer rows.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import combinations

import numpy as np
from astropy import units as u

from ..exceptions import InvalidRequestError, refuse
from . import photometry
from .releases import RELEASES, get_release
from .tractor_columns import (
    OPTICAL_BANDS,
    WISE_BANDS,
    TractorColumn,
    core_columns,
    has_column,
    redshift_columns,
    tractor_columns,
)

Arrays = Sequence[np.ndarray]

_TAP_COLOURS = {"g_r", "r_i", "i_z", "r_z", "z_w1", "w1_w2", "w2_w3", "w3_w4"}


def _magnitudes(flux: np.ndarray) -> np.ndarray:
    return photometry.ab_magnitude(flux).value


def _error(flux: np.ndarray, flux_ivar: np.ndarray) -> np.ndarray:
    return photometry.ab_magnitude(flux, flux_ivar)[1].value


def _divided(flux: np.ndarray, transmission: np.ndarray) -> np.ndarray:
    return flux / np.where(transmission > 0, transmission, np.nan)


# Family: the families that it is made of, how, its unit, and whether Data Lab's table has it.
_RECIPES: dict[str, tuple[tuple[str, ...], Callable[..., np.ndarray], u.UnitBase | None, bool]] = {
    "mag": (("flux",), _magnitudes, u.mag, True),
    "mag_err": (("flux", "flux_ivar"), _error, u.mag, False),
    "dered_flux": (("flux", "mw_transmission"), _divided, u.nmgy, True),
    "dered_mag": (
        ("flux", "mw_transmission"),
        lambda flux, transmission: _magnitudes(_divided(flux, transmission)),
        u.mag,
        True,
    ),
    "snr": (("flux", "flux_ivar"), lambda flux, ivar: flux * np.sqrt(ivar), None, True),
}
_BRIEF = ("ls_id", "ra", "dec", "type", "mag", "mag_err", "shape_r", "sersic", "maskbits")


@cache
def computed_columns(release: str) -> Mapping[str, TractorColumn]:
    """Return the columns that can be computed from those of a release."""
    schema = tractor_columns(release)
    bands = [b for b in (*OPTICAL_BANDS, *WISE_BANDS) if f"flux_{b}" in schema]
    columns = [
        TractorColumn(
            f"{family}_{band}",
            *("f4", 1, unit, family, band, in_tap),
            tuple(f"{name}_{band}" for name in families),
        )
        for family, (families, _, unit, in_tap) in _RECIPES.items()
        for band in bands
    ]
    for blue, red in combinations(bands, 2):
        name = f"{blue}_{red}"
        inputs = (f"flux_{blue}", f"flux_{red}")
        columns.append(
            TractorColumn(name, "f4", 1, u.mag, name, None, name in _TAP_COLOURS, inputs)
        )
    for column in schema.values():
        if "_ivar" in column.name and column.length == 1:
            name, family = (text.replace("_ivar", "_err") for text in (column.name, column.family))
            unit = None if column.unit is None else column.unit**-0.5
            columns.append(
                TractorColumn(name, "f4", 1, unit, family, column.band, False, (column.name,))
            )
    return {column.name: column for column in columns}


def compute(column: TractorColumn, values: Arrays) -> np.ndarray:
    """Return the values of a computed column from those of its inputs."""
    values = [array.astype(float) for array in values]
    with np.errstate(divide="ignore", invalid="ignore"):
        if column.family in _RECIPES:
            computed = _RECIPES[column.family][1](*values)
        elif len(values) == 2:
            computed = _magnitudes(values[0]) - _magnitudes(values[1])
        else:
            computed = np.where(values[0] > 0, 1 / np.sqrt(values[0]), np.nan)
    return computed.astype(column.dtype)


@cache
def _everything() -> Mapping[str, TractorColumn]:
    """Return every column of any release, by name."""
    columns: dict[str, TractorColumn] = {}
    for release in RELEASES:
        columns |= computed_columns(release)
    for release in RELEASES:
        columns |= redshift_columns(release) | dict(tractor_columns(release))
    return columns


@cache
def any_column(name: str, release: str) -> TractorColumn | None:
    """Return a column by name, from another release if this one has it not."""
    columns = tractor_columns(release).get(name) or computed_columns(release).get(name)
    return columns or _everything().get(name)


def brief_columns(release: str, region: str = "auto") -> tuple[TractorColumn, ...]:
    """Return the columns that people look at first: what ``columns='brief'`` stands for."""
    columns: list[TractorColumn] = []
    for word in _BRIEF:
        columns += _meant(word, release, region) or ()
    return tuple(c for c in columns if c.band not in WISE_BANDS[1:])


@cache
def _meant(name: str, release: str, region: str) -> tuple[TractorColumn, ...]:
    """Return the columns that one word means: one, or a family; none if it means nothing."""
    column = any_column(name, release)
    if column is not None:
        return (column,)
    schemas = (tractor_columns(release), computed_columns(release), redshift_columns(release))
    return tuple(
        column
        for schema in schemas
        for column in schema.values()
        if column.family == name and (region == "auto" or has_column(column, release, region))
    )


def resolve_columns(
    columns: str | Sequence[str] | None,
    release: str,
    region: str = "auto",
    *,
    own: Callable[[], Mapping[str, TractorColumn]] = dict,
    parameter: str = "columns",
) -> tuple[TractorColumn, ...]:
    """Return the columns that a user's choice means, without repeats, in the order given.

    One that only another release has stays in.  ``own`` returns the columns that the files have
    beyond the survey's; it is called where a name means nothing else.
    """
    if columns is None:
        return core_columns(release, region)
    words = columns.replace(",", " ").split() if isinstance(columns, str) else columns
    try:
        words = [word.strip().lower() for word in words]
    except (TypeError, AttributeError):
        words = []
    if not words:
        must = "must name columns; leave it out for the core schema, or take 'brief' or 'all'."
        refuse(parameter, columns, must)
    if words == ["brief"]:
        return brief_columns(release, region)
    chosen: list[TractorColumn] = []
    for word in words:
        meant = _meant(word, release, region)
        if not meant and word in own():
            meant = (own()[word],)
        if not meant:
            _refuse(word, release, own(), parameter)
        chosen += meant
    return tuple(dict.fromkeys(chosen))


def _refuse(name: str, release: str, own: Mapping[str, TractorColumn], parameter: str) -> None:
    """Refuse a name that means nothing, with names of the release that are like it."""
    number = get_release(release).number
    near: list[str] = []
    # What the files have comes before what is computed from it.
    schemas = (tractor_columns(release), computed_columns(release), redshift_columns(release))
    for schema in (*schemas, own):
        names = {name for c in schema.values() for name in (c.name, c.family)} - {*near}
        near += difflib.get_close_matches(name, names, 3 - len(near)) if len(near) < 3 else []
    hint = f"; did you mean {', '.join(near)}?" if near else "."
    msg = (
        f"{parameter}: {name!r} is no column or family of columns of DR{number}{hint} "
        "LegacySurvey.list_columns() lists them."
    )
    raise InvalidRequestError(msg, parameter=parameter, value=name)
