"""What services and files send, brought to one schema: the conventions that the facts tell of."""

import pickle

import astropy.units as u
import numpy as np
import pytest
from astropy.table import Column, MaskedColumn, Table, vstack

from astroquery_lis.catalogs.catalog_files import brick_files
from astroquery_lis.catalogs.catalog_services import catalog_query, chunk_of
from astroquery_lis.catalogs.catalog_table import Chunk, assemble
from astroquery_lis.survey.bricks import parse_brick_name
from astroquery_lis.survey.catalog_request import catalog_request
from astroquery_lis.survey.sphere import Circle
from astroquery_lis.survey.tractor import northern_rows

HERE = Circle(180.0, 40.0, 0.1)


def _answer(**columns):
    n = len(next(iter(columns.values())))
    rows = {
        "ra": np.full(n, 180.0),
        "dec": 40 + np.arange(n) * 1e-4,
        "release": np.full(n, 9011),
        "brickid": np.full(n, 500000, np.int32),
        "objid": np.arange(n, dtype=np.int32),
        "brick_primary": np.ones(n, np.int16),
        "type": np.full(n, "PSF", object),
    }
    return Table({**rows, **columns})


def test_what_data_lab_holds_for_nothing_is_masked():
    table = _answer(
        flux_i=[-9999.0, 3.0, -9999.0],
        nobs_i=np.array([-9999, 2, 0], np.int16),
        maskbits=MaskedColumn([1, 2, 3], mask=[0, 1, 0]),
        flux_r=MaskedColumn([1.0, 2.0, 3.0], mask=[0, 1, 0], dtype="f4"),
        ref_cat=np.array(["G3 ", None, b"L3"], object),
        gaia_duplicated_source=np.array([0, 1, 1], np.int16),
    )
    table["release"] = [9011, 10000, 10000]
    names = ["flux_i", "nobs_i", "maskbits", "flux_r", "ref_cat", "gaia_duplicated_source"]
    request = catalog_request(HERE, columns=names)
    answer = assemble(request, [chunk_of(table, request)])
    rows = answer.table
    # The first row is of the north, which has no i; the last has -9999 in the south.
    assert list(rows["flux_i"].mask) == [True, False, True]
    assert list(rows["nobs_i"].mask) == [True, False, False]
    assert list(rows["maskbits"].mask) == [False, True, False]
    # A missing float that the region does have is NaN, as in the files.
    assert not np.ma.is_masked(rows["flux_r"])
    assert np.isnan(rows["flux_r"][1])
    assert list(rows["ref_cat"]) == ["G3", "", "L3"]
    assert rows["gaia_duplicated_source"].dtype == bool
    assert rows["nobs_i"].dtype == np.int16
    assert answer.lacking == ["flux_i", "nobs_i", "maskbits"]
    for name in rows.colnames:
        assert not np.any(np.ma.getdata(rows[name]) == -9999) if rows[name].dtype != bool else True


@pytest.mark.parametrize("kind", [object, str])
def test_redshifts_that_a_service_sends_as_text_stay_as_they_came(kind):
    names = ["z_phot_median", "z_spec", "second_z_phot_median"]
    columns = dict(zip(names, (["0.3", ""], ["-99", "0.2"], ["0.4", "0.5"]), strict=True))
    table = _answer(**{name: np.array(texts, kind) for name, texts in columns.items()})
    request = catalog_request(HERE, columns=names[:2])
    rows = assemble(request, [chunk_of(table, request)]).table
    assert list(rows["z_phot_median"]) == ["0.3", "0.5"]
    assert list(rows["z_spec"]) == ["-99", "0.2"]


def test_masks_of_redshifts_that_are_whole_numbers_stay():
    table = _answer(z_spec=MaskedColumn([0, 1, 2], mask=[0, 1, 0]))
    request = catalog_request(HERE, columns=["z_spec"])
    rows = assemble(request, [chunk_of(table, request)]).table
    assert list(rows["z_spec"].mask) == [False, True, False]


def test_swapped_columns_of_dr11_are_put_right():
    request = catalog_request(
        HERE, columns=["type", "ref_cat"], release="dr11", column_filters={"type": "REX"}
    )
    query = catalog_query(request)
    assert 't."ref_cat"' in query
    assert "'REX'" not in query
    assert "DUP" not in query
    kinds = np.array(["REX", "PSF", "DUP", "REX"], object)
    references = np.array(["", "G3", "G3", "L4"], object)
    wrong = _answer(ref_cat=kinds)
    wrong["type"] = references
    right = _answer(ref_cat=references)
    right["type"] = kinds
    for table in (wrong, right):
        rows = assemble(request, [chunk_of(table, request)]).table
        assert list(rows["type"]) == ["REX", "REX"]
        assert list(rows["ref_cat"]) == ["", "L4"]


def test_row_ids_of_dr11_are_those_of_its_pipeline():
    request = catalog_request(HERE, columns=["ls_id"], release="dr11")
    table = _answer(ref_cat=np.array([""], object))
    table["release"] = [11000]
    table["ls_id"] = [5]
    rows = assemble(request, [chunk_of(table, request)]).table
    assert rows["ls_id"][0] == (11000 << 42) | (500000 << 22)


def test_elements_of_dchisq_become_one_column():
    columns = {f"dchisq_{k}": np.array([k, 10.0 * k], np.float32) for k in range(1, 6)}
    request = catalog_request(HERE, columns=["dchisq"])
    rows = assemble(request, [chunk_of(_answer(**columns), request)]).table
    assert rows["dchisq"].shape == (2, 5)
    assert list(rows["dchisq"][1]) == [10, 20, 30, 40, 50]


def test_columns_that_are_not_known_keep_name_and_unit():
    table = _answer(dered_mag_q=[1.0], strange=Column([2.0], unit="nanomaggy"), odd=["x"])
    request = catalog_request(HERE, columns="all")
    rows = assemble(request, [chunk_of(table, request)]).table
    assert rows["dered_mag_q"].unit == u.mag
    assert rows["strange"].unit == u.nmgy
    assert rows["odd"][0] == "x"


def test_no_chunk_is_an_empty_table_of_the_schema():
    request = catalog_request(HERE)
    rows = assemble(request, []).table
    assert rows.colnames == [column.name for column in request.columns]
    assert rows["flux_r"].dtype == np.float32
    assert rows["dchisq"].shape == (0, 5)
    assert rows["type"].dtype.kind == "U"


def test_light_curves_of_different_lengths_are_padded_with_masked_values():
    request = catalog_request(HERE, columns=["lc_nobs_w1"])
    base = {"release": 9011, "brickid": 1, "brick_primary": True, "type": "PSF"}
    chunks = []
    for k, length in enumerate((15, 17)):
        columns = {name: np.array([value]) for name, value in base.items()}
        columns.update(ra=np.array([180.0]), dec=np.array([40 + k * 1e-3]), objid=np.array([k]))
        columns["lc_nobs_w1"] = np.full((1, length), k + 1, np.int16)
        chunks.append(Chunk(1, columns, k == 0))
    rows = assemble(request, chunks).table
    assert rows["lc_nobs_w1"].shape == (2, 17)
    assert rows["lc_nobs_w1"].mask.sum(axis=1).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("brick", "regions"),
    [
        ("0451p000", ["south"]),
        ("1801p325", ["north"]),
        ("1801p322", ["south"]),
        # The galactic plane, where the two meet, crosses this one.
        ("0837p325", ["north", "south"]),
    ],
)
def test_a_brick_with_parts_of_both_regions_is_read_in_both(brick, regions):
    files = brick_files(np.array([parse_brick_name(brick)]), "dr10")
    assert [file.region for file in files] == regions
    folders = {"north": "dr9/north", "south": "dr10/south"}
    for file in files:
        assert file.path == (f"{folders[file.region]}/tractor/{brick[:3]}/tractor-{brick}.fits")


def _northern(numbers, ra, dec, *args):
    return list(northern_rows({"release": numbers, "ra": ra, "dec": dec}, *args))


def test_rows_of_the_north():
    assert _northern([9011, 9010, 10002], [0] * 3, [0] * 3, "dr10") == [True, False, False]
    # Numbers that are not known yet are told by position.
    ra, dec = [180.0, 180.0, 330.0], [40.0, 30.0, 40.0]
    assert _northern([11000] * 3, ra, dec, "dr11") == [True, False, False]
    assert _northern([10000], [0], [0], "dr10", "north") == [True]
    assert _northern([6000], [0], [0], "dr6") == [True]


def test_columns_are_those_that_astropy_makes():
    names = ["ra", "flux_r", "apflux_g", "type", "nobs_i", "gaia_duplicated_source"]
    chunk = Chunk(
        3,
        {
            "ra": np.full(3, 180.0),
            "dec": 40 + np.arange(3) * 1e-4,
            "release": np.full(3, 10000),
            "brickid": np.full(3, 500000),
            "objid": np.arange(3),
            "brick_primary": np.ones(3, bool),
            "type": np.array(["PSF", "REX", "DEV"]),
            "flux_r": np.array([1, 2, 3], "f4"),
            "apflux_g": np.asfortranarray(np.arange(24, dtype="f4").reshape(3, 8)),
            "nobs_i": np.array([1, 2, 3], "i2"),
            "gaia_duplicated_source": np.array([True, False, True]),
        },
        north=False,
    )
    request = catalog_request(HERE, columns=names)
    tables = [assemble(request, [chunk]).table for _ in range(2)]
    first, second = tables
    for name in first.colnames:
        column = first[name]
        plain = Column(np.array(chunk.columns[name]), name, unit=column.unit)
        # There lies what astropy keeps of a column beside its values.
        assert set(column.__dict__) == set(plain[:].__dict__)
        assert column.attrs_equal(plain)
        assert column.parent_table is first
        assert np.array_equal(np.sort(column, axis=0), np.sort(plain, axis=0))
        assert np.shares_memory(column, second[name]) is False
    first["ra"].meta["note"] = "of the first"
    first["ra"].name = "other"
    first["flux_r"].info.description = "first"
    assert second["ra"].meta == {}
    assert second["flux_r"].description is None
    assert second.colnames[0] == "ra"
    second.add_index("ra")
    assert len(second.loc[180.0]) == 3
    assert first["other"].indices == []
    assert pickle.loads(pickle.dumps(second)).colnames == second.colnames
    assert len(vstack([second, second[:2]])) == 5
