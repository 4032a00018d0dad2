"""Whole files as tables: every value as astropy reads it, with units and masks."""

import gzip

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import MaskedColumn

from astroquery_lis import LegacySurvey
from astroquery_lis.catalogs.catalog_files import open_table
from astroquery_lis.exceptions import (
    CoverageWarning,
    InvalidRequestError,
    TruncatedError,
    UnexpectedContentError,
)
from astroquery_lis.survey.paths import file_path

FILES = {
    "tractor": file_path("tractor", "dr10", "south", brick="0451p000"),
    "north": file_path("tractor", "dr9", "north", brick="1801p325"),
    "sweep": file_path("sweep", "dr10", "south", brick="sweep-045p000-050p005"),
    "photo-z": file_path("sweep-photo-z", "dr10", "south", brick="sweep-045p000-050p005"),
    "ccds": file_path("ccds-table", "dr10", "south", brick="0451p000"),
    "bricks": file_path("region-bricks", "dr10", "south"),
}


def read(path, **keywords):
    return LegacySurvey.read_catalogue(path, **keywords)


@pytest.mark.parametrize("kind", [*FILES])
def test_every_value_is_what_astropy_reads(sky, kind):
    path = sky.root / FILES[kind]
    table = read(path)
    expected = fits.getdata(path, 1)
    assert table.colnames == [name.lower() for name in expected.names]
    for name in expected.names:
        values, right = np.ma.getdata(table[name.lower()]), np.asarray(expected[name])
        if right.dtype.kind == "S":
            right = np.char.rstrip(right.astype(str))
        assert values.shape == right.shape
        assert values.dtype.isnative
        assert np.array_equal(values, right, equal_nan=right.dtype.kind == "f")


@pytest.mark.parametrize(
    ("kind", "units"),
    [
        ("tractor", {"flux_r": u.nmgy, "flux_ivar_r": u.nmgy**-2, "ra": u.deg, "type": None}),
        ("sweep", {"flux_r": u.nmgy, "pmra_ivar": (u.mas / u.yr) ** -2, "ref_epoch": u.yr}),
        ("ccds", {"exptime": u.s, "ra": u.deg, "ccdzpt": u.mag, "mjd_obs": u.day}),
        ("bricks", {"ra": u.deg, "dec2": u.deg, "brickname": None}),
    ],
)
def test_units_are_those_of_astropy(sky, kind, units):
    table = read(sky.root / FILES[kind])
    assert {name: table[name].unit for name in units} == units


def test_redshifts_that_there_are_not_are_masked(sky):
    path = sky.root / FILES["photo-z"]
    table, raw = read(path), fits.getdata(path, 1)
    lacking = raw["Z_SPEC"] == -99
    assert lacking.any()
    assert not lacking.all()
    assert (np.ma.getmaskarray(table["z_spec"]) == lacking).all()
    rows = read(sky.root / FILES["sweep"], columns="release,BRICKID objid")
    for name in rows.colnames:
        assert (rows[name] == table[name]).all()


@pytest.mark.parametrize("name", ["rows.fits.gz", "rows.fits", "rows"])
def test_packed_files_are_the_same_whatever_their_name(sky, tmp_path, name):
    path = sky.root / FILES["tractor"]
    (tmp_path / name).write_bytes(gzip.compress(path.read_bytes(), 1))
    table, packed = read(path), read(str(tmp_path / name))
    assert packed.colnames == table.colnames
    assert all(
        np.array_equal(packed[n], table[n], equal_nan=table[n].dtype.kind == "f")
        for n in table.colnames
    )


@pytest.mark.parametrize(("pack", "n_notes"), [(bytes, 1), (gzip.compress, 0)])
def test_a_note_is_kept_of_a_file_that_can_be_read_by_it(sky, tmp_path, pack, n_notes):
    path, notes = tmp_path / "rows.fits", tmp_path / "notes"
    notes.mkdir()
    path.write_bytes(pack((sky.root / FILES["tractor"]).read_bytes()))
    first, second = (open_table(path, notes) for _ in range(2))
    assert len([*notes.iterdir()]) == n_notes
    assert np.array_equal(first.positions, second.positions)


def written(path, *columns):
    keys = [
        fits.Column("BRICKID", "J", array=[1, 2, 3]),
        fits.Column("OBJID", "J", array=[1, 2, 3]),
    ]
    fits.BinTableHDU.from_columns([*keys, *columns]).writeto(path)
    return path


def test_what_the_file_marks_as_nothing_is_masked(tmp_path):
    path = written(
        tmp_path / "own.fits",
        fits.Column("class", "I", null=-1, array=np.array([5, -1, 7], np.int16)),
        fits.Column(
            "count",
            "J",
            bzero=1 << 31,
            null=-(1 << 31),
            array=np.array([0, 1, 4_000_000_000], np.uint32),
        ),
        fits.Column("score", "E", unit="mJy/beamlet", array=[1.0, np.nan, 3.0]),
        fits.Column("flux_r", "E", unit="nanomaggies", array=[1.0, 2.0, 3.0]),
        fits.Column("z_spec", "J", null=-1, array=np.array([0, -1, 2], np.int32)),
        fits.Column("z_phot_mean", "8A", array=["0.1", "-99", ""]),
        fits.Column("pair", "2I", null=9, array=np.array([[1, 9], [3, 4], [9, 9]], np.int16)),
    )
    table = read(path)
    assert table["class"].mask.tolist() == [False, True, False]
    assert table["count"].mask.tolist() == [True, False, False]
    assert table["count"][2] == 4_000_000_000
    assert table["z_spec"].mask.tolist() == [False, True, False]
    assert table["z_phot_mean"].tolist() == ["0.1", "-99", ""]
    assert table["pair"].mask.tolist() == [[False, True], [False, False], [True, True]]
    assert not isinstance(table["score"], MaskedColumn)
    assert np.isnan(table["score"][1])
    assert table["score"].unit is None
    assert table["score"].description == "mJy/beamlet"
    assert table["flux_r"].unit == u.nmgy


def test_columns_that_cannot_come_are_named(tmp_path):
    lists = np.array([np.arange(n) for n in (1, 2, 3)], object)
    path = written(
        tmp_path / "own.fits",
        fits.Column("bits", "8X", array=np.zeros((3, 8), bool)),
        fits.Column("lists", "PJ()", array=lists),
        fits.Column("after", "J", array=[7, 8, 9]),
    )
    with pytest.warns(CoverageWarning, match="bits, lists did not come"):
        table = read(path)
    assert table["after"].tolist() == [7, 8, 9]
    assert read(path, columns="after").colnames == ["after"]


def test_an_empty_table_has_its_columns(tmp_path):
    fits.BinTableHDU.from_columns(
        [fits.Column("ra", "D", array=[]), fits.Column("DEC", "D", array=[])]
    ).writeto(tmp_path / "none.fits")
    table = read(tmp_path / "none.fits")
    assert (len(table), table.colnames, table["dec"].unit) == (0, ["ra", "dec"], u.deg)


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_ends_early_is_no_shorter_table(sky, tmp_path, packed):
    data = (sky.root / FILES["tractor"]).read_bytes()
    data = gzip.compress(data, 1) if packed else data
    path = tmp_path / ("cut.fits.gz" if packed else "cut.fits")
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(TruncatedError):
        read(path)


def test_other_files_are_refused(sky, tmp_path):
    image = sky.root / file_path("image", "dr10", "south", brick="0451p000", band="r")
    page = tmp_path / "page.fits"
    page.write_text("<html>not found</html>")
    for path in (image, page):
        with pytest.raises(UnexpectedContentError):
            read(path)
    must = "no file on this computer"
    wrong = dict.fromkeys(
        (tmp_path, tmp_path / "none.fits", "https://example.org/a.fits", None), must
    )
    for path, match in (wrong | {5: "must be the path"}).items():
        with pytest.raises(InvalidRequestError, match=match) as caught:
            read(path)
        assert caught.value.parameter == "path"
    with pytest.raises(InvalidRequestError, match="did you mean flux_r"):
        read(sky.root / FILES["tractor"], columns=["ra", "flux_rr"])
    with pytest.raises(InvalidRequestError, match="must name columns"):
        read(sky.root / FILES["tractor"], columns=[])


def test_null_integers_of_own_columns_are_masked_in_a_query(sky, survey, tmp_path):
    path = sky.root / FILES["tractor"]
    target = tmp_path / FILES["tractor"]
    target.parent.mkdir(parents=True)
    with fits.open(path) as hdus:
        classes = np.arange(len(hdus[1].data), dtype=np.int16) % 3
        own = fits.ColDefs([fits.Column("my_class", "I", null=2, array=classes)])
        fits.BinTableHDU.from_columns(hdus[1].columns + own).writeto(target)
        place = SkyCoord(hdus[1].data["ra"][50], hdus[1].data["dec"][50], unit="deg")
        by_id = dict(zip(hdus[1].data["objid"].tolist(), classes.tolist(), strict=True))
    rows = survey.query_tractor(
        place, radius=20 * u.arcsec, columns=["objid", "my_class"], mirror=tmp_path
    )
    expected = [by_id[number] for number in rows["objid"].tolist()]
    assert rows["my_class"].mask.tolist() == [value == 2 for value in expected]
    assert 0 < rows["my_class"].mask.sum() < len(rows)
    assert rows["my_class"].tolist() == [None if v == 2 else v for v in expected]
