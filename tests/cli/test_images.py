"""``cutout``, ``psf``, ``picture`` and ``url``."""

import io

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from astroquery_lis import LegacySurvey

STAR = ("45.1312", "0.0047")


def test_cutout_is_what_the_class_returns(run, scene):
    answer = run("cutout", *STAR, "--size", "64", "--bands", "rz", "--products", "image,invvar")
    assert answer == (0, "cutout-45.13120+0.00470.fits\n", "")
    expected = LegacySurvey.get_cutout(
        scene.positions["star"], 64, bands="rz", products=("image", "invvar")
    )
    with fits.open(answer.out.strip()) as hdul:
        assert [hdu.name for hdu in hdul] == [hdu.name for hdu in expected]
        for one, other in zip(hdul[1:], expected[1:], strict=True):
            np.testing.assert_array_equal(one.data, other.data)


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (("45.16", "-0.068"), "clump"),
        (("45.16,-0.068",), "clump"),
        (("45.16 -0.068",), "clump"),
        (("--", "45.16", "-0.068"), "clump"),
        (("03:00:38.4", "-00:04:04.8"), "clump"),
        (("03h00m38.4s", "-0d04m4.8s"), "clump"),
        (("3 0 38.4 -0 4 4.8",), "clump"),
        (("45d9m36s", "-0d4m4.8s"), "clump"),
        (("NGC", "1"), "field"),
        (("ngc 2",), "split"),
        (("HD1",), "star"),
    ],
)
def test_every_way_to_write_a_position(run_json, scene, words, place):
    code, document = run_json("cutout", "--size", "8", "--bands", "r", "-o", "a.fits", *words)
    assert code == 0
    at = SkyCoord(document["header"]["RA"], document["header"]["DEC"], unit="deg")
    assert at.separation(scene.positions[place]).arcsec < 1e-3
    with fits.open("a.fits") as hdul:
        middle = WCS(hdul["IMAGE_R"].header).pixel_to_world(3.5, 3.5)
    assert middle.separation(scene.positions[place]).arcsec < 0.262


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("10", (10, 10)),
        ("10,20", (10, 20)),
        ('5.24"', (20, 20)),
        ("0.2arcmin,5.24arcsec", (46, 20)),
    ],
)
def test_every_way_to_write_a_size(run_json, text, shape):
    _, document = run_json("cutout", *STAR, "--bands", "r", "--size", text, "-o", "a.fits")
    assert document["images"] == [
        {"name": "IMAGE_R", "shape": list(shape), "unit": "nanomaggy", "band": "r"}
    ]


def test_a_cutout_goes_through_a_pipe(shell):
    answer = shell("$LIS cutout 45.1312 0.0047 --size 16 --bands r -o - | cat")
    assert (answer.code, answer.err) == (0, "")
    with fits.open(io.BytesIO(answer.out)) as hdul:
        assert hdul["IMAGE_R"].shape == (16, 16)


def test_the_viewer_by_layer_scale_and_source(run_json):
    code, document = run_json(
        *("cutout", *STAR, "--size", "20arcsec", "--layer", "ls-dr10", "--bands", "r"),
        *("--pixel-scale", "0.5arcsec", "--convert-flux", "--source", "viewer", "-o", "a.fits"),
    )
    assert code == 0
    assert document["header"]["SOURCE"] == "viewer"
    assert document["images"][0]["shape"] == [40, 40]


def test_other_grids(run, run_json, scene):
    pytest.importorskip("reproject")
    words = ("cutout", *STAR, "--bands", "r", "--size", "40", "--pixel-scale", "0.5arcsec")
    code, document = run_json(*words, "--rotation", "30deg", "--source", "bricks", "-o", "a.fits")
    assert code == 0
    assert document["images"][0]["shape"] == [40, 40]
    first = WCS(fits.getheader("a.fits", 1))
    assert first.proj_plane_pixel_scales()[0].to_value("arcsec") == pytest.approx(0.5)
    assert run("cutout", "--wcs", "a.fits", "--bands", "g").out == "cutout.fits\n"
    second = WCS(fits.getheader("cutout.fits", 1))
    corner = second.pixel_to_world(0, 0)
    assert corner.separation(first.pixel_to_world(0, 0)).arcsec < 1e-3


def test_all_products(run_json):
    code, document = run_json("cutout", *STAR, "--size", "8", "--bands", "r", "--products", "all")
    assert code == 0
    found = {image["name"] for image in document["images"]}
    assert {"IMAGE_R", "INVVAR_R", "MODEL_R", "RESID_R", "MASKBITS"} <= found


def test_a_dry_run_asks_nothing(run, scene):
    answer = run("cutout", *STAR, "--bands", "gr", "--dry-run")
    urls = LegacySurvey.get_image_list(scene.positions["star"], 256, bands="gr")
    assert answer == (0, "".join(f"{url}\n" for url in urls), "")
    assert len(urls) == 2
    answer = run("psf", *STAR, "--bands", "r", "--dry-run")
    assert "layer=ls-dr10-south\n" in answer.out or "layer=ls-dr10\n" in answer.out
    assert "bands=r\n" in answer.out
    assert run("picture", *STAR, "--dry-run").out.startswith("ra=")
    assert len(scene.requests) == 0


@pytest.mark.parametrize(
    ("words", "code", "match"),
    [
        (("95", "-30"), 3, "dr10 has no data at RA 95.000000, Dec -30.000000"),
        ((*STAR, "--bands", "q"), 2, "bands of dr10 are: g, r, i, z"),
        ((*STAR, "--size", "0"), 2, "size=0 must be from 1 to"),
        ((*STAR, "--size", "-5"), 2, "size=-5 must be from 1 to"),
        ((*STAR, "--size", "big"), 2, "argument --size: 'big' is not of the kind 256"),
        ((*STAR, "--size", "1,2,3"), 2, "neither one size nor NY,NX"),
        ((*STAR, "--size", "3kg"), 2, "'3kg' is not of the kind"),
        ((*STAR, "--pixel-scale", "2"), 2, "argument --pixel-scale: '2' is not of the kind"),
        ((*STAR, "--release", "dr99"), 2, "dr5, dr6, dr7, dr8, dr9, dr10, dr11"),
        ((*STAR, "--mirror", "nowhere"), 2, "registered: auto, nersc, nadc"),
        ((*STAR, "--source", "web"), 2, "auto, bricks, viewer"),
        ((*STAR, "--layer", "ls-dr10-grz-model"), 2, "the order is ls-dr10-model-grz"),
        ((*STAR, "--layer", "ls-dr10", "--release", "dr9"), 2, "release='dr9' cannot be given"),
        ((*STAR, "--timeout", "-1"), 2, "timeout=-1.0 must be a positive number"),
        ((*STAR, "-o", "none/a.fits"), 2, "there is no directory none"),
        ((*STAR, "-o", "."), 2, ". is a directory"),
        ((*STAR, "--json", "-o", "-"), 2, "--json: cannot go to standard output"),
        (("45",), 2, "position '45' is not RA and Dec"),
        (("45", "91"), 2, "position '45 91' is not a position"),
        (("nan", "0"), 2, "not finite"),
        (("45:61:00", "0:0:0"), 2, "is not RA and Dec"),
        (("Nobody", "17"), 2, "nor a name that the Sesame service knows"),
        (("--wcs", "none.fits"), 2, "--wcs: wcs='none.fits' is not a file that is there"),
        ((), 2, "position '' is not RA and Dec"),
    ],
)
def test_bad_words_of_cutout(run, scene, words, code, match):
    answer = run("cutout", *words)
    assert answer.code == code
    assert match in answer.err
    assert answer.out == "" or "--json" in words
    if code == 2:
        assert all("/sesame/" in request.path for request in scene.requests)


def test_a_file_that_is_there_stays(run, tmp_path):
    (tmp_path / "a.fits").write_text("mine")
    words = ("cutout", *STAR, "--size", "8", "--bands", "r", "-o", "a.fits")
    answer = run(*words)
    assert answer == (2, "", "astroquery-lis: -o: a.fits exists; --overwrite replaces it.\n")
    assert (tmp_path / "a.fits").read_text() == "mine"
    assert run(*words, "--overwrite").code == 0
    assert fits.getdata("a.fits", 1).shape == (8, 8)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.fits", "cache"]


def test_a_service_that_is_down(run, run_json, scene, tmp_path):
    scene.faults.add("refuse", times=None)
    words = ("cutout", *STAR, "--size", "8", "--bands", "r", "-o", "a.fits")
    answer = run(*words)
    assert answer.code == 4
    assert answer.err.startswith("astroquery-lis: ")
    assert answer.err.count("\n") == 1
    code, document = run_json(*words)
    assert code == 4
    assert document["error"]["type"] == "ServiceDownError"
    assert document["error"]["message"]
    assert run("cutout", "NGC", "1").code == 4
    assert not (tmp_path / "a.fits").exists()


def test_warnings_are_lines(run, run_json):
    words = ("cutout", "180.15", "32.38", "--size", "8", "--bands", "gi", "-o", "a.fits")
    assert run(*words).code == 3
    answer = run(*words, "--on-missing", "warn")
    assert answer.code == 0
    assert answer.err.startswith("astroquery-lis: warning: ")
    assert answer.err.count("\n") == 1
    words = (*words, "--on-missing", "warn", "--overwrite")
    assert run(*words, "--quiet").err == ""
    _, document = run_json(*words)
    assert f"astroquery-lis: warning: {document['warnings'][0]}\n" == answer.err


def test_psf(run, run_json):
    assert run("psf", *STAR, "--bands", "gr").out == "psf-45.13120+0.00470.fits\n"
    with fits.open("psf-45.13120+0.00470.fits") as hdul:
        assert [hdu.name for hdu in hdul[1:]] == ["PSF_G", "PSF_R"]
        assert hdul["PSF_R"].header["ORIENT"] == "CCD"
    _, document = run_json("psf", *STAR, "--bands", "r", "--to-sky", "-o", "b.fits")
    assert document["images"][0]["name"] == "PSF_R"
    assert fits.getheader("b.fits", 1)["ORIENT"] == "SKY"
    assert run("psf", "95", "-30", "-o", "c.fits").code == 3
    assert run("psf", *STAR, "--bands", "q").code == 2
    answer = run("psf")
    assert answer.code == 2
    assert "the following arguments are required: RA DEC|NAME" in answer.err


def test_picture(run, run_json, scene):
    image = pytest.importorskip("PIL.Image")
    assert run("picture", "NGC", "1", "--size", "60,100").out == "picture-45.09000+0.06200.png\n"
    with image.open("picture-45.09000+0.06200.png") as picture:
        pixels = np.asarray(picture)
    expected = LegacySurvey.get_picture(scene.positions["field"], (60, 100))
    np.testing.assert_array_equal(pixels, expected)
    _, document = run_json("picture", *STAR, "--size", "50", "-o", "a.jpg")
    assert document["shape"] == [50, 50, 3]
    with image.open("a.jpg") as picture:
        assert (picture.format, picture.size) == ("JPEG", (50, 50))
    assert run("picture", "95", "-30").code == 3
    answer = run("picture", *STAR, "-o", "a.gif")
    assert answer.err == "astroquery-lis: -o: a.gif must end in one of: .png, .jpg, .jpeg.\n"
    assert answer.code == run("picture").code == 2
    assert run("picture", *STAR, "--layer", "sdss", "--release", "dr9").code == 2


def test_url(run, run_json, scene):
    answer = run("url", "45.1", "-1.2")
    expected = LegacySurvey.viewer_url(SkyCoord(45.1, -1.2, unit="deg"))
    assert answer == (0, f"{expected}\n", "")
    answer = run("url", "45.1", "-1.2", "--layer", "sdss", "--zoom", "9")
    assert answer.out.endswith("?ra=45.100000&dec=-1.200000&layer=sdss&zoom=9\n")
    assert "layer=ls-dr9" in run("url", "45", "1", "--release", "dr9").out
    code, document = run_json("url", "--table", "-", stdin="1 2\n3 4\n")
    assert code == 0
    assert [url.split("&layer")[0].split("?")[1] for url in document["urls"]] == [
        "ra=1.000000&dec=2.000000",
        "ra=3.000000&dec=4.000000",
    ]
    assert len(scene.requests) == 0


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ((), "Give a position, or a table of positions with --table"),
        (("1", "2", "--table", "x.csv"), "not both"),
        (("1", "2", "--layer", "nothing"), "layer='nothing'"),
        (("1", "2", "--layer", "sdss", "--release", "dr9"), "a layer has a release of its own"),
        (("1", "2", "--zoom", "high"), "argument --zoom"),
        (("1", "2", "--colour"), "unrecognized arguments: --colour"),
    ],
)
def test_bad_words_of_url(run, words, match):
    answer = run("url", *words)
    assert answer.code == 2
    assert match in answer.err
