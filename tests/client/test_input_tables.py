"""Tables as people have them are read the same by every method and by the command line."""

import gzip
import io
import json
import sys
import warnings
from contextlib import nullcontext

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.io.votable import from_table
from astropy.table import Column, MaskedColumn, QTable, Table

from astroquery_lis.cli import main
from astroquery_lis.client.inputs import as_by_row, as_position, as_targets
from astroquery_lis.client.position_columns import Columns
from astroquery_lis.client.user_tables import as_table
from astroquery_lis.exceptions import CoverageWarning, InvalidRequestError, OptionalDependencyError

# The star, a place in the field beside it, and nowhere.
RA, DEC = np.array([45.1312, 45.09]), np.array([0.0047, 0.062])
PLACES = SkyCoord(RA, DEC, unit="deg")
HOURS = PLACES.ra.to_string("hour", sep=":", precision=6)
SPACED_HOURS = PLACES.ra.to_string("hour", sep=" ", precision=6)
DEGREES = PLACES.dec.to_string(sep=":", precision=5, alwayssign=True)
SPACED_DEGREES = PLACES.dec.to_string(sep=" ", precision=5, alwayssign=True)
LETTERS = PLACES.ra.to_string("hour", precision=6), PLACES.dec.to_string(precision=5)


def _columns(ra="ra", dec="dec", **more):
    return Table({ra: RA, dec: DEC, **more})


def _vizier(kind="str"):
    """As VizieR has it: sexagesimal text, with degrees beside it where asked."""
    table = Table({"RAJ2000": SPACED_HOURS, "DEJ2000": SPACED_DEGREES})
    table["RAJ2000"].unit, table["DEJ2000"].unit = '"h:m:s"', '"d:m:s"'
    if kind == "both":
        table["_RAJ2000"], table["_DEJ2000"] = Column(RA, unit="deg"), Column(DEC, unit="deg")
        table["RAJ2000"] = ["00 00 00"] * 2
    return table


def _ucd():
    table = Table({"x": RA, "y": DEC, "z": RA})
    table["x"].meta["ucd"], table["y"].meta["ucd"] = "pos.eq.ra;meta.main", "pos.eq.dec;meta.main"
    return table


with warnings.catch_warnings():
    # Of the units that VizieR writes.
    warnings.simplefilter("ignore")
    OBJECTS = {
        "SkyCoord": PLACES,
        "galactic": PLACES.galactic,
        "of shape (2, 1)": PLACES.reshape(2, 1),
        "list of SkyCoord": list(PLACES),
        "pairs": list(zip(RA, DEC, strict=True)),
        "array (n, 2)": np.column_stack([RA, DEC]),
        "texts": [f"{ra} {dec}" for ra, dec in zip(HOURS, DEGREES, strict=True)],
        "texts with commas": [f"{ra}, {dec}" for ra, dec in zip(RA, DEC, strict=True)],
        "designations": [
            f"J{place.to_string('hmsdms', sep='', precision=6).replace(' ', '')}"
            for place in PLACES
        ],
        "ra, dec": _columns(),
        "RA, DEC": _columns("RA", "DEC"),
        "TARGET_RA": _columns("TARGET_RA", "TARGET_DEC"),
        "mean_fiber_ra": _columns("mean_fiber_ra", "mean_fiber_dec"),
        "RA_fin": _columns("RA_fin", "DEC_fin"),
        "ra_deg": _columns("ra_deg", "dec_deg"),
        "RAdeg": _columns("RAdeg", "DEdeg"),
        "ALPHA_J2000": _columns("ALPHA_J2000", "DELTA_J2000"),
        "raMean": _columns("raMean", "decMean"),
        "_1": _columns("RA_1", "DEC_1"),
        "pandas": _columns("ra_x", "dec_x"),
        "RAJ2000": _columns("RAJ2000", "DEJ2000"),
        "RA_ICRS": _columns("RA_ICRS", "DE_ICRS"),
        "right ascension": _columns("Right_Ascension", "Declination"),
        "with errors": _columns(ra_err=RA, dec_err=DEC, pmra=RA, pmdec=DEC, e_RA=RA, e_DEC=DEC),
        "a target of DESI": _columns("TARGET_RA", "TARGET_DEC", FIBER_RA=DEC, FIBER_DEC=DEC),
        "VizieR, sexagesimal": _vizier(),
        "VizieR, both": _vizier("both"),
        "colons": Table({"ra": HOURS, "dec": DEGREES}),
        "letters": Table({"ra": LETTERS[0], "dec": LETTERS[1]}),
        "bytes": Table({"ra": HOURS.astype("S"), "dec": DEGREES.astype("S")}),
        "numbers as text": Table({"ra": RA.astype(str), "dec": DEC.astype(str)}),
        "unit degrees": Table({"ra": Column(RA, unit="degrees"), "dec": Column(DEC, unit="Deg")}),
        "hours": Table({"ra": Column(RA / 15, unit="h"), "dec": Column(DEC, unit="deg")}),
        "radians": QTable({"ra": PLACES.ra.to(u.rad), "dec": PLACES.dec.to(u.arcmin)}),
        "SkyCoord column": Table({"n": [1, 2], "anywhere": PLACES.galactic}),
        "UCD": _ucd(),
        "texts in a column": Table(
            {"coord": [f"{ra} {dec}" for ra, dec in zip(HOURS, DEGREES, strict=True)]}
        ),
        "dict": {"ra": RA, "dec": DEC},
        "dicts": [{"ra": ra, "dec": dec} for ra, dec in zip(RA, DEC, strict=True)],
        "structured": np.array(
            list(zip(RA, DEC, strict=True)), dtype=[("RA", "f8"), ("DEC", ">f8")]
        ),
        "FITS_rec": fits.BinTableHDU(_columns("RA", "DEC")).data,
        "HDU": fits.BinTableHDU(_columns("RA", "DEC")),
        "HDUs": fits.HDUList(
            [
                fits.PrimaryHDU(),
                fits.BinTableHDU(Table({"flux": [1.0]})),
                fits.BinTableHDU(_columns("RA", "DEC")),
            ]
        ),
        "VOTable": from_table(_vizier("both")).get_first_table(),
    }


def _lines(delimiter, *, header="ra{0}dec", first=""):
    rows = [f"{ra}{delimiter}{dec}" for ra, dec in zip(RA, DEC, strict=True)]
    return "\n".join([first + header.format(delimiter), *rows]) + "\n"


FILES = {
    "bom.csv": "\ufeff" + _lines(","),
    "semicolons.csv": _lines(";"),
    "commas.csv": _lines(";").replace(".", ","),
    "tabs.txt": _lines("\t"),
    "tabs.tsv": _lines("\t"),
    "spaces.txt": _lines(" "),
    "bars.csv": _lines("|"),
    "comments.csv": _lines(",", first="# from somewhere\n# on a day\n"),
    "header-in-comment.txt": "# made by hand\n" + _lines(" ", header="# RA DEC"),
    "no-header.dat": "\n".join(_lines(" ").splitlines()[1:]),
    "sexagesimal.csv": "ra,dec\n"
    + "\n".join(f"{ra},{dec}" for ra, dec in zip(HOURS, DEGREES, strict=True)),
    "sexagesimal-no-header.txt": "\n".join(
        f"{ra} {dec}" for ra, dec in zip(HOURS, DEGREES, strict=True)
    ),
    "vizier.tsv": '#INFO\n_RAJ2000\t_DEJ2000\tRAJ2000\ndeg\tdeg\t"h:m:s"\n---\t---\t---\n'
    + "\n".join(f"{ra}\t{dec}\t00 00 00" for ra, dec in zip(RA, DEC, strict=True)),
    "windows.csv": _lines(",").replace("\n", "\r\n"),
    "latin.csv": _lines(",", header="ra{0}dec{0}name").replace("\n45", ",caf\xe9\n45"),
}


def _written(folder, kind):
    """Return the name of a file with the table in one of the formats that astropy writes."""
    path = folder / f"table.{kind}"
    table = _vizier("both") if kind == "vot" else _columns("RA", "DEC")
    if kind == "parquet":
        from astroquery_lis.cli.console import table_bytes

        path.write_bytes(table_bytes(table, "parquet"))
    else:
        formats = {"vot": "votable", "ecsv": "ascii.ecsv", "fits.gz": "fits"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table.write(path, format=formats.get(kind, kind))
    return path


pytestmark = pytest.mark.usefixtures("names_of_the_sky")


def assert_everyone_reads(survey, value, folder):
    """Assert that each method takes the same two positions from a value."""
    targets = as_targets(value)
    there = SkyCoord(targets.ra_deg, targets.dec_deg, unit="deg")
    assert there.separation(PLACES).arcsec.max() < 1e-3
    size = {"size": 4, "bands": "r"}
    headers = [hdul[0].header for hdul in survey.get_cutouts(value, **size)]
    np.testing.assert_allclose([header["RA"] for header in headers], RA, atol=1e-6)
    folder = folder / "cutouts"
    manifest = survey.download_cutouts(value, **size, download_dir=folder, show_progress=False)
    assert manifest["Status"].tolist() == ["COMPLETE"] * 2
    matched = survey.crossmatch(value, radius="1 arcsec", columns=["ra", "type"])
    assert np.ma.getmaskarray(matched["separation"]).tolist() == [False, False]
    assert np.ravel(survey.covers(value)).tolist() == [True, True]
    urls = survey.get_brick_files(value, get_query_payload=True)["urls"]
    assert sorted({url.split("/")[-2] for url in urls}) == ["0451p000"]
    assert survey.query_bricks(value)["brickname"].tolist() == ["0451p000"]
    maps = survey.query_maps(value, "nexp", bands="r")
    np.testing.assert_allclose([maps["ra"], maps["dec"]], [RA, DEC], atol=1e-6)
    assert not np.ma.getmaskarray(maps["nexp_r"]).any()


def _assert_the_commands_read(sky, path, folder, capsys):
    """Assert that each command takes the same two positions from a file."""
    mirror = ("--mirror", str(sky.root), "--json")

    def rows_of(*words):
        capsys.readouterr()
        assert main([*words, *mirror]) == 0
        return json.loads(capsys.readouterr().out)["rows"]

    table = "--table", str(path)
    rows = rows_of("maps", *table, "--products", "nexp", "--bands", "r")
    there = [(row["ra"], row["dec"]) for row in rows]
    np.testing.assert_allclose(there, np.column_stack([RA, DEC]), atol=1e-6)
    assert [row["covered"] for row in rows_of("covers", *table)] == [True, True]
    rows = rows_of("crossmatch", str(path), "--radius", "1arcsec", "--columns", "type")
    assert all(row["separation"] < 1 for row in rows)
    words = ("--size", "4", "--bands", "r", "-d", str(folder / "by-command"))
    headers = [fits.getheader(row["Local Path"]) for row in rows_of("cutouts", str(path), *words)]
    np.testing.assert_allclose([header["RA"] for header in headers], RA, atol=1e-6)
    words = ("--products", "ccds-table", "-d", str(folder / "files"))
    (row,) = rows_of("files", *table, *words)
    assert "0451p000" in row["Local Path"]


@pytest.mark.parametrize("kind", OBJECTS)
def test_every_method_reads_the_same_from_an_object(survey, tmp_path, kind):
    assert_everyone_reads(survey, OBJECTS[kind], tmp_path)


def test_every_method_reads_the_same_from_a_pandas_frame(survey, tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"n": ["a", "b"], "RA": RA, "Dec": DEC}, index=[7, 9])
    assert_everyone_reads(survey, frame, tmp_path)
    assert as_position(frame.iloc[1]) == pytest.approx((RA[1], DEC[1]))


@pytest.mark.parametrize("kind", [*FILES, "fits", "fits.gz", "ecsv", "vot", "parquet"])
def test_every_method_and_the_command_read_the_same_from_a_file(
    sky, survey, tmp_path, capsys, monkeypatch, kind
):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    if kind in FILES:
        path = tmp_path / kind
        encoding = "latin-1" if kind.startswith("latin") else "utf-8"
        path.write_bytes(FILES[kind].encode(encoding))
    else:
        path = _written(tmp_path, kind)
    assert_everyone_reads(survey, path, tmp_path)
    assert as_targets(str(path)).ra_deg == pytest.approx(RA)
    capsys.readouterr()
    assert main(["bricks", "--table", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["brickname"] for row in document["rows"]] == ["0451p000"] * 2
    assert main(["url", "--table", str(path)]) == 0
    lines = capsys.readouterr().out.split()
    assert [float(line.partition("ra=")[2].partition("&")[0]) for line in lines] == (
        pytest.approx(RA, abs=1e-5)
    )
    _assert_the_commands_read(sky, path, tmp_path, capsys)


# ---- rows without a position --------------------------------------------------------------------

NOWHERE = {
    "NaN": Table({"ra": [*RA, np.nan], "dec": [*DEC, 0.0]}),
    "masked": Table({"ra": MaskedColumn([*RA, 1.0], mask=[0, 0, 1]), "dec": [*DEC, 0.0]}),
    "-9999": Table({"ra": [*RA, -9999.0], "dec": [*DEC, 0.0], "name": ["a", "b", "NGC 1"]}),
    "99": Table({"ra": [*RA, 99.0], "dec": [*DEC, 99.0]}),
    "empty text": Table({"ra": [*HOURS, ""], "dec": [*DEGREES, ""]}),
    "masked text": Table(
        {"ra": MaskedColumn([*HOURS, "x"], mask=[0, 0, 1]), "dec": [*DEGREES, "--"]}
    ),
    "SkyCoord": SkyCoord([*RA, np.nan], [*DEC, 0.0], unit="deg"),
    "array": np.array([[*RA, -9999], [*DEC, -9999]]).T,
    "a file": "ra,dec\n45.1312,0.0047\n45.09,0.062\n,\n",
    "an unknown name": Table({"name": ["45.1312 0.0047", "45.09 0.062", "Nobody 17"]}),
}


@pytest.mark.parametrize("kind", NOWHERE)
def test_a_row_without_a_position_leaves_the_others(sky, survey, tmp_path, kind):
    value = NOWHERE[kind]
    if isinstance(value, str):
        (tmp_path / "a.csv").write_text(value)
        value = tmp_path / "a.csv"
    ours = kind == "an unknown name"
    before = len(sky.requests)
    with pytest.warns(CoverageWarning) if ours else nullcontext():
        targets = as_targets(value)
    assert targets.placed.tolist() == [True, True, False]
    assert len(sky.requests) == before + ours  # No row that has no position is looked up.
    told = None if ours else "1 of 3 rows have no position on the sky"
    size = {"size": 4, "bands": "r"}
    with pytest.warns(CoverageWarning, match=told):
        cutouts = survey.get_cutouts(value, **size)
    assert [cutout is None for cutout in cutouts] == [False, False, True]
    with pytest.warns(CoverageWarning) if ours else nullcontext():
        folder = tmp_path / "out"
        manifest = survey.download_cutouts(value, **size, download_dir=folder, show_progress=False)
    assert manifest["Status"].tolist() == ["COMPLETE", "COMPLETE", "SKIPPED"]
    with pytest.warns(CoverageWarning) if ours else nullcontext():
        matched = survey.crossmatch(value, radius="1 arcsec", columns=["type"])
        yielded = dict(survey.iter_cutouts(value, **size))
    assert np.ma.getmaskarray(matched["separation"]).tolist() == [False, False, True]
    assert isinstance(yielded[2], InvalidRequestError)
    with pytest.warns(CoverageWarning, match=told):
        assert survey.query_bricks(value)["brickname"].tolist() == ["0451p000"]
    with pytest.warns(CoverageWarning, match=told):
        assert survey.covers(value).tolist() == [True, True, False]


# ---- names --------------------------------------------------------------------------------------


def test_names_are_looked_up_once_each(sky, survey):
    names = ["NGC 1", "star", "NGC 1", "", "star"] * 3
    sky.requests.clear()
    targets = as_targets(Table({"main_id": names}))
    assert len(sky.requests) == 2
    assert targets.placed.tolist() == [True, True, True, False, True] * 3
    assert targets.ra_deg[1] == pytest.approx(sky.positions["star"].ra.deg)
    named = Table({"x": ["NGC 1"], "name": ["Nobody 17"]})
    assert as_targets(named, Columns(name="x")).placed.all()
    with pytest.raises(InvalidRequestError, match="knows no 'Nobody 17'"):
        as_targets(named)
    with pytest.raises(InvalidRequestError, match="'Nobody 17', 'Nobody 18' are each neither"):
        as_targets(["NGC 1", "Nobody 17", "Nobody 18"])


# ---- what is ambiguous --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "readings"),
    [
        ("10 30 +2 30", ("10.5 hours", "10.5 degrees")),
        ("10.5 +02:00:00", ("10.5 hours", "10.5 degrees")),
        (Table({"RA_1": RA, "DEC_1": DEC, "RA_2": RA, "DEC_2": DEC}), ("'RA_1'", "'RA_2'")),
        (Table({"a": PLACES, "b": PLACES}), ("a, b", "ra=")),
        ((RA, DEC), ("two pairs", "RA and Dec of two")),
        (io.StringIO, ("must be a SkyCoord", "Table")),
    ],
)
def test_the_ambiguous_is_refused_with_both_readings(value, readings):
    with pytest.raises(InvalidRequestError) as caught:
        as_targets(value)
    assert all(reading in str(caught.value) for reading in readings)


@pytest.mark.parametrize(
    ("text", "readings"),
    [
        ("1 45.1 0.01\n2 45.2 0.02\n", ("RA and Dec", "number of the row")),
        ("10 00 00 +02 00 00\n", ("three parts", "six columns")),
    ],
)
def test_lines_that_may_be_two_things_are_refused(tmp_path, text, readings):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(InvalidRequestError) as caught:
        as_targets(tmp_path / "a.txt")
    assert all(reading in str(caught.value) for reading in readings)


BARS_IN_VALUES = {
    "a.tsv": "ra\tdec\tflags\n45.1\t0.01\tx\n45.2\t0.02\ta|b|c\n45.3\t0.03\ta|b|c\n",
    "first.tsv": "flags\tra\tdec\na|b|c\t45.1\t0.01\na|b|c\t45.2\t0.02\nx\t45.3\t0.03\n",
    "a.csv": "ra,dec,flags\n45.1,0.01,a|b|c\n45.2,0.02,x\n45.3,0.03,a|b|c\n",
    "spaces.txt": "ra dec flags\n45.1 0.01 a|b|c\n45.2 0.02 a|b|c\n45.3 0.03 x\n",
    "between.txt": "id flags ra dec\n1 x 45.1 0.01\n2 a|b|c 45.2 0.02\n3 a|b|c 45.3 0.03\n",
}


@pytest.mark.parametrize("name", BARS_IN_VALUES)
def test_bars_in_values_cost_no_rows(tmp_path, name):
    (tmp_path / name).write_text(BARS_IN_VALUES[name])
    targets = as_targets(tmp_path / name)
    assert targets.ra_deg == pytest.approx([45.1, 45.2, 45.3])
    assert targets.dec_deg == pytest.approx([0.01, 0.02, 0.03])


def test_a_table_between_bars_stands_in_text_that_is_none_of_it(tmp_path):
    rows = "45.1|0.01|a, b\n------\n45.2|0.02|c\n"
    (tmp_path / "ned.txt").write_text(f"Found, of all:\nname RA|dec|type\n{rows}2 rows\n")
    targets = as_targets(tmp_path / "ned.txt", Columns("name RA", "dec"))
    assert targets.ra_deg == pytest.approx([45.1, 45.2])


def test_columns_of_several_levels_have_the_names_that_are_not_empty():
    pandas = pytest.importorskip("pandas")
    values = np.column_stack([RA, DEC, RA, DEC])
    names = [("ra", ""), ("dec", ""), ("flux", "g"), ("flux", 0)]
    table = as_table(pandas.DataFrame(values, columns=pandas.MultiIndex.from_tuples(names)))
    assert table.colnames == ["ra", "dec", "flux_g", "flux_0"]
    mixed = pandas.DataFrame(values[:, :3])
    mixed.columns = pandas.Index(["ra", "dec", ("flux", "g")], tupleize_cols=False)
    assert as_table(mixed).colnames == ["ra", "dec", "flux_g"]


def test_a_table_of_polars_without_pyarrow_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    content = {"__module__": "polars.dataframe.frame", "__arrow_c_stream__": None}
    frame = type("DataFrame", (), content)()
    with pytest.raises(OptionalDependencyError, match=r"polars needs pyarrow: .*\[parquet\]'"):
        as_table(frame)


@pytest.mark.parametrize("name", ["collect", "compute"])
def test_a_table_whose_rows_are_not_there_yet_says_what_to_give(survey, name):
    lazy = type("LazyFrame", (), {name: None, "columns": ()})()
    with pytest.raises(InvalidRequestError, match=rf"give what \.{name}\(\) returns"):
        survey.covers(lazy)


def test_columns_are_named(survey):
    table = Table({"a": RA, "b": DEC, "c": PLACES[::-1], "RA_2": RA, "DEC_2": DEC})
    assert as_targets(table, Columns("a", "b")).ra_deg == pytest.approx(RA)
    assert as_targets(table, Columns("c")).ra_deg == pytest.approx(RA[::-1])
    assert as_targets(table, Columns("RA_2")).dec_deg == pytest.approx(DEC)
    with pytest.raises(InvalidRequestError, match="dec='d' is not a column"):
        survey.covers(table, ra="a", dec="d")
    with pytest.raises(InvalidRequestError, match="needs a table"):
        survey.covers(PLACES, ra="a")
    for column in (table["a"], np.array(RA), ["a"]):
        with pytest.raises(InvalidRequestError, match="is not a column of the table") as caught:
            survey.covers(table, ra=column, dec="b")
        assert caught.value.parameter == "ra"
    with pytest.raises(InvalidRequestError, match="Did you mean 'a'"):
        survey.covers(table, ra=table["a"], dec="b")


# ---- sizes --------------------------------------------------------------------------------------


def _of_rows(option):
    return [option.values[number] for number in option.of_row]


def test_sizes_of_rows():
    table = as_targets(Table({"ra": [1.0, 2, 3], "dec": [0.0, 0, 0], "npix": [8, 16, 32]}))
    table.table["r"] = Column([1.0, 2, 3], unit="arcsec")
    table.table["floats"] = [8.0, 16.0, 32.0]
    table.table["pairs"] = [(4.0, 8.0), (8.0, 16.5), (16.0, 32.0)]
    assert _of_rows(as_by_row("size", "pairs", table)) == [(4, 8), (8, 16.5), (16, 32)]
    assert [type(side) for side in _of_rows(as_by_row("size", "pairs", table))[0]] == [int, int]
    for size in (8, (8, 16), "4 arcsec", 4 * u.arcsec, [8, 16]):
        assert as_by_row("size", size, table) is None
    for size in ("npix", "floats", [8, 16, 32], np.array([8, 16, 32])):
        assert _of_rows(as_by_row("size", size, table)) == [8, 16, 32]
    assert _of_rows(as_by_row("size", [4, 8, 16] * u.arcsec, table)) == list([4, 8, 16] * u.arcsec)
    assert _of_rows(as_by_row("size", "r", table)) == list([1, 2, 3] * u.arcsec)
    with pytest.raises(InvalidRequestError, match="has 4 values; there are 3 targets"):
        as_by_row("size", [1, 2, 3, 4], table)
    with pytest.raises(InvalidRequestError, match="may be .ny, nx. or a size for each"):
        as_by_row("size", [64, 128], as_targets(PLACES))


@pytest.mark.parametrize(
    ("options", "sides"),
    [
        ({"size": "npix"}, [8, 16]),
        ({"size": Column([8, 16])}, [8, 16]),
        ({"size": lambda row: int(row["npix"]) // 2}, [4, 8]),
        ({"size": 12, "pixel_scale": "scale"}, [12, 12]),
        ({"size": "angle", "region": "region"}, [4, 8]),
        ({"size": (4, 6)}, [6, 6]),
        ({"size": np.array([(4.0, 6.0), (4.0, 8.0)])}, [6, 8]),
    ],
)
def test_one_cutout_after_the_other_takes_sizes_by_row(survey, tmp_path, options, sides):
    table = _columns(npix=[8, 16], scale=Column([0.5, 1.0], unit="arcsec"))
    table["angle"] = Column([4 * 0.262, 8 * 0.262], unit="arcsec")
    table["region"] = ["auto", "south"]
    options = {**options, "bands": "r"}
    cutouts = survey.get_cutouts(table, **options)
    assert [hdul[1].shape[1] for hdul in cutouts] == sides
    job = survey.download_cutouts(table, **options, download_dir=tmp_path, show_progress=False)
    for path, hdul in zip(job["Local Path"], cutouts, strict=True):
        with fits.open(path) as other:
            assert np.array_equal(other[1].data, hdul[1].data, equal_nan=True)
            assert other[0].header["REQKEY"] == hdul[0].header["REQKEY"]
    assert len(survey.get_image_list(table, **options)) == 1
    table.rename_columns(["ra", "dec"], ["x", "y"])
    assert len(survey.get_image_list(table, **options, ra="x", dec="y")) == 1


def test_a_size_that_no_row_can_have_is_refused_before_any_request(sky, survey):
    sky.requests.clear()
    with pytest.raises(InvalidRequestError, match="size"):
        survey.get_cutouts(_columns(), [8, -1][::-1] * u.pix, bands="r")
    for size in ("npix", [8, 0]):
        with pytest.raises(InvalidRequestError, match="size"):
            survey.get_cutouts(_columns(npix=[8, 0]), size, bands="r")
    assert len(sky.requests) == 0


@pytest.mark.parametrize("size", [{32}, {"ny": 8, "nx": 8}, {"ny": 8}, (n for n in (8, 16))])
def test_what_has_no_order_is_no_size(sky, survey, tmp_path, size):
    options = {"size": size, "bands": "r"}
    assert _refusal(survey.get_cutouts, _columns(), **options).parameter == "size"
    assert _refusal(survey.iter_cutouts, _columns(), **options).parameter == "size"
    options["download_dir"] = tmp_path
    assert _refusal(survey.download_cutouts, _columns(), **options).parameter == "size"
    assert len(sky.requests) == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("release", [{"dr10"}, {"dr10": 1}, (name for name in ("dr9", "dr10"))])
def test_what_has_no_order_is_no_release(sky, survey, tmp_path, release):
    for method, more in (
        (survey.get_cutouts, {}),
        (survey.iter_cutouts, {}),
        (survey.download_cutouts, {"download_dir": tmp_path}),
        (survey.download_psfs, {"download_dir": tmp_path}),
    ):
        assert _refusal(method, _columns(), release=release, **more).parameter == "release"
    assert len(sky.requests) == 0
    assert not list(tmp_path.iterdir())


# ---- columns of several values in each row -------------------------------------------------------


PARTS = {"RAh": [3, 3], "RAm": [0, 0], "RAs": [31.5, 21.6]}
PARTS |= {"DE-": ["+", "+"], "DEd": [0, 0], "DEm": [0, 3], "DEs": [16.9, 43.2]}


def _wide(values):
    return np.stack([values, values], axis=1)


def _beside(**columns):
    return Table({"ra": RA, "dec": DEC, **columns})


def _refusal(call, *args, **options):
    with pytest.raises(InvalidRequestError) as caught:
        call(*args, **options)
    return caught.value


@pytest.mark.parametrize(
    ("table", "name", "options"),
    [
        *((Table({**PARTS, name: _wide(PARTS[name])}), name, {}) for name in PARTS),
        (_beside(ra=_wide(RA)), "ra", {}),
        (_beside(dec=_wide(DEC)), "dec", {}),
        (_beside(ra=_wide(HOURS), dec=_wide(DEGREES)), "ra", {}),
        (_beside(ra=_wide(RA)[:, :1]), "ra", {"ra": "ra", "dec": "dec"}),
        (_beside(dec=_wide(DEGREES)), "dec", {"ra": "ra"}),
        (QTable({"ra": _wide(RA) * u.deg, "dec": DEC * u.deg}), "ra", {"dec": "dec"}),
        (Table({"place": SkyCoord(_wide(RA), _wide(DEC), unit="deg")}), "place", {}),
        (Table({"name": _wide(["0453p000", "0453p002"])}), "name", {}),
        (Table({"which": _wide(["0453p000", "0453p002"])}), "which", {"name": "which"}),
    ],
)
def test_positions_of_several_values_a_row_are_refused(sky, survey, tmp_path, table, name, options):
    for method, more in (
        (survey.get_cutouts, {}),
        (survey.covers, {}),
        (survey.crossmatch, {"radius": 1 * u.arcsec}),
        (survey.get_brick_files, {}),
        (survey.download_cutouts, {"download_dir": tmp_path}),
    ):
        message = str(_refusal(method, table, **more, **options))
        assert name in message
        assert f"shape {table[name].shape}" in message
    assert len(sky.requests) == 0
    assert not list(tmp_path.iterdir())


def test_columns_of_one_value_a_row_are_taken_beside_others():
    targets = as_targets(Table({"ra": _wide(RA), "dec": _wide(DEC), "RAJ2000": RA, "DEJ2000": DEC}))
    assert np.array_equal((targets.ra_deg, targets.dec_deg), (RA, DEC))


@pytest.mark.parametrize(
    "ids",
    [
        _wide([1, 2]),
        _wide(["a", "b"]),
        np.array(["a", ["b", "c"]], object),
        np.array(["a", [["b"], ["c", "d"]]], object),
        np.array(["a", {"b": 1}], object),
        PLACES,
    ],
)
def test_ids_that_are_no_words_or_numbers_are_refused(sky, survey, tmp_path, ids):
    error = _refusal(survey.download_cutouts, _columns(id=ids), download_dir=tmp_path)
    assert error.parameter == "id_column"
    assert (f"shape {ids.shape}" in str(error)) == (ids.ndim == 2)
    assert len(sky.requests) == 0


@pytest.mark.parametrize("brick", ["brickid", "brickname"])
def test_bricks_of_several_values_a_row_are_refused(sky, survey, brick):
    values = [338328, 338329] if brick == "brickid" else ["0453p000", "0453p002"]
    error = _refusal(survey.get_brick_files, Table({brick: _wide(values)}))
    assert error.parameter == "bricks_or_coordinates"
    assert "shape (2, 2)" in str(error)
    assert len(sky.requests) == 0


@pytest.mark.parametrize("option", ["size", "release", "region", "pixel_scale", "wcs", "rotation"])
def test_options_of_several_values_a_row_are_refused(sky, survey, option):
    table = _columns(here=np.ones((2, 3)))
    error = _refusal(survey.get_cutouts, table, **{option: "here"})
    assert error.parameter == option
    assert len(sky.requests) == 0


# ---- options of rows ----------------------------------------------------------------------------


def test_text_by_row_of_a_fits_table(sky, survey, tmp_path):
    table = _columns(tree=["dr9", "dr10 "], half=["north", "south"])
    table["ra"][0], table["dec"][0] = sky.positions["split"].ra.deg, sky.positions["split"].dec.deg
    table.write(tmp_path / "rows.fits")
    path = str(tmp_path / "rows.fits")
    for text in (["dr9", "dr10"], [b"dr9", b"dr10 "]):
        assert _of_rows(as_by_row("release", np.array(text), as_targets(PLACES))) == ["dr9", "dr10"]
    manifest = survey.download_cutouts(
        path, 8, bands="r", release="tree", region="half", download_dir=tmp_path / "out"
    )
    assert list(manifest["Status"]) == ["COMPLETE"] * 2, list(manifest["Message"])
    assert list(manifest["release"]) == ["dr9", "dr10"]
    assert list(manifest["region"]) == ["north", "south"]


def test_rows_without_a_position_need_no_option(survey, tmp_path):
    table = _columns(npix=[8, 16])
    table["ra"][0] = np.nan
    values = [np.ma.masked, 16]
    for size in (lambda row: 128 // (row["npix"] - 8), values, np.array(values, object)):
        with pytest.warns(CoverageWarning, match="no position"):
            cutouts = survey.get_cutouts(table, size, bands="r")
        assert cutouts[0] is None
        assert cutouts[1][1].shape == (16, 16)
    table["ra"] = np.nan
    for rows in (table, table[:0]):
        for size in ("npix", lambda row: row["npix"], np.full((len(rows), 2), 8)):
            with warnings.catch_warnings(action="ignore"):
                assert survey.get_cutouts(rows, size) == [None] * len(rows)
                manifest = survey.download_cutouts(
                    rows, size, download_dir=tmp_path / str(len(rows)), show_progress=False
                )
            assert list(manifest["Status"]) == ["SKIPPED"] * len(rows)


def test_values_by_row_of_any_kind():
    targets = as_targets(Table({"ra": [1.0, 2, 3], "dec": [0.0, 0, 0]}))
    pair = [4, 6] * u.arcsec
    for sizes in (
        [8, (4, 6), 9],
        [8 * u.pix, 9 * u.pix, 8 * u.pix],
        [4 * u.arcsec, 2 * u.arcmin, 4 * u.arcsec],
        ["4 arcsec", 8, "4 arcsec"],
        [True, 1, 1.0],
    ):
        values = _of_rows(as_by_row("size", sizes, targets))
        assert [(type(v), v) for v in values] == [(type(v), v) for v in sizes]
    for sizes in ([[4, 6]] * 3, np.array([[4, 6]] * 3), [np.array([4, 6])] * 3):
        assert _of_rows(as_by_row("size", sizes, targets)) == [(4, 6)] * 3
    assert _of_rows(as_by_row("size", [pair, pair, pair], targets)) == [tuple(pair)] * 3
    grids = [fits.Header({"CRVAL1": ra}) for ra in (1.0, 2.0, 1.0)]
    by_row = as_by_row("wcs", grids, targets)
    assert by_row.values == grids[:2]
    assert by_row.of_row.tolist() == [0, 1, 0]
    unhashable = [{"a": 1}, {"a": 2}, {"a": 1}]
    assert _of_rows(as_by_row("size", lambda row: unhashable[int(row["ra"]) - 1], targets)) == (
        unhashable
    )


@pytest.mark.parametrize("cut", [slice(0, -10), slice(0, 30)])
def test_a_packed_table_that_is_cut_says_so(tmp_path, cut):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"ra,dec\n" + b"1.5,2.5\n" * 50)[cut])
    with pytest.raises(InvalidRequestError, match=r"a\.csv\.gz' cannot be read"):
        as_targets(path)
    flipped = bytearray(gzip.compress(bytes(range(256)) * 20))
    flipped[40] ^= 255
    path.write_bytes(flipped)
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        as_targets(path)


def test_identifiers_are_read_as_text_and_none_is_missing():
    places = {"ra": RA, "dec": DEC}
    names = np.array(["caf\u00e9".encode(), b"b"])
    assert as_targets(Table({"id": names, **places})).ids.tolist() == ["café", "b"]
    mixed = Table({"id": np.array(["a", None], object), **places})
    with pytest.raises(InvalidRequestError, match="one integer or string for every row"):
        as_targets(mixed)
