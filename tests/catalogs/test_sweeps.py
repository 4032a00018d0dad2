"""The sweeps as a source: the rows of the Tractor files, in parts, and redshifts beside them."""

import itertools
from collections import OrderedDict

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astroquery.exceptions import LargeQueryWarning

from astroquery_lis import LegacySurveyClass, conf, sandbox
from astroquery_lis.catalogs import match, sweep_files
from astroquery_lis.catalogs.catalog_files import MAX_TABLES, RowFile, hold, open_table
from astroquery_lis.exceptions import (
    CoverageWarning,
    FailoverWarning,
    InvalidRequestError,
    TruncatedError,
    UnexpectedContentError,
)
from astroquery_lis.survey.bricks import brick_center, brick_edges, brick_id, name_of
from astroquery_lis.survey.catalog_request import catalog_request
from astroquery_lis.survey.tractor import WHOLE_SKY

from .test_catalogs import assert_same

FIELDS = ("field", "corner", "split", "star")
SWEEP = "dr10/south/sweep/10.1/sweep-045p000-050p005.fits"


class _Watched(OrderedDict):
    """Fails where a table that is in it is taken out, only to be put back."""

    def pop(self, key, *default):
        raise AssertionError(f"{key} was not there for a moment")


def test_a_table_that_is_used_again_is_always_there_and_goes_last(sky):
    table, tables = open_table(sky.root / SWEEP), _Watched()
    for number in (*range(MAX_TABLES), 0, MAX_TABLES):
        hold(tables, (str(number), ""), table)
    names = [name for name, _ in tables]
    assert names == [*map(str, range(2, MAX_TABLES)), "0", str(MAX_TABLES)]


@pytest.fixture(params=["remote", "local"])
def ask(request, sky, survey):
    """Ask a server, or the folder that it serves."""
    if request.param == "local":
        survey.mirror = sky.root
    return survey.query_tractor


@pytest.mark.parametrize("release", ["dr8", "dr9", "dr10", "dr11"])
@pytest.mark.filterwarnings("ignore:.*without values in some rows")
def test_the_rows_are_those_of_the_tractor_files(sky, ask, release):
    for field in FIELDS:
        cone = {"radius": 2 * u.arcmin, "release": release}
        place = sky.positions[field]
        sweeps = ask(place, **cone, source="sweeps")
        assert sweeps.meta["source"] == "sweeps"
        assert len(sweeps) > 10
        files = ask(place, **cone, source="files", columns=sweeps.colnames)
        assert_same(files, sweeps)
        everything = ask(place, **cone, source="sweeps", columns="all")
        assert set(everything.colnames) >= set(sweeps.colnames) - {"brick_primary"}


def test_boxes_and_polygons_are_the_same(sky, ask):
    place = SkyCoord(sky.positions["corner"])
    columns = ["ls_id", "ra", "dec", "type", "dered_mag_g", "g_r", "brick_primary"]
    corners = place.directional_offset_by(np.arange(0, 360, 72) * u.deg, 1 * u.arcmin)
    for where in ({"coordinates": place, "width": "2 arcmin"}, {"polygon": corners}):
        filters = {"column_filters": {"flux_r": "> 1", "type": "!=PSF"}, "columns": columns}
        files, sweeps = (ask(**where, **filters, source=s) for s in ("files", "sweeps"))
        assert len(files)
        assert_same(files, sweeps)


def test_rows_by_ids_and_a_match_are_the_same(sky, ask):
    survey = ask.__self__
    place, columns = sky.positions["corner"], ["ls_id", "type", "flux_w1"]
    rows = ask(place, radius="1 arcmin", source="files", columns=[*columns, "ra", "dec"])
    ids = rows["ls_id"].tolist()[::-3]
    assert_same(*(ask(ids=ids, source=s, columns=columns) for s in ("files", "sweeps")))
    mine = Table({"ra": rows["ra"].data, "dec": rows["dec"].data + 1e-5})
    for find in ("best", "all"):
        match = {"radius": "2 arcsec", "find": find, "columns": columns}
        assert_same(*(survey.crossmatch(mine, **match, source=s) for s in ("files", "sweeps")))
    with_redshifts = survey.crossmatch(
        mine, radius="1 arcsec", source="sweeps", columns=["ls_id", "z_phot_median"]
    )
    alone = ask(place, radius="1 arcmin", source="sweeps", columns=["ls_id", "z_phot_median"])
    assert with_redshifts["z_phot_median"].tolist() == alone["z_phot_median"].tolist()


def test_a_match_has_the_same_columns_whether_anything_matched(sky, ask):
    place = SkyCoord(sky.positions["field"])
    row = ask(place, radius="1 arcmin", source="files", columns=["ra", "dec"])[0]
    tables = [
        ask.__self__.crossmatch(
            Table({"ra": [row["ra"]], "dec": [row["dec"] + offset]}),
            radius="0.001 arcsec",
            source="sweeps",
        )
        for offset in (0, 1e-6)
    ]
    apart, none = (np.ma.getmaskarray(table["separation"]).tolist() for table in tables)
    assert (apart, none) == ([False], [True])
    assert tables[0].colnames == tables[1].colnames


def test_a_match_looks_at_the_rows_of_its_bricks_alone(sky, survey, monkeypatch):
    monkeypatch.setattr(match, "MANY_ROWS", 0)
    table = open_table(sky.root / SWEEP)
    owner = table.read(slice(None), ["brickid"])["brickid"]
    bricks = np.unique(owner)[::2]
    file = RowFile(tuple(bricks.tolist()), "south", SWEEP, by_position=False)
    request = catalog_request(WHOLE_SKY, drop_duplicates=False)
    rows = match.rows_of(table, file, request)
    assert rows.tolist() == np.flatnonzero(np.isin(owner, bricks)).tolist()
    assert 0 < len(rows) < len(owner)
    survey.mirror = sky.root
    near = survey.query_tractor(sky.positions["corner"], radius="0.1 deg", columns=["ra", "dec"])
    settings = {"radius": "40 arcsec", "find": "all", "columns": ["ls_id", "type"]}
    assert_same(*(survey.crossmatch(near, **settings, source=s) for s in ("files", "sweeps")))


def test_what_sweeps_lack_is_refused_by_name_with_who_has_it(sky, ask):
    cone = {"radius": "10 arcsec", "source": "sweeps"}
    for columns, who in (("bx", "source='files' or 'tap'"), ("apflux_r", "source='files' has")):
        with pytest.raises(InvalidRequestError, match=f"lacks {columns}.*{who}"):
            ask(sky.positions["star"], **cone, columns=["type", columns])
    with pytest.raises(InvalidRequestError, match="lacks wise_x"):
        ask(sky.positions["star"], **cone, column_filters={"wise_x": ">1"})
    with pytest.raises(InvalidRequestError, match="lacks primary=False"):
        ask(sky.positions["star"], **cone, primary=False)
    with pytest.raises(InvalidRequestError, match="'auto', 'brick'|must be one of"):
        ask(sky.positions["star"], radius="10 arcsec", source="sweep")


def test_a_part_of_the_sky_without_a_sweep_is_told(sky, survey):
    with pytest.warns(CoverageWarning, match="no sweep-100p000-105p005"):
        assert not len(survey.query_tractor("101.1 2.2", radius="1 arcsec", source="sweeps"))


def test_a_query_again_asks_for_nothing_and_another_of_the_same_bricks_neither(sky, survey):
    place = SkyCoord(sky.positions["field"])
    first = survey.query_tractor(place, radius="20 arcsec", source="sweeps")
    sky.requests.clear()
    assert_same(first, survey.query_tractor(place, radius="20 arcsec", source="sweeps"))
    survey.query_tractor(place, radius="5 arcsec", source="sweeps", columns="flux_r")
    assert len(sky.requests) == 0
    survey.query_tractor(place, radius="20 arcsec", source="sweeps", cache=False)
    assert len(sky.requests) > 0


# ---- a sweep as large as to be read in parts -----------------------------------------------------

N_ROWS = 800
"""Rows of each brick."""


def large_sweep(order):
    """Return a sweep of 100 bricks, as a table."""
    ra, dec = np.meshgrid(np.arange(100, 103.1, 0.1), np.arange(0.01, 1, 0.1))
    bricks = np.unique(brick_id(ra.ravel(), dec.ravel()))
    rng = np.random.default_rng(1)
    if order == "name":
        bricks = bricks[np.argsort(name_of(bricks))]
    elif order == "none":
        bricks = rng.permutation(bricks)
    # Some have few rows, and some none.
    counts = rng.choice([0, 1, N_ROWS, 2 * N_ROWS], len(bricks), p=[0.1, 0.1, 0.6, 0.2])
    ids = np.repeat(bricks, counts)
    edges = brick_edges(ids)
    table = Table({"RELEASE": np.full(len(ids), 10000, ">i2"), "BRICKID": ids.astype(">i4")})
    table["OBJID"] = np.concatenate([np.arange(count) for count in counts]).astype(">i4")
    table["RA"] = rng.uniform(edges[0], edges[1])
    table["DEC"] = rng.uniform(edges[2], edges[3])
    table["TYPE"] = rng.choice([b"PSF", b"REX", b"DUP"], len(ids))
    table["FLUX_R"] = rng.uniform(0, 10, len(ids)).astype(">f4")
    table["FILLER"] = np.zeros((len(ids), 25), ">f4")
    return table


@pytest.fixture
def large(tmp_path):
    """Serve a sweep of one's own; return the server, its file, and what asks."""
    path = tmp_path / "tree/dr10/south/sweep/10.1/sweep-100p000-105p005.fits"
    with sandbox.serve(root=tmp_path / "tree", configure=False) as sky:

        def put(table, survey=None):
            path.parent.mkdir(parents=True, exist_ok=True)
            fits.BinTableHDU(table).writeto(path, overwrite=True)
            sky.requests.clear()
            survey = survey or LegacySurveyClass()
            survey.mirror = sky.mirror_url
            return survey

        yield sky, path, put


@pytest.mark.filterwarnings("ignore:No row of the catalogue")
@pytest.mark.parametrize("order", ["name", "id", "none"])
def test_of_a_large_sweep_just_the_bricks_are_read(large, order, monkeypatch):
    sky, path, put = large
    monkeypatch.setattr(sweep_files, "NEAR_BYTES", 50_000)
    table = large_sweep(order)
    survey = put(table)
    size = path.stat().st_size
    assert size > 6e6
    rng = np.random.default_rng(2)
    n_rows = 0
    for number in range(12):
        ra, dec = rng.uniform(100.3, 102.3), rng.uniform(0.12, 0.9)
        radius = rng.choice([0.02, 0.1])
        place = SkyCoord(ra, dec, unit="deg")
        separation = SkyCoord(table["RA"], table["DEC"], unit="deg").separation(place)
        inside = (separation.deg <= radius) & (table["TYPE"] != b"DUP")
        due = sorted(zip(table["BRICKID"][inside], table["OBJID"][inside], strict=True))
        columns = ["brickid", "objid", "flux_r"]
        answer = survey.query_tractor(
            place, radius=radius * u.deg, columns=columns, source="sweeps"
        )
        key = sorted(zip(answer["brickid"], answer["objid"], strict=True))
        assert key == due
        n_rows += len(due)
        if number == 0 and order != "none":
            sent = sum(record.bytes_sent for record in sky.requests)
            assert sent < 0.1 * size
    assert n_rows > 1000


def test_what_is_held_of_all_sweeps_has_one_bound(sky, survey, monkeypatch):
    ask = {"radius": "20 arcsec", "source": "sweeps", "columns": ["ls_id", "flux_r"]}
    places = [sky.positions[name] for name in ("field", "split")]

    def held():
        tables = survey._tables.values()
        return [t.held_bytes for t in tables if isinstance(t, sweep_files.RemoteSweep)]

    due = [survey.query_tractor(place, **ask) for place in places]
    before = held()
    assert len(before) > 1
    assert min(before) > 0
    monkeypatch.setattr(sweep_files, "HELD_BYTES", max(before))
    survey.query_tractor(places[0], **ask)
    assert 0 < sum(held()) <= max(before)
    monkeypatch.setattr(sweep_files, "HELD_BYTES", 0)
    for place, rows in zip(places, due, strict=True):
        assert_same(rows, survey.query_tractor(place, **ask))
        assert sum(held()) == 0


@pytest.mark.filterwarnings("ignore::astroquery.exceptions.LargeQueryWarning")
def test_bricks_that_adjoin_are_not_read_as_one(large, monkeypatch):
    sky, _, put = large
    monkeypatch.setattr(sweep_files, "NEAR_BYTES", 20_000)
    table = large_sweep("id")
    ask = {"radius": "0.4 deg", "columns": ["brickid", "objid"], "source": "sweeps"}
    due = put(table).query_tractor("101.5 0.5", **ask)
    together = max(record.bytes_sent for record in sky.requests)
    monkeypatch.setattr(sweep_files, "MOST_RUNS", 1)
    assert_same(due, put(table).query_tractor("101.5 0.5", **ask))
    brick_bytes = 2 * N_ROWS * table.as_array().dtype.itemsize
    assert max(record.bytes_sent for record in sky.requests) < brick_bytes + 65_536 < together


def test_no_row_is_lost_where_two_orders_fit_what_was_looked_at(large, monkeypatch):
    _, _, put = large
    monkeypatch.setattr(sweep_files, "NEAR_BYTES", 10_000)
    monkeypatch.setattr(sweep_files, "N_FIRST_PROBES", 2)
    table = large_sweep("id")
    ids = np.unique(table["BRICKID"]).tolist()
    # By id the second lies between the two that the probes meet, by name before both.
    first, second, third = next(
        (a, b, c)
        for a, b, c in itertools.combinations(ids, 3)
        if name_of(b) < name_of(a) < name_of(c)
        if np.sum(table["BRICKID"] == b) >= N_ROWS
    )
    table = table[np.isin(table["BRICKID"], [first, second, third])]
    place = SkyCoord(*brick_center(second), unit="deg")
    separation = SkyCoord(table["RA"], table["DEC"], unit="deg").separation(place)
    inside = (separation.deg <= 0.05) & (table["TYPE"] != b"DUP")
    ask = {"radius": "0.05 deg", "columns": ["brickid", "objid"], "source": "sweeps"}
    assert len(put(table).query_tractor(place, **ask)) == inside.sum() > 0


@pytest.mark.parametrize("brickid", [None, 0, 662_175])
def test_a_sweep_without_ids_of_bricks_leads_to_the_next_mirror(large, tmp_path, brickid):
    sky, path, put = large
    table = large_sweep("name")
    whole = tmp_path / "whole" / path.relative_to(tmp_path / "tree")
    whole.parent.mkdir(parents=True)
    fits.BinTableHDU(table).writeto(whole)
    if brickid is None:
        table.remove_column("BRICKID")
    else:
        table["BRICKID"] = np.array(brickid, ">i4")
    survey = put(table)
    ask = {"radius": "0.03 deg", "source": "sweeps", "columns": "flux_r"}
    with pytest.raises(UnexpectedContentError, match="brick"):
        survey.query_tractor("100.5 0.2", **ask)
    with sandbox.serve(root=tmp_path / "whole", configure=False) as second:
        due = survey.query_tractor("100.5 0.2", **ask, mirror=second.mirror_url)
        assert len(due)
        mirrors = [sky.mirror_url, second.mirror_url]
        with pytest.warns(FailoverWarning):
            rows = survey.query_tractor("100.5 0.2", **ask, mirror=mirrors)
        assert_same(due, rows)


def test_ids_of_bricks_with_an_offset_are_read(large, monkeypatch):
    _, _, put = large
    monkeypatch.setattr(sweep_files, "NEAR_BYTES", 50_000)
    table = large_sweep("name")
    ask = {"radius": "0.05 deg", "columns": ["brickid", "objid", "flux_r"], "source": "sweeps"}
    due = put(table).query_tractor("100.5 0.2", **ask)
    table["BRICKID"] = table["BRICKID"].astype("u4")
    assert len(due)
    assert_same(due, put(table).query_tractor("100.5 0.2", **ask))


def test_a_sweep_that_changes_is_begun_anew(large, monkeypatch):
    _, _, put = large
    monkeypatch.setattr(sweep_files, "NEAR_BYTES", 50_000)
    table = large_sweep("name")
    survey = put(table)
    ask = {"radius": "0.05 deg", "columns": ["brickid", "objid", "flux_r"], "source": "sweeps"}
    survey.query_tractor("100.5 0.2", **ask)
    changed = table[10:]
    changed["FLUX_R"] += 100
    put(changed, survey)
    rows = survey.query_tractor("102.0 0.5", **ask)
    assert len(rows)
    assert (rows["flux_r"] >= 100).all()


def test_a_large_sweep_without_order_is_not_read_whole(large, monkeypatch):
    _, _, put = large
    monkeypatch.setattr(sweep_files, "NEAR_BYTES", 50_000)
    monkeypatch.setattr(sweep_files, "WHOLE_BYTES", 1_000_000)
    survey = put(large_sweep("none"))
    with pytest.raises(UnexpectedContentError, match="in no order.*get_brick_files"):
        survey.query_tractor("100.5 0.1", radius="0.1 deg", source="sweeps", columns="flux_r")


def test_too_many_bricks_are_refused_and_many_announced(large):
    _, _, put = large
    survey = put(large_sweep("name"))
    ask = {"source": "sweeps", "columns": "flux_r"}
    with (
        conf.set_temp("max_query_bricks", 5),
        pytest.raises(InvalidRequestError, match="max_query_bricks"),
    ):
        survey.query_tractor("101 0.5", radius="0.5 deg", **ask)
    with pytest.warns(LargeQueryWarning):
        survey.query_tractor("101 0.5", radius="0.3 deg", **ask)


def test_damage_is_told(sky, survey, tmp_path):
    place, ask = "45.3 0.3", {"radius": "10 arcsec", "source": "sweeps", "columns": "flux_r"}
    whole = (sky.root / SWEEP).read_bytes()
    path = tmp_path / SWEEP
    path.parent.mkdir(parents=True)
    for content, error in ((whole[:-5000], TruncatedError), (b"<html>", UnexpectedContentError)):
        path.write_bytes(content)
        with pytest.raises(error):
            survey.query_tractor(place, **ask, mirror=tmp_path)
    sky.faults.add("html", "*sweep-*", times=None)
    with pytest.raises(UnexpectedContentError):
        survey.query_tractor(place, **ask)


def test_a_server_that_ignores_ranges_sends_it_whole_and_it_is_kept(sky, survey):
    place, ask = sky.positions["star"], {"radius": "20 arcsec", "source": "sweeps"}
    due = survey.query_tractor(place, **ask, columns=["ls_id", "z_phot_median"])
    other = LegacySurveyClass()
    other.mirror = sky.mirror_url
    sky.faults.add("ignore_range", "*sweep-*", times=None)
    assert_same(due, other.query_tractor(place, **ask, columns=["ls_id", "z_phot_median"]))
    sky.requests.clear()
    other.query_tractor(place, **ask)
    assert len(sky.requests) == 0


def test_redshifts_of_other_rows_are_refused(sky, survey, tmp_path):
    redshifts = SWEEP.replace("10.1/", "10.1-photo-z/").replace(".fits", "-pz.fits")
    for name in (SWEEP, redshifts):
        (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / SWEEP).write_bytes((sky.root / SWEEP).read_bytes())
    table = fits.getdata(sky.root / redshifts, 1)
    ask = {"radius": "2 arcsec", "source": "sweeps", "columns": ["ls_id", "z_phot_median"]}
    row = survey.query_tractor(
        sky.positions["field"],
        radius="4 arcmin",
        source="files",
        column_filters={"dec": ">0.02"},
        columns=["ra", "dec"],
    )[0]
    place = SkyCoord(row["ra"], row["dec"], unit="deg")
    fits.BinTableHDU(Table(table)[::-1]).writeto(tmp_path / redshifts)
    with pytest.raises(UnexpectedContentError, match="of other rows"):
        survey.query_tractor(place, **ask, mirror=tmp_path)
    anonymous = Table(table)
    anonymous.remove_column(next(n for n in anonymous.colnames if n.lower() == "objid"))
    fits.BinTableHDU(anonymous).writeto(tmp_path / redshifts, overwrite=True)
    with pytest.raises(UnexpectedContentError, match="of other rows"):
        survey.query_tractor(place, **ask, mirror=tmp_path)
    (tmp_path / redshifts).unlink()
    with pytest.warns(CoverageWarning, match="z_phot_median without values"):
        rows = survey.query_tractor(place, **ask, mirror=tmp_path)
    assert rows["z_phot_median"].mask.all()
