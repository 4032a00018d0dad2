"""Tables as services, other programs and libraries write them: each is read as it is meant."""

import gzip
import io
import warnings

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Column, QTable, Table
from astropy.utils.masked import Masked

from astroquery_lis.client.inputs import as_targets
from astroquery_lis.exceptions import InvalidRequestError

from .test_input_tables import (
    DEC,
    DEGREES,
    HOURS,
    PLACES,
    RA,
    SPACED_DEGREES,
    SPACED_HOURS,
    assert_everyone_reads,
)

pytestmark = pytest.mark.usefixtures("names_of_the_sky")

PAIRS = list(zip(RA, DEC, strict=True))
SPACED = list(zip(SPACED_HOURS, SPACED_DEGREES, strict=True))
PARTS = [f"{hours} {degrees}" for hours, degrees in zip(SPACED_HOURS, SPACED_DEGREES, strict=True)]


def _rows(form, pairs=PAIRS):
    return "".join(form.format(n=n, ra=ra, dec=dec) + "\n" for n, (ra, dec) in enumerate(pairs))


def _as_astropy_writes(form, table=None, **options):
    stream = io.StringIO()
    table = Table({"ra": RA, "dec": DEC, "n": ["a", "b"]}) if table is None else table
    table.write(stream, format=form, **options)
    return stream.getvalue()


TEXTS = {
    # The file as VizieR sends it: a header in comments, units, dashes, an empty line at the end.
    "vizier.tsv": "#\n#   VizieR Astronomical Server\n#Table\tI_355_gaiadr3:\n"
    "#Column\tRA_ICRS\t(F15.11)\tRight ascension\t[ucd=pos.eq.ra;meta.main]\n"
    "_r\t_RAJ2000\t_DEJ2000\tRA_ICRS\tDE_ICRS\tSource\narcmin\tdeg\tdeg\tdeg\tdeg\t \n"
    "------\t------\t------\t------\t------\t------\n"
    + _rows("0.1\t{ra}\t{dec:+}\t{ra}\t{dec:+}\t1234567890123456789")
    + "\n",
    "vizier.csv": "#\n_RAJ2000;_DEJ2000;Name\ndeg;deg; \n------;------;----\n"
    + _rows("{ra};{dec};A {n}"),
    "vizier-radians.tsv": "RAJ2000\tDEJ2000\nrad\trad\n-----\t-----\n"
    + _rows("{ra:.12f}\t{dec:.12f}", [tuple(np.radians(pair)) for pair in PAIRS]),
    "casjobs.csv": "#Table1\nobjid,ra,dec,z\n" + _rows("1237{n},{ra},{dec},0.1"),
    "hsc.csv": "# object_id,ra,dec,tract\n# rerun: pdr3_wide\n" + _rows("403{n},{ra},{dec},9812"),
    "ned.txt": "NASA/IPAC Extragalactic Database\nOutput of Saturday\n\nMain Information Table\n"
    "No.|Object Name|RA|DEC|Type|Velocity\n" + _rows("{n}|NGC {n}|{ra}|{dec}|G|1234"),
    "simbad.txt": "C.D.S.  -  SIMBAD4 rel 1.8\n\ncoord 45.1 0.0 (ICRS, J2000), radius: 2 arcmin\n"
    "Number of objects : 2\n\n#|dist(asec)|  identifier |typ|    coord1 (ICRS,J2000/2000)     |\n"
    "-|----------|-------------|---|---------------------------------|\n"
    + _rows("{n}|      1.20|2MASS J030{n}|*  |{ra} {dec}|", SPACED)
    + "====================\n",
    "irsa.tbl": _as_astropy_writes(
        "ascii.ipac", Table({"ra": Column(RA, unit="deg"), "dec": DEC, "w1mpro": [12.1, 13.2]})
    ),
    "aas.txt": _as_astropy_writes("ascii.mrt", Table({"Name": ["a", "b"], "at": PLACES})),
    "cds.csv": "RAh,RAm,RAs,DE-,DEd,DEm,DEs\n"
    + "".join(f"{h.replace(' ', ',')},{d[0]},{d[1:].replace(' ', ',')}\n" for h, d in SPACED),
    "sextractor.cat": "#   1 NUMBER       Running object number\n"
    "#   2 ALPHA_J2000  Right ascension of barycenter (J2000)  [deg]\n"
    "#   3 DELTA_J2000  Declination of barycenter (J2000)      [deg]\n"
    + _rows("{n:10d} {ra:12.7f} {dec:+12.7f}"),
    "topcat.txt": "# ra   dec   name\n" + _rows('  {ra}  {dec}  "a b"'),
    "comments-at-the-end.csv": "ra,dec\n" + _rows("{ra},{dec}") + "# 2 rows\n# end\n",
    "empty-lines.csv": "\n\nra,dec\n\n" + _rows("{ra},{dec}\n"),
    "index.csv": ",ra,dec\n" + _rows("{n},{ra},{dec}"),
    "brackets.csv": "ID,RA[deg],DEC[deg]\n" + _rows("{n},{ra},{dec}"),
    "quoted.csv": '"ID","RA (J2000)","Dec (J2000)"\n' + _rows('"a, {n}",{ra},{dec}'),
    "units.csv": "ra,dec,z\ndeg,deg,\n" + _rows("{ra},{dec},1"),
    "units.txt": "ra dec\nhms dms\n" + _rows("{ra} {dec}", zip(HOURS, DEGREES, strict=True)),
    "hours.csv": "ra,dec\nhours,deg\n" + _rows("{ra:.10f},{dec}", zip(RA / 15, DEC, strict=True)),
    "decimal-commas.tsv": "ra\tdec\n" + _rows("{ra}\t{dec}").replace(".", ","),
    "markdown.txt": "| name | ra | dec |\n|:-----|---:|----:|\n" + _rows("| a{n} | {ra} | {dec} |"),
    "fixed-width.txt": _as_astropy_writes("ascii.fixed_width"),
    "two-lines.txt": _as_astropy_writes("ascii.fixed_width_two_line"),
    "commented.txt": _as_astropy_writes("ascii.commented_header"),
    "names-and-places.txt": "name\nstar\n45.09 0.062\n",
}


def _gaia(path):
    table = Table({"SOURCE_ID": [1, 2], "ra": RA, "ra_error": RA, "dec": DEC, "dec_error": DEC})
    table.add_columns([RA, DEC, DEC], names=["pmra", "pmdec", "ecl_lon"])
    path.write_bytes(gzip.compress(_as_astropy_writes("ascii.ecsv", table, delimiter=",").encode()))


def _zcat(path):
    """Write a table as of DESI's redshifts: with other positions, and with vectors."""
    table = Table({"TARGETID": [1, 2], "COEFF": np.zeros((2, 10)), "FIBER_RA": DEC})
    table.add_columns([RA, DEC, DEC], names=["TARGET_RA", "TARGET_DEC", "FIBER_DEC"])
    table.write(path, format="fits")


def _topcat(path, ucds=("pos.eq.ra;meta.main", "pos.eq.dec;meta.main", "meta.id")):
    hdu = fits.BinTableHDU(Table({"x": RA, "y": DEC, "ra": ["a", "b"]}))
    for number, ucd in enumerate(ucds, start=1):
        hdu.header[f"TUCD{number}"] = ucd
    fits.HDUList([fits.PrimaryHDU(np.zeros(9)), hdu]).writeto(path)


def _votable(path):
    table = Table({"ra": Column(RA, unit="deg"), "dec": Column(DEC, unit="deg")})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table.write(path.with_suffix(""), format="votable")
    path.write_bytes(gzip.compress(path.with_suffix("").read_bytes()))


def _frame():
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame({"ra": RA, "dec": DEC, "name": ["a", "b"], "k": [1, 2]})


def _indexed(*names, **more):
    def write(path):
        pytest.importorskip("pyarrow")
        _frame().assign(**more).set_index(list(names)).to_parquet(path)

    return write


FILES = {
    "gaia.ecsv.gz": _gaia,
    "zcat.fits": _zcat,
    "topcat.fits": _topcat,
    "old-ucds.fits": lambda path: _topcat(path, ("POS_EQ_RA_MAIN", "POS_EQ_DEC_MAIN")),
    "gaia.vot.gz": _votable,
    "index-of-one.parquet": _indexed("name"),
    "index-of-two.parquet": _indexed("ra", "dec"),
    "lists.parquet": _indexed("k", some=[[1, 2], [3]]),
    "pandas.csv.gz": lambda path: _frame().to_csv(path),
}


@pytest.mark.parametrize("kind", [*TEXTS, *FILES])
def test_every_method_reads_a_file(survey, tmp_path, kind):
    path = tmp_path / kind
    if kind in TEXTS:
        path.write_text(TEXTS[kind])
    else:
        FILES[kind](path)
    assert_everyone_reads(survey, path, tmp_path)


class Interchange:
    """A table of some library that hands its rows to others as Arrow's interchange says."""

    def __arrow_c_stream__(self, requested_schema=None):
        pyarrow = pytest.importorskip("pyarrow")
        return pyarrow.Table.from_pandas(_frame()).__arrow_c_stream__(requested_schema)


OBJECTS = {
    "names": lambda: Table({"object": ["star", " NGC 1 "]}),
    "names and places": lambda: ["star", PLACES[1]],
    "masked coordinates": lambda: Table({"at": SkyCoord(Masked(RA) * u.deg, Masked(DEC) * u.deg)}),
    "masked quantities": lambda: QTable({"ra": Masked(RA) * u.deg, "dec": Masked(DEC) * u.deg}),
    "objects": lambda: Table(
        {"ra": Column(list(RA), dtype=object), "dec": Column(list(DEC), dtype=object)}
    ),
    "radians": lambda: Table({"ra_rad": np.radians(RA), "dec_rad": np.radians(DEC)}),
    "the index has a name": lambda: _frame().set_index("name"),
    "the index has two": lambda: _frame().set_index(["ra", "dec"]),
    "the index is a column too": lambda: _frame().set_index("k", drop=False),
    "columns of two levels": lambda: pytest.importorskip("pandas").concat({"a": _frame()}, axis=1),
    "nullable": lambda: _frame().convert_dtypes(),
    "object": lambda: _frame().astype(object),
    "records": lambda: _frame().to_records(),
    "named tuples": lambda: list(_frame().itertuples()),
    "of arrow": lambda: pytest.importorskip("pyarrow").Table.from_pandas(_frame()),
    "a batch of arrow": lambda: pytest.importorskip("pyarrow").RecordBatch.from_pandas(_frame()),
    "by arrow's interchange": lambda: Interchange(),
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_every_method_reads_an_object(survey, tmp_path, kind):
    assert_everyone_reads(survey, OBJECTS[kind](), tmp_path)


def test_series_and_units_keep_what_they_mean(tmp_path):
    frame = _frame()
    three = frame.loc[[0, 1, 0]]
    assert as_targets((three["ra"], three["dec"])).ra_deg.tolist() == [*RA, RA[0]]
    path = tmp_path / "vizier.tsv"
    path.write_text("ra\tdec\tVmag\ndeg\tdeg\tmag\n---\t---\t---\n45.1\t0.01\t12.5\n")
    assert as_targets(path).table["Vmag"].unit == u.mag


def test_parts_of_positions_are_those_that_astropy_writes(tmp_path):
    # What astropy 8 writes of declinations from -1 to 0 has lost its sign.
    places = SkyCoord([10.0, 200.5, 359.99], [-1.004, -60.7, 89.99], unit="deg")
    path = tmp_path / "aas.txt"
    path.write_text(_as_astropy_writes("ascii.mrt", Table({"at": places})))
    targets = as_targets(path)
    there = SkyCoord(targets.ra_deg, targets.dec_deg, unit="deg")
    assert there.separation(places).arcsec.max() < 1e-6
    table = Table({"RAh": [1, 2], "RAm": [0, 0], "RAs": [0.0, 0], "DEd": ["-00", "1"]})
    table.add_columns([[30, 0], [0.0, 0]], names=["DEm", "DEs"])
    assert as_targets(table).dec_deg.tolist() == [-0.5, 1.0]
    signed = Table({**table, "DEd": [0, 1], "DE-": ["-", "+"]})
    assert as_targets(signed).dec_deg.tolist() == [-0.5, 1.0]
    table["DEd"] = [0, 1]
    with pytest.raises(InvalidRequestError, match="sign is lost"):
        as_targets(table)
    table["DEd"], table["DEm"] = [1, 1], [75, 0]
    with pytest.raises(InvalidRequestError, match="beyond 60"):
        as_targets(table)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("ra,dec\n45,1312,0,0047\n", "has 4 fields for 2 columns; write numbers with points"),
        ("45,09,0,06\n45,10,0,07\n", "two numbers with decimal commas, or four"),
    ],
)
def test_decimal_commas_between_commas_are_refused(tmp_path, text, hint):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(InvalidRequestError, match=hint):
        as_targets(path)


def test_no_rows_are_no_targets(survey, sky):
    sky.requests.clear()
    for value in (Table({"ra": [], "dec": []}), _frame().iloc[:0], []):
        assert len(as_targets(value)) == 0
        assert survey.get_cutouts(value) == []
        assert len(survey.covers(value)) == 0
    with pytest.raises(InvalidRequestError, match="no columns of RA and Dec"):
        as_targets(Table())
    assert len(sky.requests) == 0
