"""The simulated MAST, asked by the real astroquery.mast client alone."""

import json

import astropy.units as u
import numpy as np
import pytest
import requests
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astroquery import mast

from astroquery_lis.sandbox.mast import TOKEN, example_files, serve_mast

REGION = "POLYGON ICRS  10.00 20.00 10.04 20.00 10.04 20.04 10.00 20.04"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Three uncal files and an association."""
    folder = tmp_path_factory.mktemp("held")
    made = []
    for exposure, detector in ((1, "nrca1"), (1, "nrcalong"), (2, "nrca1")):
        path = folder / f"jw01234001001_02101_{exposure:05d}_{detector}_uncal.fits"
        primary = fits.PrimaryHDU()
        primary.header.update(
            {
                "INSTRUME": "NIRCAM",
                "DETECTOR": detector.upper(),
                "EXP_TYPE": "NRC_IMAGE",
                "FILTER": "F444W" if "long" in detector else "F200W",
                "PUPIL": "CLEAR",
                "DATE-OBS": "2022-08-01",
                "TIME-OBS": f"0{exposure}:00:00",
                "TARG_RA": 10.02,
                "TARG_DEC": 20.02,
            }
        )
        sci = fits.ImageHDU(np.zeros((4, 8, 8), "u2"), name="SCI")
        sci.header["S_REGION"] = REGION
        fits.HDUList([primary, sci]).writeto(path)
        made.append(path)
    member = {"expname": made[0].name.replace("_uncal", "_cal"), "exptype": "science"}
    products = [{"name": "jw01234-o001_t001_nircam_clear-f200w", "members": [member]}]
    association = folder / "jw01234-o001_20220901t000000_image3_00001_asn.json"
    association.write_text(json.dumps({"products": products}))
    return [*made, association]


@pytest.fixture
def service(sky, files):
    return serve_mast(sky, files, exclusive=[files[1].name])


@pytest.fixture
def client(service):
    """The real client, told where the sandbox is the way its own attributes allow."""
    with mast.conf.set_temp("server", service.url):
        client = mast.MastMissionsClass(mission="jwst")
        client._service_api_connection.SERVICE_URL = service.url
        client._service_api_connection.MISSIONS_DOWNLOAD_URL = service.url + "/search/"
        client.mission = "jwst"
        yield client


def test_the_handle_knows_the_service(sky, service):
    assert sky.mast is service
    assert sky.mast_url == service.url


class Simulated:
    """What a simulation of another mode gives."""

    def __init__(self, rates):
        self.rates = rates


@pytest.mark.parametrize("way", ["rates", "path", "text"])
def test_one_file_and_what_was_simulated_are_served_too(sky, files, way):
    given = {"rates": Simulated(files[:1]), "path": files[0], "text": str(files[0])}
    service = serve_mast(sky, given[way], exclusive=files[0].name)
    holdings = service.archive.holdings
    assert list(holdings) == [files[0].name]
    assert holdings[files[0].name].exclusive


def test_an_exclusive_file_that_is_not_served_is_refused(sky, service, files):
    with pytest.raises(ValueError, match="exclusive: jw01234_uncal.fits is not among"):
        serve_mast(sky, files, exclusive=[files[0].name, "jw01234_uncal.fits"])
    assert sky.mast is service


def test_a_cone_without_a_radius_is_its_centre(service, files):
    for radius in ({"radius": 0}, {}):
        query = {"target": ["10.02 20.02"], "conditions": [{"productLevel": "1b"}], **radius}
        answer = requests.post(f"{service.url}/search/jwst/api/v0.1/search", json=query, timeout=60)
        assert answer.json()["totalResults"] == 3


def test_the_client_reads_the_columns(client):
    assert "productLevel" in list(client.get_column_list()["name"])


def test_the_client_finds_uncal_rows(client):
    table = client.query_criteria(program="1234", productLevel="1b", exp_type="NRC_IMAGE")
    assert list(table["detector"]) == ["NRCA1", "NRCALONG", "NRCA1"]
    assert table["program"].dtype.kind == "i"
    assert set(table["fileSetName"]) == {
        "jw01234001001_02101_00001",
        "jw01234001001_02101_00002",
    }


@pytest.mark.parametrize(
    ("criteria", "n"),
    [
        ({"filter": "F2*"}, 2),
        ({"filter": "!F200W"}, 1),
        ({"detector": "NRCALONG,NRS1"}, 1),
        ({"visit": "<1"}, 0),
        ({"date_beg": ">2022-08-01 01:30:00"}, 1),
        ({"date_obs": "2022-07-31..2022-08-02"}, 3),
    ],
)
@pytest.mark.filterwarnings("ignore:Query returned no results")
def test_conditions_mean_what_the_clients_page_says(client, criteria, n):
    assert len(client.query_criteria(productLevel="1b", **criteria)) == n


def test_a_cone_is_round(client):
    center = SkyCoord(10.02, 20.02, unit="deg")
    assert len(client.query_region(center, radius=10 * u.arcsec, productLevel="1b")) == 3
    away = center.directional_offset_by(0 * u.deg, 20 * u.arcsec)
    with pytest.warns(match="no results"):
        assert len(client.query_region(away, radius=10 * u.arcsec, productLevel="1b")) == 0


def test_the_client_lists_files(client, files):
    table = client.get_product_list("jw01234001001_02101_00001")
    row = table[table["filename"] == files[0].name][0]
    assert row["size"] == files[0].stat().st_size
    assert any("_gs-" in name for name in table["filename"])


def test_the_client_downloads_a_file(client, files, tmp_path):
    status, _, _ = client.download_file(files[0].name, local_path=tmp_path, verbose=False)
    assert status == "COMPLETE"
    assert (tmp_path / files[0].name).read_bytes() == files[0].read_bytes()


def test_the_client_is_refused_what_is_exclusive_until_it_logs_in(client, files, tmp_path):
    where = {"local_path": tmp_path, "verbose": False}
    status, message, _ = client.download_file(files[1].name, **where)
    assert status == "ERROR"
    assert "401" in message
    client._auth_obj.SESSION_INFO_URL = mast.conf.server + "/whoami"
    client._auth_obj.login(token=TOKEN)
    assert client.download_file(files[1].name, **where)[0] == "COMPLETE"


def test_the_client_does_not_accept_a_wrong_token(client):
    client._auth_obj.SESSION_INFO_URL = mast.conf.server + "/whoami"
    with pytest.raises(Exception, match="token invalid"):
        client._auth_obj.login(token="old")


def test_the_client_says_what_a_bad_request_is(client):
    client.columns["jwst"] = {"name": ["nonsense"]}
    with pytest.raises(mast.missions.InvalidQueryError):
        client.query_criteria(nonsense="1")


def test_files_come_in_ranges_and_change_on_demand(sky, service, files):
    url = f"{service.url}/api/v0.1/Download/file"
    params = {"uri": f"mast:JWST/product/{files[0].name}"}
    whole = requests.get(url, params=params, timeout=60)
    assert whole.content == files[0].read_bytes()
    headers = {"Range": "bytes=100-199", "If-Range": whole.headers["ETag"]}
    part = requests.get(url, params=params, headers=headers, timeout=60)
    assert part.status_code == 206
    assert part.content == whole.content[100:200]
    sky.faults.add("etag", match="*Download*", content=True)
    again = requests.get(url, params=params, headers=headers, timeout=60)
    assert again.status_code == 200
    assert again.content != whole.content


def test_other_names_are_refused(service, tmp_path):
    path = tmp_path / "notes.fits"
    path.touch()
    with pytest.raises(ValueError, match=r"notes\.fits is not the name"):
        service.archive.add(path)


def test_the_example_files_are_always_the_same(tmp_path):
    first = example_files(tmp_path / "a")
    again = example_files(tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert len(first) == 5
    for path in first[:4]:
        with fits.open(path) as hdul:
            assert hdul[0].header["TELESCOP"] == "JWST"
            assert hdul["SCI"].data.shape == (1, 4, 64, 64)
