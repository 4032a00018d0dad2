"""The columns of the Tractor catalogues: types, units, bands, and who has them.

From the releases' catalogue pages (DR8 to DR11), the files themselves and the columns that Astro
Data Lab serves.  Units are given even where the survey writes none into its files.

Magnitudes, errors and colours are computed here from what every source has, so that they are the
same from each.  Astro Data Lab's table holds some of them, rounded; there they serve to ask for
fewer rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from types import MappingProxyType

import numpy as np
from astropy import units as u

from . import photometry
from .releases import RELEASES, get_release, get_tree

__all__ = [
    "NO_REDSHIFT",
    "OPTICAL_BANDS",
    "REDSHIFTS",
    "ROW_KEY",
    "WISE_BANDS",
    "TractorColumn",
    "any_column",
    "compute",
    "computed_columns",
    "core_columns",
    "has_column",
    "redshift_columns",
    "tractor_columns",
]

OPTICAL_BANDS = ("g", "r", "i", "z")
WISE_BANDS = ("w1", "w2", "w3", "w4")

ROW_KEY = ("release", "brickid", "objid")
"""What a row is known by."""

NO_REDSHIFT = -99.0
"""What the tables of redshifts hold for none."""

_STATISTICS = ("mean", "median", "std", "l68", "u68", "l95", "u95")
# From DR10 on there is a second set, of fits with the i band.
_PHOT = tuple(f"z_phot_{name}{end}" for end in ("", "_i") for name in _STATISTICS)

REDSHIFTS = frozenset((*_PHOT, "z_spec", "survey"))
"""The columns that lie beside the catalogue, in tables of photometric redshifts."""

_UNITS = {
    "-": None,
    "deg": u.deg,
    "1/deg2": u.deg**-2,
    "pix": u.pix,
    "mag": u.mag,
    "day": u.day,
    "yr": u.yr,
    "mas": u.mas,
    "1/mas2": u.mas**-2,
    "mas/yr": u.mas / u.yr,
    "(mas/yr)-2": (u.mas / u.yr) ** -2,
    "nmgy": u.nmgy,
    "1/nmgy2": u.nmgy**-2,
    "arcsec": u.arcsec,
    "arcsec2": u.arcsec**2,
    "1/arcsec2": u.arcsec**-2,
}

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
pmra_ivar f4 (mas/yr)-2 from8
pmdec_ivar f4 (mas/yr)-2 from8
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

    @property
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
    first = max((int(m[4:]) for m in marks if m.startswith("from")), default=5)
    last = min((int(m[2:]) for m in marks if m.startswith("to")), default=99)
    if not first <= number <= last:
        return
    changes = [mark[1:].split(":") for mark in marks if mark.startswith("@")]
    kind = [kind, *(changed for since, changed in changes if number >= int(since))][-1]
    dtype = kind.lstrip("0123456789")
    length = int(kind.removesuffix(dtype) or 1)
    inputs = ROW_KEY if family == "ls_id" else ()
    for band in _bands(marks, optical):
        name = family if band is None else f"{family}_{band}"
        in_tap = "files" not in marks
        yield TractorColumn(name, dtype, length, _UNITS[unit], family, band, in_tap, inputs)


def _bands(marks: list[str], optical: tuple[str, ...]) -> list[str] | list[None]:
    """Return the bands that a line of the table stands for."""
    bands = [band for band in OPTICAL_BANDS if "o" in marks and band in optical]
    bands += [b for b in WISE_BANDS if "w" in marks or ("v" in marks and b in ("w1", "w2"))]
    return bands or [None]


@cache
def redshift_columns(release: str) -> dict[str, TractorColumn]:
    """Return the columns beside the catalogue that a release has at Astro Data Lab, by name."""
    number = get_release(release).number
    if number < 9:
        return {}
    names = [n for n in (*_PHOT, "z_spec") if number >= 10 or not n.endswith("_i")]
    columns = [
        TractorColumn(name, "f4", 1, None, "z_phot" if name in _PHOT else name, None, True)
        for name in names
    ]
    columns.append(TractorColumn("survey", "U10", 1, None, "survey", None, True))
    return {column.name: column for column in columns}


def has_column(column: TractorColumn, release: str, region: str) -> bool:
    """Tell whether the files of a region have a column, or what it is computed from."""
    if column.inputs:
        schema = tractor_columns(release)
        return all(n in schema and has_column(schema[n], release, region) for n in column.inputs)
    tree = get_tree(release, region)
    optical = column.band is not None and not column.band.startswith("w")
    if optical and column.band not in tree.bands:
        return False
    columns = redshift_columns if column.name in REDSHIFTS else tractor_columns
    return column.name in columns(tree.release)


@cache
def core_columns(release: str, region: str = "auto") -> tuple[TractorColumn, ...]:
    """Return the columns that every source has: what ``columns=None`` stands for."""
    return tuple(
        column
        for column in tractor_columns(release).values()
        if column.in_tap and (region == "auto" or has_column(column, release, region))
    )


# ---- columns that are computed -------------------------------------------------------------------

Arrays = Sequence[np.ndarray]

_TAP_COLOURS = {"g_r", "r_i", "i_z", "r_z", "z_w1", "w1_w2", "w2_w3", "w3_w4"}


def _magnitudes(flux: np.ndarray) -> np.ndarray:
    return photometry.ab_magnitude(flux).value


def _error(flux: np.ndarray, flux_ivar: np.ndarray) -> np.ndarray:
    return photometry.ab_magnitude(flux, flux_ivar)[1].value


def _dereddened(flux: np.ndarray, transmission: np.ndarray) -> np.ndarray:
    return photometry.deredden(flux, transmission).value


# Family: the families that it is made of, how, its unit, and whether Data Lab's table has it.
_RECIPES: dict[str, tuple[tuple[str, ...], Callable[..., np.ndarray], u.UnitBase | None, bool]] = {
    "mag": (("flux",), _magnitudes, u.mag, True),
    "mag_err": (("flux", "flux_ivar"), _error, u.mag, False),
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
    columns += [
        _error_of(column)
        for column in schema.values()
        if "_ivar" in column.name and column.length == 1
    ]
    return {column.name: column for column in columns}


def _error_of(column: TractorColumn) -> TractorColumn:
    """Return the column of the errors that a column of inverse variances means."""
    name, family = (text.replace("_ivar", "_err") for text in (column.name, column.family))
    unit = None if column.unit is None else column.unit**-0.5
    return TractorColumn(name, "f4", 1, unit, family, column.band, False, (column.name,))


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
