"""The user's MAST token: where it comes from, what it is shown to, what is said of it."""

import pytest
from astroquery import mast

from astroquery_lis.exceptions import (
    InvalidRequestError,
)
from astroquery_lis.jwst_stage import archive_jobs
from astroquery_lis.sandbox.mast import TOKEN
from astroquery_lis.sandbox.web import Response

from .archive_files import is_right

DOWNLOAD = "*Download/file*"
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*file\\(s\\) could not be had:astroquery_lis.exceptions.LegacySurveyWarning"
)


def _message(stage, table, folder, **kwargs):
    manifest = stage.download_uncal(table[~table["public"]], download_dir=folder, **kwargs)
    return manifest["Status"][0], str(manifest["Message"][0])


def test_without_a_token_the_message_says_how_to_give_one(stage, table, tmp_path):
    status, message = _message(stage, table, tmp_path)
    assert status == "ERROR"
    for word in ("token=", "MAST_API_TOKEN", "login", "auth.mast.stsci.edu", "HTTP 401"):
        assert word in message


def test_an_expired_token_is_said_to_be_one(stage, table, tmp_path):
    status, message = _message(stage, table, tmp_path, token="a-token-of-old")
    assert status == "ERROR"
    assert "the argument token" in message
    assert "has expired" in message
    assert "a-token-of-old" not in message


def test_a_token_of_somebody_without_access_is_said_to_be_one(stage, table, tmp_path, monkeypatch):
    monkeypatch.setenv("MAST_API_TOKEN", "a-token-of-a-stranger")
    status, message = _message(stage, table, tmp_path)
    assert status == "ERROR"
    assert "$MAST_API_TOKEN is valid, and its owner (A Stranger) has no access" in message
    assert "HTTP 403" in message


def test_the_argument_comes_before_the_environment_and_that_before_the_keyring(
    stage, table, held, tmp_path, monkeypatch
):
    import keyring
    from keyring.backend import KeyringBackend

    class Ring(KeyringBackend):
        priority = 1

        def get_password(self, service, username):
            return TOKEN if service.startswith("astroquery:mast") else None

        def set_password(self, service, username, password):
            raise NotImplementedError

    keyring.set_keyring(Ring())
    assert _message(stage, table, tmp_path / "keyring")[0] == "COMPLETE"
    monkeypatch.setenv("MAST_API_TOKEN", "wrong")
    assert _message(stage, table, tmp_path / "variable")[0] == "ERROR"
    assert _message(stage, table, tmp_path / "argument", token=TOKEN)[0] == "COMPLETE"


def test_the_token_is_shown_for_what_is_not_public_only(stage, service, table, held, tmp_path):
    manifest = stage.download_uncal(table, download_dir=tmp_path, token=TOKEN)
    assert set(manifest["Status"]) == {"COMPLETE"}
    is_right(tmp_path, held)
    shown = [authorization for _, authorization in service.asked]
    assert sorted(shown, key=str) == [None] * 4 + [f"token {TOKEN}"]


def test_the_token_follows_no_redirect_to_another_host(stage, sky, service, table, held, tmp_path):
    seen = []

    def elsewhere(request):
        seen.append({name.lower(): value for name, value in request.headers.items()})
        return service(request)

    def redirect(request):
        target = sky.url.replace("127.0.0.1", "localhost") + "/elsewhere" + request.path
        return Response(302, {"Location": f"{target}?{request.query}"})

    def stripped(request):
        request.path = request.path.removeprefix("/elsewhere")
        return elsewhere(request)

    sky.routes[:0] = [("/mast/api/v0.1/Download", redirect), ("/elsewhere", stripped)]
    service.archive.holdings[held[0].name].exclusive = False
    try:
        assert _message(stage, table, tmp_path, token=TOKEN)[0] == "COMPLETE"
    finally:
        del sky.routes[:2]
        service.archive.holdings[held[0].name].exclusive = True
    assert seen
    assert not any("authorization" in headers or "cookie" in headers for headers in seen)


def test_the_token_is_nowhere_to_be_read(stage, table, tmp_path, caplog):
    with caplog.at_level("DEBUG"):
        manifest = stage.download_uncal(table, download_dir=tmp_path, token=TOKEN)
    assert TOKEN not in caplog.text
    assert TOKEN not in "".join(map(str, manifest.pformat(max_width=-1, max_lines=-1)))
    assert TOKEN not in "".join(str(p) for p in tmp_path.rglob("*"))
    secret = archive_jobs.Token(TOKEN, "a test")
    settings = archive_jobs.ArchiveSettings("s", "f", secret, False, (), "c")
    job = archive_jobs.ArchiveJob(0, archive_jobs.ArchiveFile("f", "u"), settings)
    assert TOKEN not in repr(job)


@pytest.mark.parametrize("token", ["", "two words", "a\nb", "ключ", 5])
def test_what_cannot_be_a_token_is_refused(stage, sky, table, tmp_path, token):
    with pytest.raises(InvalidRequestError, match="cannot be a MAST token"):
        stage.download_uncal(table, download_dir=tmp_path, token=token)
    assert len(sky.requests) == 0


def test_the_token_does_not_travel_in_the_clear(stage, table, tmp_path):
    words = "is not sent to http://mast.example.org"
    in_the_clear = mast.conf.set_temp("server", "http://mast.example.org")
    with in_the_clear, pytest.raises(InvalidRequestError, match=words):
        stage.download_uncal(table, download_dir=tmp_path, token=TOKEN)
