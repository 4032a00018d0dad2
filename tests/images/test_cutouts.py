"""Cutouts from bricks over real HTTP: equal to the files, true to the scene, frugal."""

import math

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.wcs import WCS

from astroquery_lis import bricks
from astroquery_lis.exceptions import (
    CoverageWarning,
    IncompleteMirrorError,
    MissingDataError,
    NoCoverageError,
)
from astroquery_lis.images.file_layout import ImageMap
from astroquery_lis.images.open_images import ranges_under, tiles_under
from astroquery_lis.io.ranges import FIRST_RANGE_BYTES
from astroquery_lis.survey.paths import COADD_PRODUCTS, file_path
from astroquery_lis.survey.pixel_grids import Box

EVERY_PRODUCT = tuple(COADD_PRODUCTS)


def _path(sky, product, brick, band=None, region="south"):
    return sky.root / file_path(product, "dr10", region, brick=brick, band=band)


def _image(path, name=None):
    with fits.open(path) as hdul:
        hdu = hdul[name] if name else next(h for h in hdul if h.data is not None)
        # Released files give an equinox and no frame, which astropy reads as FK5; they are ICRS.
        hdu.header["RADESYS"] = "ICRS"
        return hdu.data, WCS(hdu.header)


def test_every_product_equals_astropys_full_decode(sky, survey):
    position = sky.positions["star"]
    hdul = survey.get_cutout(position, (40, 70), bands="gz", products=EVERY_PRODUCT)
    names = [hdu.name for hdu in hdul[1:]]
    assert names == [
        f"{p}_{b}".upper() if COADD_PRODUCTS[p].per_band else p.upper()
        for p in EVERY_PRODUCT
        for b in ("gz" if COADD_PRODUCTS[p].per_band else "x")
    ]
    for product in EVERY_PRODUCT:
        for band in "gz" if COADD_PRODUCTS[product].per_band else (None,):
            data, wcs = _image(_path(sky, product, "0451p000", band))
            expected = Cutout2D(data, position, (40, 70), wcs=wcs)
            found = hdul[f"{product}_{band}" if band else product]
            assert np.array_equal(found.data, expected.data), (product, band)
            assert found.data.dtype == expected.data.dtype.newbyteorder("=")
            assert found.header["BUNIT"] == COADD_PRODUCTS[product].unit
            assert found.header.get("BAND") == band
            corner = WCS(found.header).pixel_to_world(0, 0)
            assert corner.separation(expected.wcs.pixel_to_world(0, 0)).arcsec < 1e-6


def test_the_real_brick_bit_for_bit(survey, real_data):
    from astropy.coordinates import SkyCoord

    position = SkyCoord(96.6772, 80.37776, unit="deg")
    asked = {"release": "dr6", "source": "bricks", "mirror": real_data}
    products = ("image", "invvar", "nexp")
    hdul = survey.get_cutout(position, 256, bands="gz", products=products, **asked)
    assert len(hdul) == 7
    for product in products:
        for band in "gz":
            name = file_path(product, "dr6", "north", brick="0959p805", band=band)
            data, wcs = _image(real_data / name)
            expected = Cutout2D(data, position, 256, wcs=wcs)
            assert np.array_equal(hdul[f"{product}_{band}"].data, expected.data)
            assert hdul[f"{product}_{band}"].data.any()
    # Less than half of the brick was observed, and the folder lacks its images in r.
    assert survey.covers(position, release="dr6", bands="gr", mirror=real_data)
    with pytest.raises(IncompleteMirrorError, match="lacks image r of brick 0959p805"):
        survey.get_cutout(position, 64, bands="r", **asked)
    # The brick's neighbours are not there: their part of the box is from its own margin.
    edges = bricks.brick_edges(bricks.parse_brick_name("0959p805"))
    y, x = np.indices((256, 256))
    ra, dec = WCS(hdul["IMAGE_G"].header).pixel_to_world_values(x, y)
    foreign = (ra < edges[0]) | (ra >= edges[1]) | (dec < edges[2]) | (dec >= edges[3])
    for hdu in hdul[1:]:
        header, weight = hdu.header, hdul[f"INVVAR_{hdu.header['BAND']}"].data
        assert header["NOTOWNED"] == foreign.sum() > 0
        assert header["OBSFRAC"] == pytest.approx((weight > 0).mean(), abs=1e-6)
        assert header["IMTYPE"] == header["PRODUCT"]
        assert header["DRVERSIO"] == 6000
    assert hdul["IMAGE_G"].header["MAGZERO"] == 22.5
    assert hdul["IMAGE_Z"].header["FILTER"] == "zd DECam k1038"
    with pytest.warns(CoverageWarning, match="No r in brick 0959p805"):
        default = survey.get_cutout(position, 256, **asked)
    assert [hdu.name for hdu in default[1:]] == ["IMAGE_G", "IMAGE_Z"]
    with pytest.warns(CoverageWarning, match="No r, z in brick 0959p805"):
        small = survey.get_cutout(position, 32, **asked)
    assert [hdu.name for hdu in small[1:]] == ["IMAGE_G"]


def _needed_bytes(sky, position, size, products, bands):
    """Bytes of first ranges and of the tiles that a box needs, from the files themselves."""
    total, requests = 0, 0
    for product in products:
        for band in bands:
            raw = _path(sky, product, "0451p000", band).read_bytes()
            x, y = bricks.brick_wcs("0451p000").world_to_pixel(position)
            y0, x0 = (math.ceil(float(v) - size / 2) for v in (y, x))
            image_map = ImageMap.parse(raw)
            box = Box(y0, y0 + size, x0, x0 + size)
            tiles = [r for r in ranges_under(image_map, box) if r[1] > FIRST_RANGE_BYTES]
            total += min(FIRST_RANGE_BYTES, len(raw)) + sum(stop - start for start, stop in tiles)
            rows = tiles_under(image_map, box)[0]
            # The first bytes in two pieces: there are twelve connections for six files.
            requests += 2 + rows.stop - rows.start
    return total, requests


def test_byte_and_request_budget(sky, survey):
    position, products, bands = sky.positions["field"], ("image", "invvar"), "grz"
    survey.get_cutout(position, 256, bands=bands, products=products)
    sent = sum(record.bytes_sent for record in sky.requests)
    needed, most_requests = _needed_bytes(sky, position, 256, products, bands)
    whole = sum(_path(sky, p, "0451p000", b).stat().st_size for p in products for b in bands)
    assert sent <= 1.05 * needed
    assert sent <= 0.02 * whole
    assert len(sky.requests) <= most_requests
    assert {record.method for record in sky.requests} == {"GET"}
    assert {record.status for record in sky.requests} == {206}
    first = [r for r in sky.requests if r.range == f"bytes=0-{FIRST_RANGE_BYTES // 2 - 1}"]
    assert len(first) == 6

    # The same files at another place: header and tile table are known, so one round trip.
    sky.requests.clear()
    moved = position.directional_offset_by(0, position.ra.unit * 0.02)
    survey.get_cutout(moved, 256, bands=bands, products=products)
    assert len(sky.requests) > 0
    assert not [r for r in sky.requests if r.range.startswith("bytes=0-")]

    # A process that finds the cache on disk knows as much; and what it has, it does not fetch.
    sky.requests.clear()
    fresh = type(survey)()
    fresh.mirror = survey.mirror
    fresh.get_cutout(moved, 256, bands=bands, products=products)
    assert len(sky.requests) == 0


def _aperture(hdul, truth, band):
    """Return flux, nanomaggy, and offset, pixels, of a source near the middle of a cutout."""
    image = hdul[f"IMAGE_{band}"]
    x0, y0 = WCS(image.header).world_to_pixel_values(truth["ra"], truth["dec"])
    y, x = np.indices(image.shape)
    inside = np.hypot(y - y0, x - x0) < 20
    weight = np.where(np.hypot(y - y0, x - x0) < 10, image.data, 0)
    offset = (weight * (x - x0)).sum() / weight.sum(), (weight * (y - y0)).sum() / weight.sum()
    return image.data[inside].sum(), offset


@pytest.mark.parametrize("name", ["star", "corner", "ra0", "split"])
def test_sources_have_their_true_flux_and_place(sky, survey, name):
    position = sky.positions[name]
    hdul = survey.get_cutout(position, 128, bands="grz")
    separation = np.hypot(
        (sky.truth["ra"] - position.ra.deg + 180) % 360 - 180, sky.truth["dec"] - position.dec.deg
    )
    truth = sky.truth[np.argmin(separation)]
    assert separation.min() < 1e-9
    for band in "grz":
        flux, (dx, dy) = _aperture(hdul, truth, band)
        # In the corner three quarters of the star's peak are interpolated.
        tolerance = 0.007 if name == "corner" else 0.005
        assert flux == pytest.approx(truth[f"flux_{band}"], rel=tolerance)
        assert abs(dx) < 0.1
        assert abs(dy) < 0.1


@pytest.mark.parametrize("name", ["corner", "ra0", "split"])
def test_owner_pixels_are_the_files_and_invvar_is_not_doubled(sky, survey, name):
    position = sky.positions[name]
    hdul = survey.get_cutout(position, 200, bands="gr", products=("image", "invvar", "nexp"))
    header = hdul["IMAGE_G"].header
    owner = hdul[0].header["GRID"]
    region = hdul[0].header["TREE1"].partition("/")[2]
    y, x = np.indices((200, 200))
    mine = bricks.brick_name(*WCS(header).pixel_to_world_values(x, y)) == owner
    assert 0 < mine.sum() < mine.size
    release = {"south": "dr10", "north": "dr9"}[region]
    for product in ("image", "invvar", "nexp"):
        path = sky.root / file_path(product, release, region, brick=owner, band="g")
        data, wcs = _image(path)
        expected = Cutout2D(data, position, 200, wcs=wcs, mode="partial", fill_value=0).data
        assert np.array_equal(hdul[f"{product}_G"].data[mine], expected[mine])
    for band in "gr":
        nexp, invvar = hdul[f"NEXP_{band}"].data, hdul[f"INVVAR_{band}"].data
        one = {"g": 0.004, "r": 0.006}[band] ** -2
        assert (nexp > 0).all()
        # Sources and texture only ever lower it (by a little above too); a doubled one would be 2.
        assert (invvar / (nexp * one)).max() < 1.2
        assert np.median((invvar / (nexp * one))[~mine]) > 0.8


def test_noise_is_that_of_the_invvar_across_borders(sky, survey):
    hdul = survey.get_cutout(
        sky.positions["corner"], 256, bands="r", products=("image", "model", "invvar")
    )
    signal = (hdul["IMAGE_R"].data - hdul["MODEL_R"].data) * np.sqrt(hdul["INVVAR_R"].data)
    y, x = np.indices(signal.shape)
    name = bricks.brick_name(*WCS(hdul["IMAGE_R"].header).pixel_to_world_values(x, y))
    for brick in np.unique(name):
        assert 0.7 < signal[name == brick].std() < 1.1, brick


def test_primary_bit_is_clear_wherever_the_owner_is_used(sky, survey):
    hdul = survey.get_cutout(sky.positions["corner"], 200, bands="r", products="maskbits")
    assert hdul["MASKBITS"].data.dtype == np.int32
    assert not (hdul["MASKBITS"].data & 1).any()
    header = hdul[0].header
    assert header["NBRICKS"] == 4
    assert {header[f"BRICK{i}"] for i in range(1, 5)} == {
        "0451p000",
        "0453p000",
        "0451p002",
        "0453p002",
    }


def test_the_north_of_dr10_says_that_it_has_no_i(sky, survey):
    north = sky.positions["split"].directional_offset_by(0, sky.positions["split"].dec.unit * 0.004)
    with pytest.warns(CoverageWarning, match="No i here: the north of dr10 is dr9/north"):
        hdul = survey.get_cutout(north, 16)
    assert [hdu.name for hdu in hdul[1:]] == ["IMAGE_G", "IMAGE_R", "IMAGE_Z"]
    with pytest.raises(MissingDataError, match="No image i in brick 1801p325 of dr9/north"):
        survey.get_cutout(north, 16, bands="griz")
    with pytest.warns(CoverageWarning, match="No image i"):
        hdul = survey.get_cutout(
            north, 16, bands="gi", products=("image", "invvar"), on_missing="warn"
        )
    assert np.isnan(hdul["IMAGE_I"].data).all()
    assert (hdul["INVVAR_I"].data == 0).all()
    assert np.isfinite(hdul["IMAGE_G"].data).all()


def test_a_named_band_that_one_side_lacks_is_nan_there(sky, survey):
    south = sky.positions["split"].directional_offset_by(
        180 * sky.positions["split"].dec.unit, sky.positions["split"].dec.unit * 0.0005
    )
    with pytest.warns(CoverageWarning, match="image i, invvar i without values"):
        hdul = survey.get_cutout(south, 256, bands="gi", products=("image", "invvar"))
    y, x = np.indices((256, 256))
    _, dec = WCS(hdul["IMAGE_I"].header).pixel_to_world_values(x, y)
    north = dec >= bricks.SPLIT_DEC_DEG
    assert np.array_equal(np.isnan(hdul["IMAGE_I"].data), north)
    assert np.array_equal(hdul["INVVAR_I"].data == 0, north)
    assert np.isfinite(hdul["IMAGE_G"].data).all()


def test_regions_have_different_pixels_and_do_not_share_a_cache(sky, survey):
    north = sky.positions["split"].directional_offset_by(0, sky.positions["split"].dec.unit * 0.01)
    one = survey.get_cutout(north, 32, bands="g", region="north")
    other = survey.get_cutout(north, 32, bands="g", region="south")
    assert not np.array_equal(one["IMAGE_G"].data, other["IMAGE_G"].data)
    again = survey.get_cutout(north, 32, bands="g", region="north")
    assert np.array_equal(one["IMAGE_G"].data, again["IMAGE_G"].data)


def test_a_hole_beside_what_was_observed_stays_zero_with_no_weight(sky, survey):
    products = ("image", "invvar", "nexp", "maskbits")
    hdul = survey.get_cutout(sky.positions["hole"], 300, bands="r", products=products)
    hole = hdul["NEXP_R"].data == 0
    assert 0.3 < hole.mean() < 0.5
    assert (hdul["INVVAR_R"].data[hole] == 0).all()
    assert (hdul["IMAGE_R"].data[hole] == 0).all()
    for hdu in hdul[1:]:
        assert hdu.header["OBSFRAC"] == pytest.approx(1 - hole.mean(), abs=1e-6)


def test_beyond_the_bricks_there_is_nothing(sky, survey):
    with pytest.raises(NoCoverageError, match="dr10 has no data at RA 95"):
        survey.get_cutout(sky.positions["off"], 64)
    assert not (survey.cache_location / "official").exists()


def test_at_the_edge_of_the_footprint_the_rest_is_nan(sky, survey):
    from astropy.coordinates import SkyCoord

    inside = SkyCoord(45.0005, 0.0, unit="deg")
    with pytest.warns(CoverageWarning, match=r"% of the cutout is without values: .*0448p000"):
        hdul = survey.get_cutout(
            inside, (20, 300), bands="g", products=("image", "invvar", "maskbits")
        )
    # The image of the last brick reaches beyond what it owns.
    grid = bricks.brick_wcs("0451p000")
    y, x = np.indices((20, 300))
    ra, dec = WCS(hdul["IMAGE_G"].header).pixel_to_world_values(x, y)
    beyond = grid.world_to_pixel_values(ra, dec)[0] > 3599.5
    assert np.array_equal(np.isnan(hdul["IMAGE_G"].data), beyond)
    assert (hdul["INVVAR_G"].data[beyond] == 0).all()
    assert np.array_equal(hdul["MASKBITS"].data & 1, ra < 45)
    assert hdul["IMAGE_G"].header["NOTOWNED"] == ((ra < 45) & ~beyond).sum()

    outside = SkyCoord(44.9925, 0.0, unit="deg")
    with pytest.raises(NoCoverageError, match="0448p000 of dr10/south does not exist.*on_missing"):
        survey.get_cutout(outside, (20, 300), bands="g")
    with pytest.warns(CoverageWarning, match="0448p000"):
        partial = survey.get_cutout(outside, (20, 300), bands="g", on_missing="warn")
    assert 0.4 < np.isnan(partial["IMAGE_G"].data).mean() < 0.6
    # So near that the last brick's image holds it.
    with pytest.warns(CoverageWarning, match="0448p000"):
        survey.get_cutout(SkyCoord(44.9995, 0.0, unit="deg"), (20, 300), bands="g")


def test_a_missing_file_of_a_default_set_is_left_out_with_a_warning(sky, survey):
    sky.faults.add("status", match="*image-i.fits.fz", code=404, times=None)
    with pytest.warns(CoverageWarning, match="No i in brick 0451p000 of dr10/south; it has g, r"):
        hdul = survey.get_cutout(sky.positions["star"], 16)
    assert [hdu.name for hdu in hdul[1:]] == ["IMAGE_G", "IMAGE_R", "IMAGE_Z"]
    with pytest.raises(MissingDataError, match="No image i in brick 0451p000"):
        survey.get_cutout(sky.positions["star"], 16, bands="gi")


def test_a_missing_product_is_an_error_that_names_it(sky, survey):
    sky.faults.add("status", match="*chi2-g*", code=404, times=None)
    with pytest.raises(MissingDataError, match="No chi2 g in brick 0451p000"):
        survey.get_cutout(sky.positions["star"], 16, bands="g", products=("image", "chi2"))


def test_a_larger_set_of_products_never_changes_the_pixels(sky, survey):
    position = sky.positions["corner"]
    few = survey.get_cutout(position, 100, bands="g")
    many = survey.get_cutout(position, 100, bands="gr", products=("invvar", "image"))
    assert np.array_equal(few["IMAGE_G"].data, many["IMAGE_G"].data)
