"""What a notebook shows of cutouts, manifests, settings and citations."""

import re

import pytest
from astropy.io import fits
from astropy.table import Table

from astroquery_lis.pictures.page import show_in_notebooks


@pytest.fixture
def shown():
    """Return the HTML that a notebook shows for an object, or None where it shows text."""
    shell_class = pytest.importorskip("IPython").core.interactiveshell.InteractiveShell
    shell = shell_class.instance()
    show_in_notebooks()
    formatter = shell.display_formatter
    formatter.active_types = ["text/plain", "text/html"]
    yield lambda value: formatter.format(value)[0].get("text/html")
    shell_class.clear_instance()


def test_a_cutout_is_shown_by_its_planes_and_another_list_as_ever(shown, survey, sky):
    hdul = survey.get_cutout(sky.positions["field"], 600, bands="gr", products=("image", "invvar"))
    page = shown(hdul)
    assert page.count("<img") == 5
    assert "dr10" in page
    assert len(page) < 300_000
    assert shown(fits.HDUList([fits.PrimaryHDU()])) is None


def test_a_manifest_is_shown_with_its_counts(shown, survey, sky, tmp_path):
    targets = Table({"ra": [45.09, 45.091, 200.0], "dec": [0.062, 0.062, -80.0]})
    manifest = survey.download_cutouts(targets, 16, download_dir=tmp_path, bands="r")
    assert shown(manifest).startswith("<p>2 COMPLETE, 1 NODATA</p>")
    assert "COMPLETE" not in shown(targets)


def test_the_client_tells_its_settings_without_secrets(survey):
    survey.mirror = "https://me:secret@example.org/files/{path}?token=hidden"
    text = repr(survey)
    assert re.search(r"release dr10, mirrors .*example.org.*, time-out \d+ s, cache /", text)
    assert not re.search("secret|hidden", text)
    assert repr(survey.cite()) == str(survey.cite())
