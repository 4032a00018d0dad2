"""The columns of the Tractor catalogues: types, units, bands, who has them, conditions on values.

From the releases' catalogue pages (DR8 to DR11), the files themselves and the columns that Astro
Data Lab serves.  Units are given even where the survey writes none into its files.

Magnitudes, errors and colours are computed here from what every source has, so that they are the
same from each.  Astro Data Lab's table holds some of them, rounded; there they serve to ask for
fewer rows.

The same condition becomes ADQL for a service and a test on arrays here; a value that is missing
(masked or NaN) meets none.  An empty text is a value: services hold NULL for it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import combinations
from operator import attrgetter
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from astropy import units as u

from ..exceptions import refuse
from . import photometry
from .releases import RELEASES, get_release, get_tree

OPTICAL_BANDS = ("g", "r", "i", "z")
WISE_BANDS = ("w1", "w2", "w3", "w4")

ROW_KEY = ("release", "brickid", "objid")
"""What a row is known by."""

NO_REDSHIFT = -99.0
"""What the tables of redshifts hold for none."""

_STATISTICS = ("mean", "median", "std", "l68", "u68", "l95", "u95")
# From DR10 on there is a second set, of fits with the i band.
_PHOT = tuple(f"z_phot_{name}{end}" for end in ("", "_i") for name in _STATISTICS)

MEASURED_REDSHIFTS = frozenset((*_PHOT, "z_spec"))
REDSHIFTS = MEASURED_REDSHIFTS | {"survey"}
"""The columns that lie beside the catalogue, in tables of photometric redshifts."""

# Name, type, unit, and what is not the rule: "o" one column per optical band, "w" per WISE band,
# "v" for W1 and W2; "from9" and "to8" the releases that have it; "files" if Data Lab's main table
# has it not; "@9:i4" another type from that release on.
_TABLE = """
ls_id i8 -
ls_id_dr11 i8 - from11 files
release i2 -
brickid i4 -
brickname U8 -
objid i4 -
brick_primary ? -
brightblob i2 - from8 to8
maskbits i2 - from7 @10:i4
fitbits i2 - from9
type U4 - @9:U3
ra f8 deg
dec f8 deg
ra_ivar f4 1/deg2
dec_ivar f4 1/deg2
bx f4 pix
by f4 pix
dchisq 5f4 -
ebv f4 mag
mjd_min f8 day
mjd_max f8 day
ref_cat U2 - from8
ref_id i8 - from8
pmra f4 mas/yr from8
pmdec f4 mas/yr from8
parallax f4 mas from8
pmra_ivar f4 yr2/mas2 from8
pmdec_ivar f4 yr2/mas2 from8
parallax_ivar f4 1/mas2 from8
ref_epoch f4 yr from8
gaia_pointsource ? - from8 to8
gaia_phot_g_mean_mag f4 mag from8
gaia_phot_g_mean_flux_over_error f4 - from8
gaia_phot_g_n_obs i2 - from8 @11:i4
gaia_phot_bp_mean_mag f4 mag from8
gaia_phot_bp_mean_flux_over_error f4 - from8
gaia_phot_bp_n_obs i2 - from8 @11:i4
gaia_phot_rp_mean_mag f4 mag from8
gaia_phot_rp_mean_flux_over_error f4 - from8
gaia_phot_rp_n_obs i2 - from8 @11:i4
gaia_phot_variable_flag ? - from8
gaia_astrometric_excess_noise f4 - from8
gaia_astrometric_excess_noise_sig f4 - from8
gaia_astrometric_n_obs_al i2 - from8 @11:i4
gaia_astrometric_n_good_obs_al i2 - from8 @11:i4
gaia_astrometric_weight_al f4 - from8
gaia_duplicated_source ? - from8
gaia_a_g_val f4 mag from8
gaia_e_bp_min_rp_val f4 mag from8
gaia_phot_bp_rp_excess_factor f4 - from8
gaia_astrometric_sigma5d_max f4 mas from8
gaia_astrometric_params_solved u1 - from8
nearest_neighbor f4 arcsec from11 files
flux f4 nmgy o w
flux_ivar f4 1/nmgy2 o w
fiberflux f4 nmgy o from8
fibertotflux f4 nmgy o from8
apflux 8f4 nmgy o files
apflux_resid 8f4 nmgy o files
apflux_blobresid 8f4 nmgy o files from9
apflux_ivar 8f4 1/nmgy2 o files
apflux_masked 8f4 - o files from9
apflux 5f4 nmgy w files from9
apflux_resid 5f4 nmgy w files from9
apflux_ivar 5f4 1/nmgy2 w files from9
mw_transmission f4 - o w
nobs i2 - o w
rchisq f4 - o w
fracflux f4 - o w
fracmasked f4 - o
fracin f4 - o
ngood i2 - o from10 files
anymask i2 - o
allmask i2 - o
wisemask u1 - v from8
psfsize f4 arcsec o
psfdepth f4 1/nmgy2 o
galdepth f4 1/nmgy2 o
nea f4 arcsec2 o from9
blob_nea f4 arcsec2 o from9
psfdepth f4 1/nmgy2 w from8
wise_coadd_id U8 - from7
wise_x f4 pix from9
wise_y f4 pix from9
lc_flux 11f4 nmgy v files @9:15f4 @10:17f4
lc_flux_ivar 11f4 1/nmgy2 v files @9:15f4 @10:17f4
lc_nobs 11i2 - v files @9:15i2 @10:17i2
lc_fracflux 11f4 - v files @9:15f4 @10:17f4
lc_rchisq 11f4 - v files @9:15f4 @10:17f4
lc_mjd 11f8 day v files @9:15f8 @10:17f8
lc_epoch_index 15i2 - v from9 files @10:17i2
fracdev f4 - to8
fracdev_ivar f4 - to8
shapeexp_r f4 arcsec to8
shapeexp_r_ivar f4 1/arcsec2 to8
shapeexp_e1 f4 - to8
shapeexp_e1_ivar f4 - to8
shapeexp_e2 f4 - to8
shapeexp_e2_ivar f4 - to8
shapedev_r f4 arcsec to8
shapedev_r_ivar f4 1/arcsec2 to8
shapedev_e1 f4 - to8
shapedev_e1_ivar f4 - to8
shapedev_e2 f4 - to8
shapedev_e2_ivar f4 - to8
sersic f4 - from9
sersic_ivar f4 - from9
shape_r f4 arcsec from9
shape_r_ivar f4 1/arcsec2 from9
shape_e1 f4 - from9
shape_e1_ivar f4 - from9
shape_e2 f4 - from9
shape_e2_ivar f4 - from9
"""


@dataclass(frozen=True)
class TractorColumn:
    """One column of the catalogue in one release."""

    name: str  # lower case, as in the Tractor files
    dtype: str  # numpy type of one value
    length: int  # values per row; 1 for a plain column
    unit: u.UnitBase | None  # what the values are in
    family: str  # the name without its band; the name itself where there is none
    band: str | None  # ``'g'`` to ``'z'`` or ``'w1'`` to ``'w4'``
    in_tap: bool  # whether Astro Data Lab's main table has it too
    inputs: tuple[str, ...] = ()  # the columns that it is computed from; empty if files have it

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """The columns of files that it needs: itself, or what it is computed from."""
        return self.inputs or (self.name,)

    @cached_property
    def is_text(self) -> bool:
        """Whether its values are texts."""
        return self.dtype[0] == "U"

    @property
    def missing(self) -> float | int | bool | str:
        """What a masked value holds underneath."""
        kinds: dict[str, float | int | bool | str]
        kinds = {"f": float("nan"), "i": 0, "u": 0, "?": False, "U": ""}
        return kinds[self.dtype[0]]


@cache
def tractor_columns(release: str) -> Mapping[str, TractorColumn]:
    """Return the columns of a release, in the order of its files."""
    columns = [c for line in _TABLE.split("\n")[1:-1] for c in _columns_of(line, release)]
    return MappingProxyType({column.name: column for column in columns})


def _columns_of(line: str, release: str) -> Iterator[TractorColumn]:
    """Yield the columns that a line of the table means in a release."""
    number, optical = get_release(release).number, get_release(release).bands
    family, kind, unit, *marks = line.split()
    ends = {word: int(n) for word, n in re.findall(r" (from|to)(\d+)", line)}
    if not ends.get("from", 5) <= number <= ends.get("to", 99):
        return
    changes = re.findall(r"@(\d+):(\S+)", line)
    kind = [kind, *(changed for since, changed in changes if number >= int(since))][-1]
    dtype = kind.lstrip("0123456789")
    length = int(kind.removesuffix(dtype) or 1)
    inputs = ROW_KEY if family == "ls_id" else ()
    for band in _bands(marks, optical):
        name = family if band is None else f"{family}_{band}"
        in_tap = "files" not in marks
        yield TractorColumn(name, dtype, length, _unit(unit), family, band, in_tap, inputs)


@cache
def _unit(text: str) -> u.UnitBase | None:
    return None if text == "-" else u.Unit(text)


def _bands(marks: list[str], optical: tuple[str, ...]) -> list[str] | list[None]:
    """Return the bands that a line of the table stands for."""
    bands = {"o": optical, "w": WISE_BANDS, "v": WISE_BANDS[:2]}
    return [band for mark in marks for band in bands.get(mark, ())] or [None]


@cache
def redshift_columns(release: str) -> Mapping[str, TractorColumn]:
    """Return the columns beside the catalogue that a release has at Astro Data Lab, by name."""
    number = get_release(release).number
    if number < 9:
        return {}
    photometric = _PHOT if number >= 10 else _PHOT[: len(_STATISTICS)]
    families = dict.fromkeys(photometric, "z_phot") | {"z_spec": "z_spec"}
    columns = [TractorColumn(n, "f4", 1, None, f, None, True) for n, f in families.items()]
    columns.append(TractorColumn("survey", "U10", 1, None, "survey", None, True))
    return MappingProxyType({column.name: column for column in columns})


@cache
def file_columns(release: str) -> Mapping[str, TractorColumn]:
    """Return the columns that files of a release have, with the redshifts beside them."""
    return MappingProxyType({**redshift_columns(release), **tractor_columns(release)})


def has_column(column: TractorColumn, release: str, region: str) -> bool:
    """Tell whether the files of a region have a column, or what it is computed from."""
    if column.inputs:
        schema = tractor_columns(release)
        return all(n in schema and has_column(schema[n], release, region) for n in column.inputs)
    tree = get_tree(release, region)
    bands = (None, *WISE_BANDS, *tree.bands)
    return column.band in bands and column.name in file_columns(tree.release)


def in_region(
    columns: Iterable[TractorColumn], release: str, region: str
) -> tuple[TractorColumn, ...]:
    """Return those of some columns that the files of a region have; for ``'auto'`` all."""
    return tuple(c for c in columns if region == "auto" or has_column(c, release, region))


@cache
def core_columns(release: str, region: str = "auto") -> tuple[TractorColumn, ...]:
    """Return the columns that every source has: what ``columns=None`` stands for."""
    in_tap = filter(attrgetter("in_tap"), tractor_columns(release).values())
    return in_region(in_tap, release, region)


# ---- columns that are computed -------------------------------------------------------------------

_TAP_COLOURS = {"g_r", "r_i", "i_z", "r_z", "z_w1", "w1_w2", "w2_w3", "w3_w4"}


def _magnitudes(flux: np.ndarray) -> np.ndarray:
    return photometry.ab_magnitude(flux).value


def _dereddened(flux: np.ndarray, transmission: np.ndarray) -> np.ndarray:
    return photometry.deredden(flux, transmission).value


# Family: the families that it is made of, how, its unit, and whether Data Lab's table has it.
_RECIPES: dict[str, tuple[tuple[str, ...], Callable[..., np.ndarray], u.UnitBase | None, bool]] = {
    "mag": (("flux",), _magnitudes, u.mag, True),
    "mag_err": (
        ("flux", "flux_ivar"),
        lambda flux, ivar: photometry.ab_magnitude(flux, ivar)[1].value,
        u.mag,
        False,
    ),
    "dered_flux": (("flux", "mw_transmission"), _dereddened, u.nmgy, True),
    "dered_mag": (
        ("flux", "mw_transmission"),
        lambda flux, transmission: _magnitudes(_dereddened(flux, transmission)),
        u.mag,
        True,
    ),
    "snr": (("flux", "flux_ivar"), lambda flux, ivar: flux * np.sqrt(ivar), None, True),
}


@cache
def computed_columns(release: str) -> Mapping[str, TractorColumn]:
    """Return the columns that can be computed from those of a release."""
    schema = tractor_columns(release)
    bands = [b for b in (*OPTICAL_BANDS, *WISE_BANDS) if f"flux_{b}" in schema]
    columns = [_of_recipe(family, band) for family in _RECIPES for band in bands]
    columns += [_colour(blue, red) for blue, red in combinations(bands, 2)]
    ivars = (c for name, c in schema.items() if "_ivar" in name and c.length == 1)
    columns += map(_error_of, ivars)
    return MappingProxyType({column.name: column for column in columns})


def _of_recipe(family: str, band: str) -> TractorColumn:
    families, _, unit, in_tap = _RECIPES[family]
    inputs = tuple(f"{name}_{band}" for name in families)
    return TractorColumn(f"{family}_{band}", "f4", 1, unit, family, band, in_tap, inputs)


def _colour(blue: str, red: str) -> TractorColumn:
    name, inputs = f"{blue}_{red}", (f"flux_{blue}", f"flux_{red}")
    return TractorColumn(name, "f4", 1, u.mag, name, None, name in _TAP_COLOURS, inputs)


def _error_of(column: TractorColumn) -> TractorColumn:
    """Return the column of the errors that a column of inverse variances means."""
    name, family = (text.replace("_ivar", "_err") for text in (column.name, column.family))
    unit = None if column.unit is None else column.unit**-0.5
    return TractorColumn(name, "f4", 1, unit, family, column.band, False, (column.name,))


def compute(column: TractorColumn, values: Sequence[np.ndarray]) -> np.ndarray:
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
    # What files have somewhere comes before what is computed elsewhere.
    for of in (computed_columns, file_columns):
        for release in RELEASES:
            columns |= of(release)
    return columns


@cache
def any_column(name: str, release: str) -> TractorColumn | None:
    """Return a column by name, from another release if this one has it not."""
    schemas = (tractor_columns(release), computed_columns(release), _everything())
    return next((schema[name] for schema in schemas if name in schema), None)


# ---- conditions on the values of a column --------------------------------------------------------

Value: TypeAlias = bool | int | float | str

TOLERANCE = 1e-3
"""How far what a service computed may be from what is computed here, absolute and relative."""


def _is_like(texts: np.ndarray, values: Sequence[Value]) -> np.ndarray:
    """Tell which texts are like a pattern with ``*`` and ``?``."""
    escaped = re.escape(str(values[0])).replace(r"\*", ".*").replace(r"\?", ".")
    pattern = re.compile(escaped, re.DOTALL)
    return np.array([bool(pattern.fullmatch(text)) for text in texts.tolist()], bool)


_TESTS: dict[str, Callable[[np.ndarray, Sequence[Value]], np.ndarray]] = {
    "=": lambda data, values: np.isin(data, np.array(values)),
    "~": _is_like,
    ">": lambda data, values: np.greater(data, values[0]),
    ">=": lambda data, values: np.greater_equal(data, values[0]),
    "<": lambda data, values: np.less(data, values[0]),
    "<=": lambda data, values: np.less_equal(data, values[0]),
}

_SIDES = {"=": (">=", "<="), ">": (">=",), ">=": (">=",), "<": ("<=",), "<=": ("<=",)}


@dataclass(frozen=True)
class Comparison:
    """One comparison of a value."""

    operator: str  # ``>``, ``>=``, ``<``, ``<=``, ``=``, ``!=``, ``~`` or ``!~``
    values: tuple[Value, ...]  # one value, or several for ``=`` and ``!=``: any of, none of

    def test(self, data: np.ndarray) -> np.ndarray:
        """Tell which values meet it."""
        met = _TESTS[self.operator.removeprefix("!")](data, self.values)
        return ~met if self.operator[0] == "!" else met

    def adql(self, column: str, tolerance: float) -> str | None:
        """Return it as ADQL, wider by a tolerance; `None` if no service could test it."""
        if tolerance:
            return self._wider(column, tolerance)
        operator = self.operator.removeprefix("!")
        if operator == "~":
            text = self._like(column)
        elif len(self.values) > 1:
            text = f"{column} IN ({', '.join(map(literal, self.values))})"
        else:
            text = f"{column} {operator} {literal(self.values[0])}"
        # Not every service reads <>.
        return f"NOT ({text})" if text and self.operator[0] == "!" else text

    def _like(self, column: str) -> str | None:
        pattern = str(self.values[0])
        if {"%", "_", "\\"}.intersection(pattern):
            return None
        return f"{column} LIKE {literal(pattern.replace('*', '%').replace('?', '_'))}"

    def _wider(self, column: str, tolerance: float) -> str | None:
        numbers = [float(value) for value in self.values]
        low, high = min(numbers), max(numbers)
        ends = {">=": low - tolerance * (1 + abs(low)), "<=": high + tolerance * (1 + abs(high))}
        sides = _SIDES.get(self.operator, ())
        return " AND ".join(f"{column} {side} {literal(ends[side])}" for side in sides) or None

    @property
    def is_written(self) -> bool:
        """Whether all of it can be written as ADQL."""
        return self.adql("t", 0.0) is not None


@dataclass(frozen=True)
class Group:
    """Comparisons of which all, or any, have to be met."""

    word: str  # ``AND`` or ``OR``
    parts: tuple[Comparison | Group, ...]  # two or more

    def test(self, data: np.ndarray) -> np.ndarray:
        """Tell which values meet it."""
        join = {"AND": np.logical_and, "OR": np.logical_or}[self.word]
        return join.reduce([part.test(data) for part in self.parts])

    def adql(self, column: str, tolerance: float) -> str | None:
        """Return it as ADQL: what of it a service can test; `None` if nothing can be."""
        texts = [part.adql(column, tolerance) for part in self.parts]
        written = list(filter(None, texts))
        if self.word == "AND":
            return " AND ".join(written) or None
        return f"({' OR '.join(written)})" if None not in texts else None

    @property
    def is_written(self) -> bool:
        """Whether all of it can be written as ADQL, and not only a part."""
        return all(part.is_written for part in self.parts)


@dataclass(frozen=True)
class Condition:
    """What the values of one column have to meet."""

    column: TractorColumn
    rule: Comparison | Group

    def test(self, data: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """Tell which values meet the condition."""
        if data.dtype.kind == "f":
            # As SQL compares: in double precision, whatever the column is stored in.
            data = data.astype(float)
        with np.errstate(invalid="ignore"):
            met = self.rule.test(data)
        # NaN alone differs from itself.
        met &= data == data
        return met if mask is None else met & ~mask

    def adql(self, column: str) -> str | None:
        """Return ADQL that every row meets which meets the condition; `None` if there is none."""
        if self.column.name.startswith("ls_id"):
            # Services pack that of DR11 in another way.
            return None
        text = self.rule.adql(column, TOLERANCE if self.column.inputs else 0.0)
        if text and self.column.is_text and self.rule.test(np.array([""]))[0]:
            return f"({text} OR {column} IS NULL)"
        return text

    @property
    def is_exact(self) -> bool:
        """Whether a service selects just the same rows by its ADQL."""
        # A service's NaN is above every number.
        is_number = self.column.dtype[0] == "f"
        return not is_number and self.adql("t") is not None and self.rule.is_written


def literal(value: object) -> str:
    """Return a number or a text as an ADQL literal."""
    if isinstance(value, (bool, np.bool_, int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)) and math.isfinite(value):
        return repr(float(value))
    if isinstance(value, str) and "\0" not in value:
        return "'" + value.replace("'", "''") + "'"
    refuse("value", value, "cannot be written into a query.")
