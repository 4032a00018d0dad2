"""Sheets and pages of many cutouts: complete, safe, self-contained, usable by keyboard."""

import base64
import io
import json
import re
import shutil
import subprocess
import tracemalloc
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import MaskedColumn, QTable, Table

from astroquery_lis import LegacySurveyClass, conf, pictures
from astroquery_lis.exceptions import InvalidRequestError, NoCoverageError
from astroquery_lis.pictures.sheet import GAP_PIX, LABEL_PIX

NAMES = ("galaxy", "star", 'a <b> & "c"', "far off", "nowhere")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def manifest(served_sky, tmp_path_factory):
    """What became of five targets, with their positions and a magnitude."""
    served_sky.faults.clear()
    places = [served_sky.positions[name] for name in ("field", "star", "split", "off")]
    table = Table({"id": NAMES})
    table["ra"] = [*(place.ra.deg for place in places), np.nan]
    table["dec"] = [*(place.dec.deg for place in places), np.nan]
    survey = LegacySurveyClass()
    survey.mirror = served_sky.mirror_url
    folder = tmp_path_factory.mktemp("cutouts")
    with conf.set_temp("cache_dir", str(folder / "cache")):
        rows = survey.download_cutouts(
            table,
            (48, 64),
            bands="grz",
            download_dir=folder,
            id_column="id",
            show_progress=False,
        )
    rows["ra"], rows["dec"] = table["ra"] * u.deg, table["dec"] * u.deg
    rows["mag"] = [18.5, 9.25, 21.0, np.nan, 10.0]
    assert list(rows["Status"]) == ["COMPLETE"] * 3 + ["NODATA", "SKIPPED"]
    return rows


class _Page(HTMLParser):
    """The rows of the table, and everything that would be loaded."""

    def __init__(self, path):
        super().__init__()
        self.rows, self.loaded, self.links, self.tags = [], [], [], []
        self._cell = None
        self.feed(Path(path).read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")
            self._cell = True
        if "src" in attrs:
            self.loaded.append(attrs["src"])
        if tag == "a" and "href" in attrs:
            self.links.append(attrs["href"])

    def handle_endtag(self, tag):
        if tag == "td":
            self._cell = None

    def handle_data(self, data):
        if self._cell:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def page(manifest, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "index.html"
    title = "Cutouts of </title> & more"
    assert pictures.gallery(manifest, path, title=title, columns=["mag"]) == path
    return path


def test_every_target_has_its_row(manifest, page):
    rows = [row for row in _Page(page).rows if row]
    assert [row[2] for row in rows] == list(NAMES)
    assert [row[5] for row in rows] == list(manifest["Status"])
    assert [row[3] for row in rows][:2] == ["45.090000", "45.131200"]
    assert rows[4][3:5] == ["", ""]
    assert [row[6] for row in rows] == ["grz", "grz", "grz", "", ""]
    assert rows[1][7] == "9.25"
    assert "no data at RA 95" in rows[3][8]
    assert "no position" in rows[4][8]


def test_pictures_are_those_of_the_files(manifest, page):
    image = pytest.importorskip("PIL.Image")
    found = [address for address in _Page(page).loaded if address]
    assert len(found) == 3
    for address, path in zip(found, manifest["Local Path"], strict=False):
        head, code = address.split(",")
        assert head == "data:image/jpeg;base64"
        with image.open(io.BytesIO(base64.b64decode(code))) as read:
            shown = np.asarray(read).astype(int)
        with fits.open(path) as hdul:
            picture = pictures.rgb(hdul)
        assert np.abs(shown - picture).mean() < 8
        assert np.abs(shown - picture[::-1]).mean() > 14
        assert shown.shape == (48, 64, 3)


def test_the_page_needs_nothing_but_itself(page):
    parsed = _Page(page)
    assert not [tag for tag, _ in parsed.tags if tag in ("link", "iframe", "object", "base")]
    assert not [a for tag, a in parsed.tags if tag == "script" and "src" in a]
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", text)
    (policy,) = [a["content"] for _, a in parsed.tags if "http-equiv" in a]
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_links_lead_to_the_viewer(page):
    links = _Page(page).links
    root = "https://www.legacysurvey.org/viewer"
    assert links[0] == f"{root}?ra=45.090000&dec=0.062000&zoom=15&layer=ls-dr10"
    assert len(links) == 4


def test_text_cannot_become_markup(page):
    text = page.read_text(encoding="utf-8")
    assert "<b>" not in text
    assert "<title>Cutouts of &lt;/title&gt; &amp; more</title>" in text


def test_what_cannot_be_read_says_why(manifest, tmp_path):
    table = manifest[:3].copy()
    broken = tmp_path / "broken.fits"
    broken.write_bytes(Path(table["Local Path"][1]).read_bytes()[:9000])
    table["Local Path"] = [str(tmp_path / "gone.fits"), str(broken), table["Local Path"][2]]
    path = pictures.gallery(table, tmp_path / "page.html")
    parsed = _Page(path)
    rows = [row for row in parsed.rows if row]
    assert "No picture: FileNotFoundError" in rows[0][7]
    assert "No picture: " in rows[1][7]
    assert len([address for address in parsed.loaded if address]) == 1
    assert [item.name for item in tmp_path.iterdir() if item.name.startswith(".")] == []


def test_cutouts_in_memory_and_errors_in_their_place(sky, survey, tmp_path):
    hdul = survey.get_cutout(sky.positions["star"], 32, bands="grz")
    error = NoCoverageError("nothing there")
    path = pictures.gallery([(7, hdul), (3, error)], tmp_path / "page.html")
    rows = [row for row in _Page(path).rows if row]
    assert [(row[2], row[5]) for row in rows] == [("7", "COMPLETE"), ("3", "NODATA")]
    assert rows[0][3] == "45.131200"
    sheet = pictures.contact_sheet([(7, hdul), (3, error)], size=32, columns=2, labels=False)
    assert sheet.shape == (32 + 2 * GAP_PIX, 64 + 3 * GAP_PIX, 3)
    assert np.array_equal(sheet[GAP_PIX:-GAP_PIX, GAP_PIX : GAP_PIX + 32], pictures.rgb(hdul))


def test_positions_may_be_given(manifest, tmp_path):
    table = manifest[:2].copy()
    table.remove_columns(["ra", "dec"])
    rows = _Page(pictures.gallery(table, tmp_path / "header.html")).rows
    assert [row[3] for row in rows if row] == ["45.090000", "45.131200"]
    galactic = SkyCoord([1, 2], [3, 4], unit="deg").galactic
    rows = _Page(pictures.gallery(table, tmp_path / "given.html", coordinates=galactic)).rows
    assert [row[3] for row in rows if row] == ["1.000000", "2.000000"]
    with pytest.raises(InvalidRequestError, match="coordinates: 2 positions for 1 rows"):
        pictures.gallery(table[:1], tmp_path / "no.html", coordinates=galactic)


def test_further_columns_may_have_units_masks_and_text(manifest, tmp_path):
    table = QTable(manifest[:2])
    table["z"] = MaskedColumn([0.5, 0.6], mask=[False, True])
    table["size"] = [3, 4] * u.arcsec
    table["note"] = ["<i>", "b"]
    path = pictures.gallery(table, tmp_path / "page.html", columns=["z", "size", "note"])
    parsed = _Page(path)
    assert [row[7:10] for row in parsed.rows if row] == [
        ["0.5", "3.0 arcsec", "<i>"],
        ["", "4.0 arcsec", "b"],
    ]
    kinds = {a["data-label"]: a["class"] for tag, a in parsed.tags if tag == "td"}
    names = ("z", "size", "note", "RA")
    assert [kinds[name] for name in names] == ["number", "number", "", "number"]
    with pytest.raises(InvalidRequestError, match="has no column w; it has"):
        pictures.gallery(table, path, columns="w")


def test_hdf5_files_are_shown_too(sky, survey, tmp_path):
    pytest.importorskip("h5py")
    targets = SkyCoord([sky.positions["star"], sky.positions["field"]])
    folder = tmp_path / "cutouts"
    rows = survey.download_cutouts(
        targets, 32, bands="grz", download_dir=folder, output="hdf5", show_progress=False
    )
    sheet = pictures.contact_sheet(rows, size=32, columns=2, labels=False)
    for number, name in enumerate(("star", "field")):
        hdul = survey.get_cutout(sky.positions[name], 32, bands="grz")
        x = GAP_PIX + number * (32 + GAP_PIX)
        assert np.array_equal(sheet[GAP_PIX:-GAP_PIX, x : x + 32], pictures.rgb(hdul))
    parsed = _Page(pictures.gallery(rows, tmp_path / "page.html"))
    assert [row[3] for row in parsed.rows if row] == ["45.131200", "45.090000"]


def test_a_file_that_is_replaced_is_read_anew(sky, survey, tmp_path):
    pytest.importorskip("h5py")
    tables = []
    for name in ("star", "field"):
        table = survey.download_cutouts(
            SkyCoord([sky.positions[name]]),
            32,
            bands="grz",
            download_dir=tmp_path / name,
            output="hdf5",
            show_progress=False,
        )
        hdul = survey.get_cutout(sky.positions[name], 32, bands="grz")
        tables.append((table, pictures.rgb(hdul)))
    (star, of_star), (field, of_field) = tables
    for picture in (of_star, of_field):
        sheet = pictures.contact_sheet(star, size=32, labels=False)
        assert np.array_equal(sheet[GAP_PIX:-GAP_PIX, GAP_PIX:-GAP_PIX], picture)
        Path(field["Local Path"][0]).replace(star["Local Path"][0])
        field["Local Path"] = star["Local Path"]


@pytest.mark.parametrize("name", ["cutouts.h5", "cutouts.zarr.zip"])
def test_a_file_of_many_cutouts_needs_its_manifest(tmp_path, name):
    with pytest.raises(InvalidRequestError, match="give the manifest that came with it"):
        pictures.contact_sheet(str(tmp_path / name), labels=False)
    with pytest.raises(InvalidRequestError, match="give the manifest that came with it"):
        pictures.gallery([tmp_path / name], tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_paths_may_begin_with_the_home_directory(manifest, tmp_path, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    pixels = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)
    image.fromarray(pixels).save(tmp_path / "one.png")
    shutil.copy(manifest["Local Path"][1], tmp_path / "two.fits")
    rows = [
        pictures.contact_sheet([f"{folder}/one.png", f"{folder}/two.fits"], size=32, labels=False)
        for folder in ("~", tmp_path)
    ]
    assert np.array_equal(*rows)
    assert np.array_equal(rows[0][GAP_PIX:-GAP_PIX, GAP_PIX : GAP_PIX + 32], pixels)


def test_a_row_without_a_status_is_shown(manifest, tmp_path):
    table = manifest[:2].copy()
    table["Status"] = ["", "COMPLETE"]
    parsed = _Page(pictures.gallery(table, tmp_path / "page.html"))
    assert [row[5] for row in parsed.rows if row] == ["", "COMPLETE"]
    assert len([address for address in parsed.loaded if address]) == 2


def test_a_sheet_has_a_place_for_every_row(manifest):
    pytest.importorskip("PIL")
    sheet = pictures.contact_sheet(manifest, columns=2, size=128)
    high, wide = 128 + LABEL_PIX + GAP_PIX, 128 + GAP_PIX
    assert sheet.shape == (3 * high + GAP_PIX, 2 * wide + GAP_PIX, 3)
    with fits.open(manifest["Local Path"][1]) as hdul:
        star = pictures.rgb(hdul).repeat(2, axis=0).repeat(2, axis=1)
    y, x = GAP_PIX + (128 - 96) // 2, GAP_PIX + wide
    assert np.array_equal(sheet[y : y + 96, x : x + 128], star)
    strip = sheet[GAP_PIX + 128 : GAP_PIX + 128 + LABEL_PIX, GAP_PIX : GAP_PIX + 128]
    assert strip.max() > 200
    named = pictures.contact_sheet(manifest, columns=2, size=128, labels=["ab"] * 5)
    assert not np.array_equal(named, sheet)


def test_a_sheet_of_many_is_held_once():
    rows = [ValueError("none")] * 2000
    pictures.contact_sheet(rows[:1], size=64, labels=False)  # what is imported then
    tracemalloc.start()
    try:
        sheet = pictures.contact_sheet(rows, size=64, labels=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * sheet.nbytes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"columns": 0}, "columns=0 must be a number of targets"),
        ({"size": 4}, "size=4 must be a number of pixels, 8 at least"),
        ({"labels": ["a"]}, "labels: 1 texts for 5 rows"),
        ({"brightness": -1}, "brightness=-1 must be"),
    ],
)
def test_wrong_arguments_are_refused(manifest, words, message):
    pytest.importorskip("PIL")
    with pytest.raises(InvalidRequestError, match=message):
        pictures.contact_sheet(manifest, **words)


def test_what_is_no_manifest_is_refused(tmp_path):
    pytest.importorskip("PIL")
    path = tmp_path / "page.html"
    with pytest.raises(InvalidRequestError, match="no column Local Path, Status; it has"):
        pictures.gallery(Table({"ra": [1.0]}), path)
    with pytest.raises(InvalidRequestError, match="number 0 is of type int"):
        pictures.gallery([3], path)
    with pytest.raises(InvalidRequestError, match="there are no rows"):
        pictures.contact_sheet([])
    with pytest.raises(InvalidRequestError, match="cutouts in memory have no columns"):
        pictures.gallery([], path, columns=["mag"])
    assert list(tmp_path.iterdir()) == []


# ---- in a browser -------------------------------------------------------------------------------

SCRIPT = """
const told = {};
const key = (name, target) => (target ?? document.activeElement).dispatchEvent(
  new KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true }));
const names = () => [...document.querySelectorAll("tbody tr:not([hidden]) .name")]
  .map((cell) => cell.textContent);
const focused = () => document.activeElement.closest("tr")?.querySelector(".name").textContent;
const dialog = document.querySelector("dialog");
told.first = names();
const mag = [...document.querySelectorAll("th button")].find((b) => b.textContent === "mag");
mag.click(); told.ascending = names();
mag.click(); told.descending = names();
told.sorted = mag.parentElement.getAttribute("aria-sort");
const search = document.getElementById("search");
key("/", document.body); told.slash = document.activeElement.id;
search.value = "star"; search.dispatchEvent(new Event("input")); told.found = names();
search.value = ""; search.dispatchEvent(new Event("input"));
document.querySelector("input[value=NODATA]").click(); told.without = names();
told.shown = document.getElementById("shown").textContent;
document.querySelector("tbody tr button").focus(); told.focus = [focused()];
key("ArrowDown"); told.focus.push(focused());
key("End"); told.focus.push(focused());
key("ArrowDown"); told.focus.push(focused());
key("Home"); told.focus.push(focused());
document.activeElement.click();
told.open = [dialog.open, dialog.querySelector("h2").textContent];
key("ArrowRight", dialog); told.next = dialog.querySelector("h2").textContent;
told.away = dialog.querySelector("a").href;
document.getElementById("view").click();
told.grid = document.body.className;
told.width = [document.documentElement.scrollWidth, window.innerWidth];
/* The page's own listener comes first; the answer is written when its work is done. */
dialog.addEventListener("close", () => {
  told.back = focused();
  document.body.dataset.told = JSON.stringify(told);
});
dialog.close();
"""


def _browse(path, profile, *flags):
    return subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
            *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
            *("--disable-sync", f"--user-data-dir={profile}", "--enable-logging=stderr"),
            *("--virtual-time-budget=20000", "--dump-dom", *flags, path.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")
@pytest.mark.parametrize("size", ["1200,900", "500,900"])
def test_the_page_in_a_browser(page, tmp_path, size):
    text = page.read_text(encoding="utf-8")
    probe = tmp_path / "probe.html"
    probe.write_text(text.replace("</body>", f"<script>{SCRIPT}</script></body>"), "utf-8")
    run = _browse(probe, tmp_path / "profile", f"--window-size={size}")
    assert "CONSOLE" not in run.stderr, run.stderr
    (body,) = [a for tag, a in _Parsed(run.stdout).tags if tag == "body"]
    told = json.loads(body["data-told"])
    galaxy, star, odd, far, nowhere = NAMES
    assert told["first"] == list(NAMES)
    assert told["ascending"] == [star, nowhere, galaxy, odd, far]
    assert told["descending"] == [odd, galaxy, nowhere, star, far]
    assert told["sorted"] == "descending"
    assert told["slash"] == "search"
    assert told["found"] == [star]
    assert told["without"] == [odd, galaxy, nowhere, star]
    assert told["shown"] == "4 of 5 shown"
    assert told["focus"] == [odd, galaxy, star, star, odd]
    assert told["open"] == [True, odd]
    assert told["next"] == galaxy
    assert "ra=45.090000" in told["away"]
    assert told["back"] == galaxy
    assert told["grid"] == "grid"
    assert told["width"][0] <= told["width"][1]


class _Parsed(_Page):
    def __init__(self, text):
        HTMLParser.__init__(self)
        self.rows, self.loaded, self.links, self.tags = [[]], [], [], []
        self._cell = None
        self.feed(text)
