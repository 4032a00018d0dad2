"""Columns, units and ids of the catalogue."""

import astropy.units as u
import numpy as np
import pytest

from astroquery_lis.exceptions import InvalidRequestError
from astroquery_lis.survey.catalog_request import catalog_request, resolve_columns
from astroquery_lis.survey.tractor import WHOLE_SKY, parse_unit, row_ids, split_row_ids
from astroquery_lis.survey.tractor_columns import core_columns, has_column, tractor_columns

MAS_PER_YR = u.mas / u.yr


def _names(columns):
    return tuple(column.name for column in columns)


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("nanomaggy", u.nmgy),
        ("nanomaggies", u.nmgy),
        ("1/nanomaggy^2", u.nmgy**-2),
        ("nanomaggies^(-2)", u.nmgy**-2),
        ("nanomaggy^-2", u.nmgy**-2),
        ("nanomaggy**-2", u.nmgy**-2),
        ("1/nanomaggies^2", u.nmgy**-2),
        ("1/deg^2", u.deg**-2),
        ("deg^(-2)", u.deg**-2),
        ("mas/yr", MAS_PER_YR),
        ("1/(mas/yr)^2", MAS_PER_YR**-2),
        ("(mas/yr)^(-2)", MAS_PER_YR**-2),
        ("mas^(-2)", u.mas**-2),
        ("arcsec^(-2)", u.arcsec**-2),
        ("arcsec^2", u.arcsec**2),
        ("magnitudes", u.mag),
        ("pix", u.pix),
        ("days", u.day),
        (" mag ", u.mag),
        ("", None),
        (None, None),
        ("counts of sheep", None),
        ("1/", None),
    ],
)
def test_every_spelling_is_a_unit_that_converts(text, unit):
    found = parse_unit(text)
    assert found == unit
    assert not isinstance(found, u.UnrecognizedUnit)
    if unit is not None and unit.is_equivalent(u.nmgy**-2):
        assert (4 * found).to_value(u.mgy**-2) == pytest.approx(4e18)


@pytest.mark.parametrize(
    ("release", "count"),
    # The catalogue pages list 181 and 207; ls_id is ours.
    [("dr9", 182), ("dr10", 208)],
)
def test_a_release_has_the_columns_that_its_page_lists(release, count):
    assert len(tractor_columns(release)) == count


@pytest.mark.parametrize(
    ("release", "name", "dtype", "length"),
    [
        ("dr9", "maskbits", "i2", 1),
        ("dr10", "maskbits", "i4", 1),
        ("dr8", "lc_flux_w1", "f4", 11),
        ("dr9", "lc_flux_w1", "f4", 15),
        ("dr10", "lc_flux_w1", "f4", 17),
        ("dr10", "apflux_i", "f4", 8),
        ("dr10", "apflux_w1", "f4", 5),
        ("dr8", "type", "U4", 1),
        ("dr10", "type", "U3", 1),
        ("dr10", "gaia_phot_g_n_obs", "i2", 1),
        ("dr11", "gaia_phot_g_n_obs", "i4", 1),
        ("dr8", "fracdev", "f4", 1),
    ],
)
def test_types_change_from_release_to_release(release, name, dtype, length):
    column = tractor_columns(release)[name]
    assert (column.dtype, column.length) == (dtype, length)


def test_the_core_is_what_the_tap_table_and_the_files_share():
    # 140 of the 187 columns of ls_dr9.tractor are in the files too, dchisq in five parts.
    core = _names(core_columns("dr9"))
    assert len(core) == 141
    assert {"ls_id", "flux_w4", "dchisq", "blob_nea_z"} <= set(core)
    assert not {"apflux_g", "lc_flux_w1", "flux_i"} & set(core)
    assert set(_names(core_columns("dr10"))) - set(core) == {
        name for name, c in tractor_columns("dr10").items() if c.band == "i" and c.in_tap
    }
    assert _names(core_columns("dr10", "north")) == core


def test_columns_and_families():
    assert _names(resolve_columns("flux", "dr9")) == tuple(
        f"flux_{b}" for b in ("g", "r", "z", "w1", "w2", "w3", "w4")
    )
    assert "flux_i" in _names(resolve_columns("flux", "dr10"))
    assert "flux_i" not in _names(resolve_columns("flux", "dr10", "north"))
    assert _names(resolve_columns("RA, dec ra", "dr10")) == ("ra", "dec")
    assert _names(resolve_columns(["dchisq"], "dr10")) == ("dchisq",)
    assert _names(resolve_columns(["fracdev"], "dr10")) == ("fracdev",)
    for bad, near in (("flux_rr", "flux_r"), ("psfdeph", "psfdepth")):
        with pytest.raises(InvalidRequestError, match=near) as caught:
            resolve_columns([bad], "dr10")
        assert caught.value.parameter == "columns"
    for bad in ([], 7, [7], ""):
        with pytest.raises(InvalidRequestError, match="columns"):
            resolve_columns(bad, "dr10")


def test_which_region_has_a_column():
    schema = tractor_columns("dr10")
    assert has_column(schema["flux_i"], "dr10", "south")
    assert not has_column(schema["flux_i"], "dr10", "north")
    assert not has_column(schema["ngood_g"], "dr10", "north")
    assert has_column(schema["flux_w1"], "dr10", "north")


def test_row_ids_pack_as_data_lab_and_legacypipe_do():
    # The first rows of a real answer for ls_dr9.tractor obey release << 40 | brickid << 16 | objid.
    assert int(row_ids(9010, 338328, 5, "dr9")) == 9010 * 2**40 + 338328 * 2**16 + 5
    assert int(row_ids(11000, 338328, 5, "dr11")) == 11000 * 2**42 + 338328 * 2**22 + 5
    rng = np.random.default_rng(0)
    numbers, bricks = rng.integers(8000, 12000, 100), rng.integers(1, 662175, 100)
    objects = rng.integers(0, 60000, 100)
    for release in ("dr9", "dr11"):
        packed = row_ids(numbers.astype(np.int16), bricks, objects, release)
        assert len(np.unique(packed)) == 100
        assert all(map(np.array_equal, split_row_ids(packed, release), (numbers, bricks, objects)))


def test_tap_tables():
    for release, region, table in (
        ("dr10", "auto", "ls_dr10.tractor"),
        ("dr10", "south", "ls_dr10.tractor_s"),
        ("dr10", "north", "ls_dr9.tractor_n"),
        ("dr7", "auto", None),
    ):
        assert catalog_request(WHOLE_SKY, release=release, region=region).tap_table == table
