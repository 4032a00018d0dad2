"""Rows of the catalogue by their ids."""

import warnings

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astroquery.exceptions import LargeQueryWarning, NoResultsWarning

from astroquery_lis import conf, tractor
from astroquery_lis.exceptions import CoverageWarning, InvalidRequestError
from astroquery_lis.survey.bricks import brick_id

COLUMNS = ["release", "brickid", "objid", "ls_id", "ra", "flux_r"]


@pytest.fixture
def ask(sky, survey):
    def run(ids, **options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CoverageWarning)
            warnings.simplefilter("ignore", LargeQueryWarning)
            return survey.query_tractor(ids=ids, columns=COLUMNS, **options)

    with conf.set_temp("tap_url", sky.tap_url), conf.set_temp("viewer_url", sky.viewer_url):
        yield run


@pytest.fixture
def rows(sky, survey):
    """Rows of several bricks of both regions, in no order."""
    tables = []
    for name in ("split", "corner"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CoverageWarning)
            table = survey.query_tractor(
                sky.positions[name], radius="1.5 arcmin", columns=COLUMNS, source="files"
            )
        tables.append(np.asarray(table.as_array()))
    rows = np.concatenate(tables)
    assert len(np.unique(rows["release"])) == 2
    assert len(np.unique(rows["brickid"])) > 3
    return Table(np.random.default_rng(3).permutation(rows))


def _same(answer, rows):
    for name in COLUMNS:
        assert np.array_equal(answer[name], rows[name]), name


@pytest.mark.parametrize("source", ["auto", "files", "tap"])
def test_rows_come_in_the_order_of_their_ids(ask, rows, source):
    _same(ask(rows["ls_id"], release="dr10", source=source), rows)


def test_every_kind_of_id_means_the_same_rows(ask, rows):
    keys = [tuple(map(int, key)) for key in rows["release", "brickid", "objid"]]
    packed = tractor.target_ids(rows["release"], rows["brickid"], rows["objid"])
    mixed = [int(packed[0]), *rows["ls_id"][1:].tolist()]
    upper = Table({"TARGETID": packed, "Z": np.zeros(len(rows))})
    parts = Table({n.upper(): rows[n] for n in ("release", "brickid", "objid")})
    text = ", ".join(map(str, packed))
    texts = (text, text.split(", "))
    for ids in (*texts, keys, packed, packed.tolist(), mixed, upper, parts, np.array(keys)):
        _same(ask(ids, release="dr10", source="files"), rows)
    one = ask(int(packed[4]), release="dr10", source="files")
    _same(one, rows[4:5])
    again = ask([keys[2], keys[1], keys[2]], release="dr10", source="files")
    _same(again, rows[[2, 1]])


def test_files_are_grouped_by_brick_and_the_release_is_that_of_the_ids(sky, ask, rows, survey):
    south = rows[rows["release"] > 10000 - 1]
    sky.requests.clear()
    answer = ask(south["ls_id"], source="files", cache=False)
    _same(answer, south)
    assert answer.meta["release"] == "dr10"
    asked = [record for record in sky.requests if "tractor-" in record.path]
    assert len(asked) == len(np.unique(south["brickid"]))
    payload = survey.query_tractor(ids=south["ls_id"], source="files", get_query_payload=True)
    assert len(payload["urls"]) == len(np.unique(south["brickid"]))


def test_rows_that_are_not_primary_are_found_by_their_ids(sky, ask, survey):
    everything = survey.query_tractor(
        sky.positions["corner"],
        radius="1 arcmin",
        columns=[*COLUMNS, "brick_primary"],
        source="files",
        primary=False,
        drop_duplicates=False,
    )
    others = everything[~everything["brick_primary"]]
    assert len(others) > 3
    _same(ask(others["ls_id"], source="files"), others)


def test_ids_without_a_row_are_told(ask, rows):
    keys = [tuple(map(int, key)) for key in rows["release", "brickid", "objid"][:3]]
    lost = (keys[0][0], keys[0][1], 4_000_000)
    with pytest.warns(NoResultsWarning, match="1 of 4 ids"):
        answer = ask([*keys, lost], release="dr10", source="files")
    _same(answer, rows[:3])


@pytest.mark.parametrize(
    "ids",
    [
        [],
        "9906621938925568.5",
        "NGC 1",
        [2**70],
        [1.5],
        [12],
        [[1, 2]],
        [(9010, 0, 1)],
        [(9010, 700000, 1)],
        [(9010, 338328, -1)],
        [(3000, 338328, 1)],
        [(9010, 338328, 1), (10000, 338328, 1)],
        Table({"ra": [1.0]}),
        Table({"ls_id": [[10995138450423820] * 2]}),
        Table({"ls_id": [[10995138450423820] * 2]})[0],
        Table({"release": [[9010] * 2], "brickid": [338328], "objid": [1]}),
        np.ma.MaskedArray([10995138450423820, 1], [False, True]),
    ],
)
def test_ids_that_can_be_no_row_are_refused_before_any_request(sky, ask, ids):
    with pytest.raises(InvalidRequestError) as caught:
        ask(ids)
    assert caught.value.parameter == "ids"
    assert len(sky.requests) == 0


def test_ids_stand_alone(sky, ask):
    with pytest.raises(InvalidRequestError, match="ids= stands alone"):
        ask([(10000, 338328, 1)], radius="1 arcsec")
    with pytest.raises(InvalidRequestError, match="not of dr10"):
        ask([(9010, 338328, 1)], release="dr10")
    with pytest.raises(InvalidRequestError, match="lacks ids="):
        ask([(10000, 338328, 1)], source="viewer")


@pytest.mark.parametrize(
    ("targetid", "place", "number"),
    [
        # Published with the spectra of DESI DR1, with their positions; all were targeted on DR9.
        (39627812453222421, "212.59530d +0.92100d", 9010),
        (39627997694657850, "132.788138d +8.718857d", 9010),
        (39627574082538900, "0h12m47.93s -8d47m00.5s", 9010),
    ],
)
def test_published_target_ids_name_the_brick_at_their_position(targetid, place, number):
    position = SkyCoord(place)
    parts = [int(part) for part in tractor.split_target_ids(targetid)]
    assert parts[:2] == [number, int(brick_id(position.ra.deg, position.dec.deg))]
    assert 0 <= parts[2] < 20_000
    assert int(tractor.target_ids(*parts)) == targetid
    # The bits as desitarget documents them: OBJID 22, BRICKID 20, RELEASE 16, from the lowest.
    bits = f"{targetid:064b}"
    assert parts == [int(bits[6:22], 2), int(bits[22:42], 2), int(bits[42:], 2)]


def test_target_ids_have_the_bits_of_desitarget():
    # OBJID from bit 0, BRICKID from 22, RELEASE from 42, MOCK 58, SKY 59, GAIADR from 60.
    assert int(tractor.target_ids(9010, 338328, 12)) == 9010 * 2**42 + 338328 * 2**22 + 12
    rng = np.random.default_rng(1)
    parts = [rng.integers(0, 1 << bits, 1000) for bits in (16, 20, 22)]
    packed = tractor.target_ids(*parts)
    assert all(map(np.array_equal, tractor.split_target_ids(packed), parts))
    for bit in (58, 59, 60, 61):
        with pytest.raises(InvalidRequestError, match="mocks, blank sky"):
            tractor.split_target_ids([int(packed[0]) | 1 << bit])
    for bad in ((1 << 16, 1, 1), (1, 1 << 20, 1), (1, 1, 1 << 22), (-1, 1, 1), (1, 1.5, 1)):
        with pytest.raises(InvalidRequestError):
            tractor.target_ids(*bad)
