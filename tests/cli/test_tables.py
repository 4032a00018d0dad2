"""Tables from files and pipes, and to them."""

import io

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn, QTable, Table

from astroquery_lis.cli.console import json_table, table_bytes
from astroquery_lis.client import user_tables
from astroquery_lis.exceptions import InvalidRequestError, OptionalDependencyError


def _example():
    table = Table({"ra": [45.1, 45.2], "dec": [-0.5, 0.25], "id": ["a", "b c"]})
    table["ra"].unit = table["dec"].unit = "deg"
    table["flux"] = MaskedColumn([1.5, 2.5], mask=[False, True], unit="nmgy")
    table.meta["adql"] = "SELECT *\nFROM t"
    table.meta["files"] = ["one", "two"]
    return table


@pytest.mark.parametrize("kind", user_tables.FORMATS)
@pytest.mark.parametrize("way", ["name", "format", "content"])
def test_what_is_written_can_be_read(tmp_path, monkeypatch, kind, way):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    example = _example()
    if kind == "text":
        example = example["ra", "dec"]
    data = table_bytes(example, kind)
    ending = {"text": "txt", "votable": "vot"}.get(kind, kind)
    path = tmp_path / (f"table.{ending}" if way == "name" else "table")
    path.write_bytes(data)
    if way == "content":
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        read = user_tables.read_table("-")
    else:
        read = user_tables.read_table(str(path), kind if way == "format" else None)
    assert read.colnames == example.colnames
    np.testing.assert_array_equal(read["ra"], example["ra"])
    if kind not in ("text", "csv"):
        assert read["ra"].unit == u.deg
        assert str(read["flux"].unit) in ("nmgy", "nanomaggy")
    if kind != "text":
        assert [str(name) for name in read["id"]] == ["a", "b c"]
        flux = np.ma.filled(np.ma.asarray(read["flux"], float), np.nan)
        np.testing.assert_array_equal(flux, [1.5, np.nan])


@pytest.mark.parametrize("compressed", [False, True])
def test_the_name_of_a_compressed_file(tmp_path, compressed):
    import gzip

    data = table_bytes(_example(), "csv")
    path = tmp_path / ("a.csv.gz" if compressed else "a.csv")
    path.write_bytes(gzip.compress(data) if compressed else data)
    assert user_tables.kind_of(str(path)) == "csv"
    assert len(user_tables.read_table(str(path))) == 2


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("1 2\n3 -4\n", ["ra", "dec"]),
        ("1,2\n3,-4\n", ["ra", "dec"]),
        ("# made by awk\n1 2 x\n3 -4 y\n", ["ra", "dec", "id"]),
        ("1 2 x 5\n3 -4 y 6\n", ["ra", "dec", "id", "col4"]),
        ("\n1  2\n\n3  -4", ["ra", "dec"]),
        ("ra dec\n1 2\n3 -4\n", ["ra", "dec"]),
        ("ra,dec\n1,2\n3,-4\n", ["ra", "dec"]),
        ("ra,dec,note\r\n1,2,a\r\n3,-4,b\r\n", ["ra", "dec", "note"]),
        ("\ufeffra,dec\n1,2\n3,-4\n", ["ra", "dec"]),
        ("1 2\n", ["ra", "dec"]),
    ],
)
def test_lines_of_positions(tmp_path, text, names):
    path = tmp_path / "positions"
    path.write_bytes(text.encode())
    table = user_tables.read_table(str(path))
    assert table.colnames == names
    assert table["dec"].tolist() == [2, -4][: len(table)]


@pytest.mark.parametrize(
    ("name", "data", "kind", "match"),
    [
        ("a.csv", b"", None, "is empty"),
        ("a.csv", b" \n ", None, "is empty"),
        ("a.csv", b"ra,dec\n", None, "has no rows"),
        ("a.fits", b"ra,dec\n1,2\n", None, "cannot be read as fits"),
        ("a.csv", b"ra,dec\n1,2,3,4\n", None, "cannot be read as csv"),
        ("a.ecsv", b"ra,dec\n1,2\n", None, "cannot be read as ecsv"),
        ("a", b"\xff\xfe\x00\x80 1\n", None, "cannot be read as text"),
        ("a.vot", b"<html>no</html>", None, "cannot be read as votable"),
        ("a.csv", b"ra,dec\n1,2\n", "xls", "format='xls' is not one of: ecsv, csv, fits"),
    ],
)
@pytest.mark.filterwarnings("ignore::Warning")
def test_what_is_no_table(tmp_path, name, data, kind, match):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InvalidRequestError, match=match):
        user_tables.read_table(str(path), kind)


def test_a_word_for_a_format_is_read_before_standard_input(monkeypatch):
    stream = io.BytesIO(b"ra,dec\n1,2\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(stream))
    with pytest.raises(InvalidRequestError, match="format='xls' is not one of"):
        user_tables.read_table("-", "xls")
    assert stream.tell() == 0


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InvalidRequestError, match=r"none\.csv' cannot be read: No such file"):
        user_tables.read_table(str(tmp_path / "none.csv"))
    with pytest.raises(InvalidRequestError, match="Is a directory"):
        user_tables.read_table(str(tmp_path))


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1....PAR1")
    with pytest.raises(OptionalDependencyError, match=r"\[parquet\]'"):
        user_tables.read_table(str(tmp_path / "a.parquet"))
    with pytest.raises(OptionalDependencyError, match=r"\[parquet\]'"):
        table_bytes(_example(), "parquet")


def test_parquet_of_astropy_and_of_others():
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    stream = io.BytesIO()
    table = pyarrow.table(
        {
            "ra": [1.5, 2.5],
            "n": pyarrow.array([1, None]),
            "kind": pyarrow.array(["a", None]).dictionary_encode(),
            "apflux": [[1.0, 2.0], [3.0, 4.0]],
            "good": [True, None],
        }
    )
    header = "{datatype: [{name: ra, datatype: float64, unit: hourangle}]}"
    table = table.replace_schema_metadata({"table_meta_yaml": header})
    parquet.write_table(table, stream)
    read = user_tables.read_parquet(stream.getvalue())
    assert read["ra"].unit == u.hourangle
    assert read["n"].tolist() == [1, None]
    assert read["n"].dtype.kind == "i"
    assert read["kind"].tolist() == ["a", None]
    assert read["apflux"].shape == (2, 2)
    assert read["good"].tolist() == [True, None]
    assert parquet.read_table(io.BytesIO(table_bytes(read, "parquet"))).num_rows == 2


def test_a_format_that_cannot_hold_the_table():
    table = Table({"a": np.zeros((2, 3, 4))})
    with pytest.raises(InvalidRequestError, match="format 'csv' cannot hold this table"):
        table_bytes(table, "csv")


def test_csv_has_a_column_for_each_of_several_values():
    table = Table({"id": [1, 2], "dchisq": [[1.0, 2.0], [3.0, 4.0]]})
    assert table_bytes(table, "csv") == b"id,dchisq_1,dchisq_2\n1,1.0,2.0\n2,3.0,4.0\n"


def test_a_sky_column_goes_through_ecsv_and_json(tmp_path):
    table = QTable({"place": SkyCoord([1, 2], [3, -4], unit="deg"), "r": [1, 2] * u.arcsec})
    path = tmp_path / "a.ecsv"
    path.write_bytes(table_bytes(table, "ecsv"))
    read = user_tables.read_table(str(path))
    assert read["place"].dec.deg.tolist() == [3, -4]
    assert json_table(table)["rows"][1] == {"place": "2.00000000 -4.00000000", "r": 2.0}
