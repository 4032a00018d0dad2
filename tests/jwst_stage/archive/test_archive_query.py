"""Lists of uncal files: what is asked of MAST, and what is made of its answers."""

import shutil
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.time import Time
from astroquery import mast
from astroquery.exceptions import NoResultsWarning

from astroquery_lis.exceptions import (
    InvalidRequestError,
    LegacySurveyWarning,
    NotFoundError,
    RateLimitedError,
    RefusedQueryError,
    ServiceDownError,
    ServiceTimeoutError,
    TransferError,
    TruncatedError,
    UnexpectedContentError,
    UnreachableError,
)
from astroquery_lis.jwst_stage import mission_search as archive_search
from astroquery_lis.jwst_stage.archive_jobs import folder_of, parse_uncal_name
from astroquery_lis.jwst_stage.archive_methods import UNCAL_TYPES, WORDS, _touches
from astroquery_lis.sandbox.mast import serve_mast

from .archive_files import EAST, NEAR, write_association, write_uncal

SEARCH = "*/api/v0.1/search*"
LISTS = "*post_list_products*"


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """What the archive has: two programs, NIRCam on three detectors, MIRI, and associations."""
    folder = tmp_path_factory.mktemp("held")
    paths = []
    for exposure in (1, 2, 3):
        for detector in ("nrca1", "nrcb1", "nrcalong"):
            name = f"jw01234001001_02101_{exposure:05d}_{detector}_uncal.fits"
            keywords = {"FILTER": "F444W" if "long" in detector else "F150W2"}
            if detector == "nrca1":
                keywords["PUPIL"] = "F162M"
            keywords["DATE_OBS"] = f"2022-08-0{exposure}"
            center = EAST if detector == "nrcb1" else NEAR
            paths.append(write_uncal(folder, name, center=center, **keywords))
    for exposure in (1, 2):
        name = f"jw01234002001_0310a_{exposure:05d}_mirimage_uncal.fits"
        keywords = {"EXP_TYPE": "MIR_IMAGE", "FILTER": "F770W", "PUPIL": ""}
        paths.append(write_uncal(folder, name, has_region=False, **keywords))
    paths.append(write_uncal(folder, "jw04321011002_02101_00001-seg001_nis_uncal.fits", groups=9))
    exposures = {path.name.replace("_uncal", "_cal") for path in paths[:9]}
    for number, exposure in enumerate(sorted(exposures)):
        name = f"jw01234-o001_20220901t000000_image2_{number:05d}_asn.json"
        paths.append(write_association(folder, name, exposure.rpartition("_")[0], [exposure]))
    for observation, product in ((1, "nircam_f150w2-f162m"), (2, "miri_f770w")):
        name = f"jw01234-o00{observation}_20220901t000000_image3_00001_asn.json"
        product = f"jw01234-o00{observation}_t001_{product}"
        paths.append(write_association(folder, name, product, sorted(exposures)[:3]))
    return paths


@pytest.fixture
def service(sky, held):
    service = serve_mast(sky, held, exclusive=["jw01234002001_0310a_00002_mirimage_uncal.fits"])
    with mast.conf.set_temp("server", service.url):
        yield service


def _searches(sky):
    return [record for record in sky.requests if record.path.endswith("/api/v0.1/search")]


def test_a_program_is_found_whole(stage, held):
    table = stage.query_uncal(program=1234)
    due = sorted(
        path.name for path in held if path.name.startswith("jw01234") and "unc" in path.name
    )
    assert list(table["file"]) == due
    sizes = {path.name: path.stat().st_size for path in held}
    assert list(table["size"]) == [sizes[name] for name in due]
    assert table["size"].unit == u.byte
    assert table.meta["bytes"] == sum(sizes[name] for name in due)
    assert (table.meta["n_uncal"], table.meta["n_not_public"]) == (11, 1)
    assert not any("_gs-" in name for name in table["file"])


def test_a_row_tells_all_of_a_file(stage):
    row = stage.query_uncal(program="01234", detector="nrca1", start_date="2022-08-02")[0]
    assert row["file"] == "jw01234001001_02101_00002_nrca1_uncal.fits"
    assert row["uri"] == f"mast:JWST/product/{row['file']}"
    names = ("program", "observation", "visit", "activity", "exposure", "segment", "detector")
    assert tuple(row[name] for name in names) == (1234, 1, 1, "02101", 2, 0, "NRCA1")
    names = ("instrument", "filter", "pupil", "exp_type", "target", "date_obs", "product")
    found = tuple(row[name] for name in names)
    moment = "2022-08-02T12:00:00"
    assert found == ("NIRCAM", "F150W2", "F162M", "NRC_IMAGE", "FIELD", moment, "uncal")
    assert row["s_region"].startswith("POLYGON ICRS")
    assert row["public"]
    assert row["release_date"].startswith("2022-07-14")


@pytest.mark.parametrize(
    ("asked", "n"),
    [
        ({"instrument": "miri"}, 2),
        ({"instrument": ("NIRCAM", "MIRI"), "observation": 2}, 2),
        ({"observation": "001"}, 9),
        ({"filters": "f162m"}, 3),
        ({"filters": ["F444W", "F770W"]}, 5),
        ({"detector": "NRCA1,NRCB1"}, 6),
        ({"exp_type": "NRC_IMAGE"}, 9),
        ({"start_date": "2022-08-02", "end_date": "2022-08-02"}, 3),
        ({"start_date": Time("2022-08-01T12:00:01")}, 6),
        ({"end_date": "2022-08-01T13:00"}, 5),
        ({"public_only": True}, 10),
    ],
)
def test_conditions_select(stage, asked, n):
    assert len(stage.query_uncal(program=1234, **asked)) == n


def test_what_is_not_public_is_told(stage):
    table = stage.query_uncal(program=1234, instrument="MIRI")
    assert list(table["public"]) == [True, False]
    assert list(table["release_date"])[1] > "2100"


def test_time_series_come_in_segments(stage):
    table = stage.query_uncal(program=4321)
    assert (table["segment"][0], table["visit"][0]) == (1, 2)


def test_each_detector_of_an_exposure_is_told_by_itself(stage, sky, tmp_path):
    """Grism and short waves of a time series share a dataset."""
    root = "jw01366002001_03104_00001-seg001"
    series = {
        "nrcalong": {"EXP_TYPE": "NRC_TSGRISM", "FILTER": "F322W2", "PUPIL": "GRISMR"},
        "nrca1": {"EXP_TYPE": "NRC_TSIMAGE", "FILTER": "F210M", "PUPIL": "WLP8"},
        "nrca3": {"EXP_TYPE": "NRC_TSIMAGE", "FILTER": "F210M", "PUPIL": "WLP8"},
    }
    files = [write_uncal(tmp_path, f"{root}_{d}_uncal.fits", **k) for d, k in series.items()]
    serve_mast(sky, files)
    for asked in ({}, {"exp_type": "NRC_TSGRISM"}, {"exp_type": "NRC_TSIMAGE"},
                  {"filters": "F322W2"}):  # fmt: skip
        table = stage.query_uncal(program=1366, **asked)
        found = {row["detector"].lower(): (row["exp_type"], row["filter"], row["pupil"])
                 for row in table}  # fmt: skip
        wanted = asked.get("exp_type", "NRC_TSGRISM" if asked else "NRC_TS")
        assert found == {
            detector: tuple(keywords.values())
            for detector, keywords in series.items()
            if keywords["EXP_TYPE"].startswith(wanted)
        }


def test_shutters_of_the_msa_are_listed_and_fetched_beside_their_exposures(stage, sky, tmp_path):
    held = tmp_path / "held"
    held.mkdir()
    cards = {"EXP_TYPE": "NRS_MSASPEC", "FILTER": "F170LP", "MSAMETFL": "jw01345066001_01_msa.fits"}
    names = [f"jw01345066001_03101_{n:05d}_nrs1_uncal.fits" for n in (1, 2)]
    files = [write_uncal(held, name, **cards) for name in names]
    files.append(held / "jw01345066001_01_msa.fits")
    shutil.copy(files[0], files[2])
    files.append(write_uncal(held, "jw01345001001_03101_00001_nrca1_uncal.fits"))
    serve_mast(sky, files)
    table = stage.query_uncal(program=1345, instrument="NIRSPEC")
    assert sorted(table["file"]) == sorted(path.name for path in files[:3])
    assert list(table["product"]).count("msa") == table.meta["n_shutters"] == 1
    manifest = stage.download_uncal(table, download_dir=tmp_path / "files", show_progress=False)
    folders = {Path(path).parent for path in manifest["Local Path"]}
    assert len(folders) == 1
    assert {path.name for path in folders.pop().iterdir()} == {path.name for path in files[:3]}
    other = stage.query_uncal(program=1345, instrument="NIRCAM")
    assert set(other["product"]) == {"uncal"}


@pytest.mark.parametrize(
    ("place", "radius", "detectors"),
    [
        (NEAR, 1 * u.arcsec, {"NRCA1", "NRCALONG", "MIRIMAGE", "NIS"}),
        (EAST, "1 arcsec", {"NRCB1"}),
        ((10.11, 20.02), 1 * u.arcsec, set()),
        ((10.11, 20.02), 0.08 * u.deg, {"NRCA1", "NRCB1", "NRCALONG", "NIS"}),
    ],
)
@pytest.mark.filterwarnings("ignore:Query returned no results")
def test_a_position_means_footprints_and_where_there_is_none_the_target(
    stage, place, radius, detectors
):
    table = stage.query_uncal(SkyCoord(*place, unit="deg").galactic, radius=radius)
    # MIRI's files have no footprint: within the radius of their target or not at all.
    assert set(table["detector"]) == detectors


def test_footprints_are_tested_as_plane_geometry_has_it():
    rng = np.random.default_rng(4)
    center, half, checked = SkyCoord(359.99, 62, unit="deg"), 0.02, []
    for apart, direction, turn in rng.uniform((0, 0, 0), (0.1, 360, 360), (16, 3)):
        middle = center.directional_offset_by(direction * u.deg, apart * u.deg)
        frame = middle.skyoffset_frame(rotation=turn * u.deg)
        sides = half * np.array([[-1, 1, 1, -1], [-1, -1, 1, 1]]) * u.deg
        corners = SkyCoord(*sides, frame=frame).icrs
        text = " ".join(f"{one.ra.deg:.9f} {one.dec.deg:.9f}" for one in corners)
        seen = center.transform_to(frame)
        over = np.maximum(np.abs([seen.lon.wrap_at("180d").deg, seen.lat.deg]) - half, 0)
        for radius in (0.001, 0.03, 0.06):
            due = bool(np.hypot(*over) <= radius)
            found = _touches(f"POLYGON ICRS  {text}", center.ra.deg, center.dec.deg, radius)
            assert found == due, (apart, direction, turn, radius)
            checked.append(due)
    assert 8 < sum(checked) < 40
    assert _touches("NO FOOTPRINT", 1.0, 2.0, 3.0) is None


def test_a_name_is_resolved(stage, sky):
    from astropy.coordinates import name_resolve

    with name_resolve.sesame_url.set([sky.sesame_url]), pytest.warns(NoResultsWarning):
        assert len(stage.query_uncal("NGC 1", radius=1 * u.arcmin)) == 0


def test_associations_come_on_request(stage):
    table = stage.query_uncal(program=1234, detector="NRCA1", associations=True)
    names = list(table["file"][table["product"] == "asn"])
    assert len(names) == 10
    assert sum("_image2_" in name for name in names) == 9
    assert all(name.startswith("jw01234-o001_") for name in names)
    assert list(table["file"]) == sorted(table["file"])
    assert table.meta["n_associations"] == 10


def test_nothing_is_an_empty_table_with_all_columns(stage):
    some = stage.query_uncal(program=4321)
    with pytest.warns(NoResultsWarning):
        none = stage.query_uncal(program=4321, filters="F090W")
    assert len(none) == 0
    assert none.colnames == some.colnames
    assert none.meta["bytes"] == 0
    assert [none[name].dtype.kind for name in none.colnames] == [
        some[name].dtype.kind for name in some.colnames
    ]


@pytest.mark.parametrize("limit", [1, 4, 11, 12])
def test_pages_beyond_the_services_limit_are_fetched(stage, service, sky, limit):
    whole = stage.query_uncal(program=1234)
    sky.requests.clear()
    service.max_rows = limit
    assert list(stage.query_uncal(program=1234)["file"]) == list(whole["file"])
    assert len(_searches(sky)) == -(-11 // limit)


def test_a_large_archive_is_listed_whole_in_few_requests(stage, service, sky, monkeypatch):
    for number in range(700):
        name = f"jw07777{number % 9 + 1:03d}001_02101_{number:05d}_nrcb4_uncal.fits"
        holding = next(iter(service.archive.holdings.values()))
        root = name.rpartition("_nrcb4")[0]
        service.archive.holdings[name] = type(holding)(holding.path, root, size=number + 1)
        row = {**service.archive.rows[0], "fileSetName": root, "detector": "NRCB4", "program": 7777}
        service.archive.rows.append(row | {"ArchiveFileID": 100_000 + number})
    monkeypatch.setattr(archive_search, "PAGE_ROWS", 300)
    sky.requests.clear()
    table = stage.query_uncal(program=7777)
    assert len(table) == 700
    assert sorted(table["size"]) == list(range(1, 701))
    assert len(_searches(sky)) == 3
    # The columns, three pages, and a list for every hundred datasets.
    assert len(sky.requests) == 1 + 3 + 7


def test_names_of_no_exposure_are_left_out_and_told(stage, service):
    odd = "jw01234001001_02101_00001_nrcz9_uncal.fits"
    service.archive.extra["jw01234001001_02101_00001"].append((odd, 100))
    try:
        with pytest.warns(LegacySurveyWarning, match=r"1 uncal file\(s\) have names"):
            assert len(stage.query_uncal(program=1234)) == 11
    finally:
        service.archive.extra["jw01234001001_02101_00001"].pop()


def test_a_list_that_lacks_a_file_is_asked_for_again(stage, service, sky):
    service.forgets = 2
    assert len(stage.query_uncal(program=1234)) == 11
    assert sum("post_list" in record.path for record in sky.requests) == 3


def test_a_list_that_goes_on_lacking_files_is_told(stage, service):
    service.forgets = 10
    with pytest.warns(LegacySurveyWarning, match="lists not all files of 1 dataset"):
        assert len(stage.query_uncal(program=1234)) == 10


def test_a_service_that_ends_before_its_own_count_is_told(stage, service):
    service.reach = 4
    with pytest.warns(LegacySurveyWarning, match="found 11 rows and gave 4 of them"):
        assert 0 < len(stage.query_uncal(program=1234)) < 11


def test_columns_that_the_service_lacks_are_done_without(stage, service, monkeypatch):
    from astroquery_lis.sandbox import mast as sandbox_mast

    few = {
        k: v for k, v in sandbox_mast.COLUMNS.items() if k not in ("s_region", "pupil", "detector")
    }
    monkeypatch.setattr(sandbox_mast, "COLUMNS", few)
    table = stage.query_uncal(program=1234, filters="F162M")
    assert set(table["detector"]) >= {"NRCA1"}
    assert set(table["s_region"]) == {""}


def test_a_service_of_another_form_is_refused(stage, monkeypatch):
    from astroquery_lis.sandbox import mast as sandbox_mast

    monkeypatch.setattr(sandbox_mast, "COLUMNS", {"program": "integer"})
    with pytest.raises(UnexpectedContentError, match="no column fileSetName, productLevel"):
        stage.query_uncal(program=1234)


def test_the_payload_is_what_would_be_asked(stage, sky):
    place = SkyCoord(10, 20, unit="deg")
    asked = stage.query_uncal(
        program=1234, exp_type="NRC_IMAGE", coordinates=place, get_query_payload=True
    )
    assert set(asked) == {"service", "params"}
    assert asked["service"].endswith("/search/jwst/api/v0.1/search")
    payload = asked["params"]
    assert payload["program"] == "1234"
    assert payload["productLevel"] == "1b"
    assert payload["exp_type"] == "NRC_IMAGE"
    assert "s_region" in payload["select_cols"]
    assert payload["coordinates"] == "10 20"
    assert not _searches(sky)


def test_the_summary_is_logged(stage, caplog):
    with caplog.at_level("INFO"):
        table = stage.query_uncal(program=1234, public_only=True)
    size = sum(table["size"]) / 1e6
    assert f"10 uncal file(s), {size:.1f} MB; 1 not public yet and left out." in caplog.text


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"program": 0}, "program=0 must be a number from 1 to 99999"),
        ({"program": "SMACS"}, "program='SMACS' must be"),
        ({"program": []}, "is empty"),
        ({"program": 1, "observation": 1000}, "observation=1000"),
        ({"observation": 1}, "observation says nothing without program"),
        ({"program": 1, "instrument": "NIRCAMM"}, "Did you mean 'NIRCAM'"),
        ({"program": 1, "filters": "F200"}, "Did you mean 'F200W'"),
        ({"program": 1, "filters": ["F200W", "r"]}, "filters='r' is none of"),
        ({"program": 1, "detector": "NRCA5"}, "Did you mean 'NRCA"),
        ({"program": 1, "exp_type": "NRC_IMAG"}, "Did you mean 'NRC_IMAGE'"),
        ({"program": 1, "start_date": "summer"}, "start_date='summer' must be a Time"),
        ({"program": 1, "start_date": "2023-01-02", "end_date": "2023-01-01"}, "is before"),
        ({"coordinates": SkyCoord(1, 2, unit="deg"), "radius": 3}, "must be an angle with a unit"),
        ({"coordinates": SkyCoord(1, 2, unit="deg"), "radius": 3 * u.deg}, "at most 1 deg"),
        ({"coordinates": SkyCoord([1, 2], [2, 3], unit="deg")}, "expected one position"),
        ({"program": 1, "radius": 1 * u.arcmin}, "says nothing without coordinates"),
        ({"coordinates": 2736}, "a program is program=2736"),
        ({"instrument": "NIRCAM"}, "most of the archive"),
        ({}, "most of the archive"),
    ],
)
def test_bad_arguments_are_refused_before_any_request(stage, sky, asked, words):
    with pytest.raises(InvalidRequestError, match=words):
        stage.query_uncal(**asked)
    assert len(sky.requests) == 0


@pytest.mark.parametrize(
    ("kind", "options", "error"),
    [
        ("status", {"code": 400}, RefusedQueryError),
        ("status", {"code": 403}, TransferError),
        ("status", {"code": 404}, NotFoundError),
        ("status", {"code": 429, "retry_after": 100_000}, RateLimitedError),
        ("status", {"code": 429, "retry_after": 0}, RateLimitedError),
        ("status", {"code": 500}, ServiceDownError),
        ("status", {"code": 503}, ServiceDownError),
        ("html", {}, UnexpectedContentError),
        ("cut", {}, (TruncatedError, ServiceDownError)),
        ("refuse", {}, ServiceDownError),
        ("slow", {"seconds": 30}, ServiceTimeoutError),
    ],
)
@pytest.mark.parametrize("match", [SEARCH, LISTS, "*column_list*"])
def test_faults_are_typed(stage, sky, match, kind, options, error):
    if kind == "slow":
        stage.timeout = 1.0
    sky.faults.add(kind, match=match, times=None, **options)
    with pytest.raises(error) as caught:
        stage.query_uncal(program=1234)
    assert caught.value.url.startswith(sky.url)
    if kind == "status":
        assert caught.value.status == options["code"]


def test_a_service_that_cannot_be_reached(stage):
    with (
        mast.conf.set_temp("server", "http://127.0.0.1:9"),
        pytest.raises(UnreachableError, match="connection refused") as caught,
    ):
        stage.query_uncal(program=1234)
    assert set(caught.value.reasons) == {"127.0.0.1:9"}
    assert "mirror=" not in str(caught.value)  # as of the survey


@pytest.mark.parametrize("code", [429, 503])
def test_a_service_that_asks_for_patience_gets_it(stage, sky, code):
    sky.faults.add("status", match=SEARCH, times=1, code=code, retry_after=0)
    assert len(stage.query_uncal(program=1234)) == 11


def test_the_names_are_those_of_the_pipeline():
    models = pytest.importorskip("stdatamodels.jwst.datamodels")
    keywords = models.JwstDataModel().schema["properties"]["meta"]["properties"]
    instrument = keywords["instrument"]["properties"]

    def allowed(schema):
        choices = [
            *schema.get("enum", ()),
            *(v for one in schema.get("anyOf", ()) for v in allowed(one)),
        ]
        return set(choices)

    assert set(WORDS["instruments"]) <= allowed(instrument["name"])
    assert set(WORDS["detectors"]) <= allowed(instrument["detector"])
    kinds = allowed(keywords["exposure"]["properties"]["type"])
    assert set(UNCAL_TYPES) <= kinds
    others = {kind for kind in kinds - set(UNCAL_TYPES) if not kind.startswith("FGS_")}
    assert others <= {"ANY", "N/A"}
    elements = set().union(
        *(allowed(instrument[wheel]) for wheel in ("filter", "pupil", "grating", "band"))
    )
    assert set(WORDS["elements"]) <= elements
    others = {name for name in elements - set(WORDS["elements"]) if "-" not in name}
    assert others <= {"ANY", "N/A", "UNKNOWN", "MULTIPLE"}


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("jw02736001001_02101_00001_nrca1_uncal.fits", "02736/001"),
        ("jw02736-o007_20230101t000000_image3_00001_asn.json", "02736/007"),
        ("jw02736-c1001_20230101t000000_image3_00001_asn.json", "02736/c1001"),
        ("jw02736-o007_t001_nircam_clear-f090w_i2d.fits", "02736/007"),
        ("../../etc/passwd", "other"),
    ],
)
def test_folders_follow_from_names(name, folder):
    assert folder_of(name) == folder


def test_only_exposures_have_uncal_names():
    assert parse_uncal_name("jw02736001001_02101_00001_nrca1_rate.fits") is None
    assert parse_uncal_name("jw02736001001_02101_00001_nrcz9_uncal.fits") is None
    assert parse_uncal_name("jw02736001001_gs-id_1_image_uncal.fits") is None
    found = parse_uncal_name("jw02736001001_0210n_00012_mirifulong_uncal.fits")
    assert (found["activity"], found["exposure"], found["detector"]) == ("0210n", 12, "MIRIFULONG")


def test_numpy_numbers_are_numbers(stage):
    assert len(stage.query_uncal(program=np.array([1234, 4321]))) == 12
