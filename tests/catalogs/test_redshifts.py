"""Redshifts beside the rows of the catalogue: those of the survey's files, masked where none is."""

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table, vstack

from astroquery_lis import LegacySurvey, conf
from astroquery_lis.exceptions import CoverageWarning, InvalidRequestError
from astroquery_lis.survey.tractor import row_ids
from astroquery_lis.survey.tractor_columns import REDSHIFTS, redshift_columns

TREES = {"dr9": ("dr9/south", "dr9/north"), "dr10": ("dr10/south", "dr9/north")}
KEY = ["release", "brickid", "objid"]


@pytest.fixture
def joined(sky, survey):
    """Ask the service of the embedded sky."""
    with conf.set_temp("tap_url", sky.tap_url):
        yield survey.query_tractor


def truth(sky, release):
    """Return what the files of redshifts hold, by ls_id."""
    tables = []
    for tree in TREES[release]:
        for path in sorted((sky.root / tree / "sweep").glob("*-photo-z/*-pz.fits")):
            table = Table(fits.getdata(path, 1))
            table.rename_columns(table.colnames, [name.lower() for name in table.colnames])
            tables.append(table)
    table = vstack(tables, metadata_conflicts="silent")
    ids = row_ids(*(table[name] for name in KEY), release).tolist()
    return dict(zip(ids, table, strict=True))


def same(rows, name, expected):
    """Tell whether a column has the values of the files, masked where they have none."""
    for value, ls_id in zip(rows[name].tolist(), rows["ls_id"].tolist(), strict=True):
        right = expected[ls_id][name] if ls_id in expected else None
        if name == "survey":
            assert value == ("" if right is None else str(right).strip())
        elif right is None or right == -99 or np.ma.is_masked(right):
            assert value is None
        else:
            assert value == pytest.approx(float(right), rel=1e-6)


@pytest.mark.parametrize("place", ["field", "split", "corner"])
@pytest.mark.parametrize("release", ["dr9", "dr10"])
def test_redshifts_are_those_of_the_files(sky, joined, place, release):
    names = ["ls_id", "z_phot", "z_spec", "survey"]
    rows = joined(sky.positions[place], radius=2 * u.arcmin, columns=names, release=release)
    assert rows.meta["source"] == "tap"
    assert set(rows.colnames[1:]) == set(redshift_columns(release)) <= REDSHIFTS
    assert len(rows) > 5
    expected = truth(sky, release)
    for name in rows.colnames[1:]:
        same(rows, name, expected)
    alone = joined(
        sky.positions[place], radius=2 * u.arcmin, columns="ls_id", release=release, source="tap"
    )
    assert rows["ls_id"].tolist() == alone["ls_id"].tolist()


def test_the_north_of_dr10_has_the_redshifts_of_dr9(sky, joined):
    names = ["ls_id", "release", "z_phot_median"]
    rows = joined(sky.positions["split"], radius=2 * u.arcmin, columns=names)
    northern = rows["release"] == 9011
    assert 0 < northern.sum() < len(rows)
    assert not np.ma.getmaskarray(rows["z_phot_median"])[northern].all()


@pytest.mark.parametrize("place", ["field", "split"])
@pytest.mark.parametrize(
    ("condition", "test"),
    [
        ({"z_phot_median": "0.1..0.5"}, lambda z, s, w: 0.1 <= z <= 0.5),
        ({"z_phot_median": "<0.3"}, lambda z, s, w: z < 0.3),
        ({"z_spec": ">0"}, lambda z, s, w: s > 0),
        ({"survey": "SDSS, DESI"}, lambda z, s, w: w in ("SDSS", "DESI")),
        ({"survey": "!=SDSS"}, lambda z, s, w: w != "SDSS"),
    ],
)
def test_conditions_on_redshifts_are_met_by_brute_force(sky, joined, place, condition, test):
    ask = {"radius": 2 * u.arcmin, "columns": ["ls_id", "z_phot_median", "z_spec", "survey"]}
    everything = joined(sky.positions[place], **ask)
    rows = joined(sky.positions[place], **ask, column_filters=condition)
    columns = (
        everything[n].filled(np.nan) if hasattr(everything[n], "filled") else everything[n]
        for n in ("z_phot_median", "z_spec")
    )
    values = zip(everything["ls_id"], *columns, everything["survey"], strict=True)
    assert rows["ls_id"].tolist() == [int(i) for i, z, s, w in values if test(z, s, w)]
    assert len(rows)
    first = joined(sky.positions[place], **ask, column_filters=condition, maxrec=len(rows))
    assert len(first) == len(rows)


@pytest.mark.filterwarnings("ignore:.*without values in some rows")
@pytest.mark.parametrize("source", ["tap", "sweeps"])
@pytest.mark.parametrize("place", ["field", "split"])
def test_a_condition_on_redshifts_goes_with_all_columns(sky, joined, place, source):
    ask = {"radius": 2 * u.arcmin, "source": source, "column_filters": {"z_phot_median": "<0.5"}}
    rows = joined(sky.positions[place], **ask, columns="all")
    due = joined(sky.positions[place], **ask, columns=["ls_id", "z_phot_median"])
    assert len(rows)
    assert rows["ls_id"].tolist() == due["ls_id"].tolist()
    assert rows["z_phot_median"].tolist() == due["z_phot_median"].tolist()
    assert "flux_r" in rows.colnames


@pytest.mark.filterwarnings("ignore:.*without values in some rows")
@pytest.mark.parametrize("source", ["tap", "sweeps"])
def test_northern_rows_do_not_meet_a_condition_on_what_the_north_lacks(sky, joined, source):
    ask = {"radius": 2 * u.arcmin, "source": source, "columns": ["release", "z_phot_median_i"]}
    everything = joined(sky.positions["split"], **ask)
    values = everything["z_phot_median_i"]
    assert values.mask[everything["release"] == 9011].all()
    rows = joined(sky.positions["split"], **ask, column_filters={"z_phot_median_i": "0.1..0.6"})
    due = [z for z in values.tolist() if z is not None and 0.1 <= z <= 0.6]
    assert len(due)
    assert rows["z_phot_median_i"].tolist() == due


def test_conditions_go_to_the_service_where_one_table_has_the_redshifts(joined):
    ask = {
        "radius": 1 * u.arcmin,
        "columns": "z_spec",
        "column_filters": {"z_spec": ">0"},
        "get_query_payload": True,
    }
    query = joined("45.13 0.0", **ask, release="dr9")["query"]
    assert "FROM ls_dr9.tractor AS t LEFT OUTER JOIN ls_dr9.photo_z AS p0 ON" in query
    assert 'p0."z_spec" > 0' in query
    query = joined("45.13 0.0", **ask, release="dr10", region="north")["query"]
    assert "FROM ls_dr9.tractor_n AS t LEFT OUTER JOIN ls_dr9.photo_z AS p0 ON" in query
    assert "ls_dr10" not in query
    assert "photo_z" not in joined("45.13 0.0", **{**ask, "columns": None, "column_filters": None})


def test_who_has_no_redshifts_says_so(sky, joined, survey):
    ask = {"radius": 5 * u.arcsec, "columns": ["ra", "z_phot_median"]}
    for source in ("files", "viewer"):
        with pytest.raises(InvalidRequestError, match="z_phot_median.*source='tap'"):
            joined(sky.positions["star"], **ask, source=source)
    mine = Table({"ra": [45.1312], "dec": [0.0047]})
    with pytest.raises(InvalidRequestError, match="source='files' has no redshifts; leave it out"):
        survey.crossmatch(mine, **ask, source="files")
    with pytest.raises(InvalidRequestError, match="did you mean z_phot_median"):
        joined("45.1 0.1", radius="5 arcsec", columns="z_phot_medium", mirror="nersc")
    assert len(sky.requests) == 0
    with pytest.warns(CoverageWarning, match="z_phot_median without values"):
        rows = joined(sky.positions["star"], **ask, release="dr8", source="tap")
    assert rows["z_phot_median"].mask.all()


def test_a_match_takes_them_from_the_sweeps(sky, survey):
    mine = Table({"ra": [45.1312, 45.09], "dec": [0.0047, 0.062]})
    ask = {"radius": "1 arcsec", "columns": ["ls_id", "z_phot_median"]}
    rows = survey.crossmatch(mine, **ask)
    assert (rows["z_phot_median"] > 0).all()
    by_name = survey.crossmatch(mine, **ask, source="sweeps")
    assert rows.pformat(max_lines=-1) == by_name.pformat(max_lines=-1)


def test_they_are_listed():
    columns = LegacySurvey.list_columns(release="dr9")
    row = columns[list(columns["name"]).index("z_phot_std")]
    assert (row["family"], row["core"], row["computed"]) == ("z_phot", False, False)
    assert "z_phot_std_i" not in columns["name"]
    assert "z_phot_std_i" in LegacySurvey.list_columns(release="dr10")["name"]
    assert "z_spec" not in LegacySurvey.list_columns(release="dr8")["name"]
