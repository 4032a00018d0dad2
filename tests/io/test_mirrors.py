"""What names a mirror, what does not, and what of it is never shown."""

import base64
import logging
import pickle
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest
from astropy.table import Table

from astroquery_lis import LegacySurveyClass
from astroquery_lis.exceptions import InvalidRequestError, LegacySurveyError
from astroquery_lis.io.http import shared_client
from astroquery_lis.io.mirrors import local_folders, resolve_mirrors

SECRET = "S3CRET"


# ---- what is a mirror ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("https://a.org/root/", "https://a.org/root/dr10/south/x"),
        ("https://a.org/{path}", "https://a.org/dr10/south/x"),
        ("https://a.org/DESI-{RELEASE}/{rest}", "https://a.org/DESI-DR10/south/x"),
        ("https://a.org/get?file={path}", "https://a.org/get?file=dr10/south/x"),
    ],
)
def test_a_url_with_or_without_a_template_gives_each_file_an_address(text, address):
    (mirror,) = resolve_mirrors(text)
    assert mirror.locate("dr10/south/x") == mirror.origin("dr10/south/x") == address
    assert not local_folders([mirror])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("https://a.org/{release}/", r"neither \{path\} nor \{rest\}"),
        ("https://a.org/{RELEASE}/{release}", r"neither \{path\} nor \{rest\}"),
        ("https://a.org/{brick}", "placeholder"),
        ("https://a.org/{path", "placeholder"),
        ("https://a.org/{path.x}", "placeholder"),
        (f"https://a.org/root?token={SECRET}", "has a query"),
        ("http://", "host or port"),
        (f"http:///{{path}}?token={SECRET}", "host or port"),
        (f"https://user:{SECRET}@:80/root", "host or port"),
        ("http://a.org:99999/root", "host or port"),
        ("http://[::1/root", "host or port"),
        (f"https://me:{SECRET}@{{release}}.a.org/{{path}}", "host or port"),
        (f"https://me:{SECRET}@a.org{{path}}", "host or port"),
        (f"ftp://me:{SECRET}@a.org/", "neither a registered mirror"),
        (f"https://me:{SECRET}@a.org/{{release}}?token={SECRET}", "neither"),
        ("nersk", "registered: auto, nersc"),
    ],
)
def test_what_is_no_mirror_is_refused_without_a_secret(text, reason):
    with pytest.raises(InvalidRequestError, match=reason) as caught:
        resolve_mirrors(text)
    assert caught.value.parameter == "mirror"
    assert SECRET not in f"{caught.value} {caught.value.value!r}"


def test_a_folder_is_a_mirror_if_it_holds_a_release(tmp_path):
    with pytest.raises(InvalidRequestError, match="folder without a release"):
        resolve_mirrors(tmp_path)
    deep = tmp_path / "dr10" / "south" / "coadd"
    deep.mkdir(parents=True)
    for folder in (tmp_path / "dr10", deep):
        with pytest.raises(InvalidRequestError, match=f"{str(tmp_path)!r} does; did you mean"):
            resolve_mirrors(str(folder))
    (mirror,) = resolve_mirrors(tmp_path)
    assert local_folders([mirror]) == (tmp_path.resolve(),)
    assert mirror.origin("dr10/x") == f"{tmp_path.name}/dr10/x"
    assert resolve_mirrors(f"file://{tmp_path}")[0].template == mirror.template


# ---- secrets -------------------------------------------------------------------------------------


class _Guarded(SimpleHTTPRequestHandler):
    """Serves files to those who know the secret, in either way."""

    def do_GET(self):
        parts = urlsplit(self.path)
        login = self.headers.get("Authorization", "").removeprefix("Basic ")
        tokens = [*parse_qs(parts.query).get("token", []), base64.b64decode(login).decode()[3:]]
        if SECRET not in tokens:
            self.send_error(403)
        elif "nexp-g" in self.path:
            self.send_error(503)
        else:
            super().do_GET()

    def log_message(self, *args):
        """Be silent."""


@pytest.fixture(params=["user", "query"])
def guarded(sky, request):
    """The template of a mirror that asks for a secret."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Guarded, directory=str(sky.root)))
    Thread(target=server.serve_forever, daemon=True).start()
    host = f"127.0.0.1:{server.server_port}"
    if request.param == "user":
        yield f"http://me:{SECRET}@{host}/"
    else:
        yield f"http://{host}/{{path}}?token={SECRET}"
    server.shutdown()
    server.server_close()


def _address(mirror):
    return str(mirror.locate("dr10/x"))


def test_a_secret_is_sent_and_neither_shown_nor_written(sky, guarded, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    survey = LegacySurveyClass()
    star = sky.positions["star"]
    survey.mirror = guarded
    texts = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cutout = survey.get_cutout(star, 16, bands="r", source="bricks")
        texts += [repr(hdu.header) for hdu in cutout]
        rows = survey.query_tractor(star, radius="3 arcsec", source="files")
        client = shared_client(survey._client_options())
        texts += [repr(rows.meta), repr(survey.list_mirrors()), repr(vars(client))]
        targets = Table({"ra": [star.ra.deg], "dec": [star.dec.deg]})
        batch = survey.download_cutouts(
            targets, 16, bands="r", download_dir=tmp_path / "cutouts", show_progress=False
        )
        assert list(batch["Status"]) == ["COMPLETE"]
        files = survey.get_brick_files(
            "0451p000",
            products=("ccds-table", "nexp"),
            bands="g",
            download_dir=tmp_path / "files",
            show_progress=False,
        )
        assert sorted(files["Status"]) == ["COMPLETE", "ERROR"]
        texts += batch.pformat(max_lines=-1, max_width=-1)
        texts += files.pformat(max_lines=-1, max_width=-1)
    texts += [str(warning.message) for warning in caught]
    with pytest.raises(LegacySurveyError) as error:
        survey.get_cutout(star, 16, bands="g", products="nexp", source="bricks")
    texts += [str(error.value), str(error.value.url), caplog.text]
    texts.append(repr(survey.get_cutout(star, 16, bands="r", get_query_payload=True)))
    assert not [text for text in texts if SECRET in text]
    for folder in (tmp_path, survey.cache_location):
        written = [path for path in folder.rglob("*") if path.is_file()]
        assert len(written) > 2
        assert not [path for path in written if SECRET.encode() in path.read_bytes()]
        assert not [path for path in folder.rglob("*") if SECRET in path.name]


def test_a_worker_knows_the_secret_of_a_mirror_that_it_is_sent(sky, guarded, tmp_path):
    (mirror,) = resolve_mirrors(guarded)
    assert SECRET not in repr(mirror) + mirror.root_name + mirror.label
    assert pickle.loads(pickle.dumps(mirror)) == mirror
    star = sky.positions["star"]
    with ProcessPoolExecutor(1) as executor:
        assert SECRET not in executor.submit(_address, mirror).result()
        batch = LegacySurveyClass().download_cutouts(
            Table({"ra": [star.ra.deg], "dec": [star.dec.deg]}),
            16,
            bands="r",
            mirror=guarded,
            download_dir=tmp_path,
            executor=executor,
            show_progress=False,
        )
    assert list(batch["Status"]) == ["COMPLETE"]


def test_a_cutout_of_a_folder_does_not_say_where_the_folder_is(sky):
    cutout = LegacySurveyClass().get_cutout(
        sky.positions["star"], 16, bands="r", mirror=str(sky.root)
    )
    assert cutout[0].header["MIRROR"] == sky.root.name
    assert cutout[1].header["URL1"].startswith(f"{sky.root.name}/dr10/south/coadd/")
    assert str(sky.root.parent) not in "".join(repr(hdu.header) for hdu in cutout)
