"""Many cutouts at once: what is planned, read and decoded, and how often."""

import io
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from astroquery_lis import bricks
from astroquery_lis.client.bulk import job_bounds, plan_cutouts
from astroquery_lis.exceptions import (
    ContentChangedError,
    CoverageWarning,
)
from astroquery_lis.images.coadds import coadd_cutout
from astroquery_lis.images.cutting import BulkSpec, CutoutJob, each_cutout, file_name, safe_name
from astroquery_lis.images.file_layout import ImageMap
from astroquery_lis.images.open_images import KnownImage, OpenImages, tiles_under
from astroquery_lis.images.reader import SectionReader
from astroquery_lis.images.sources import Access
from astroquery_lis.images.strips import WHOLE_FILE_SHARE, LayoutChanged, StripCache
from astroquery_lis.io.mirrors import resolve_mirrors
from astroquery_lis.io.ranges import FIRST_RANGE_BYTES
from astroquery_lis.survey.paths import file_path
from astroquery_lis.survey.pixel_grids import Box
from astroquery_lis.survey.request import cutout_request

OPTIONS = (("timeout_s", 30.0), ("retries", 1), ("max_connections", 8))


# ---- strips ------------------------------------------------------------------------------------


def _map(shape, tile, pixel_bytes=0):
    return ImageMap(1, shape, tile, None, None, pixel_bytes, 0)


BOXES = st.tuples(*[st.integers(0, 359), st.integers(1, 150)] * 2).map(
    lambda b: Box(b[0], min(b[0] + b[1], 360), b[2], min(b[2] + b[3], 360))
)


@given(st.lists(BOXES, min_size=1, max_size=12), st.sampled_from([(50, 50), (1, 360), (37, 100)]))
@settings(deadline=None, max_examples=60)
def test_strips_give_every_box_and_decode_no_tile_twice(boxes, tile):
    image = np.random.default_rng(0).normal(size=(360, 360)).astype(np.float32)
    strips = StripCache()
    for box in boxes:
        strips.expect(box)
    with pytest.raises(LayoutChanged):
        strips.missing(boxes[0]) and strips.learn(_map((360, 360), tile))
    decoded = Counter()
    for box in boxes:
        missing = strips.missing(box)
        for tiles in missing:
            for y in range(tiles.y0, tiles.y1, tile[0]):
                for x in range(tiles.x0, tiles.x1, tile[1]):
                    decoded[y, x] += 1
        strips.put(missing, [image[part.slices] for part in missing])
        assert np.array_equal(strips.cut(box), image[box.slices])
    assert set(decoded.values()) == {1}
    assert len(decoded) == strips.needed.sum()
    for box in boxes:
        strips.release(box)
    assert not strips._strips


def test_a_strip_is_let_go_after_its_last_use():
    strips, image = StripCache(), np.arange(3600 * 3600).reshape(3600, 3600)
    low, high = Box(10, 90, 5, 60), Box(60, 250, 0, 100)
    for box in (low, high):
        strips.expect(box)
    missing = strips.missing(low)
    assert missing == [Box(0, 100, 0, 100)]
    strips.put(missing, [image[part.slices] for part in missing])
    strips.release(low)
    assert strips.missing(high) == [Box(100, 300, 0, 100)]
    strips.put(strips.missing(high), [image[100:300, :100]])
    assert np.array_equal(strips.cut(high), image[high.slices])
    strips.release(high)
    assert low not in strips
    assert not strips._strips


def test_an_image_without_tiles_is_known_as_such():
    strips = StripCache()
    strips.expect(Box(0, 1, 0, 1))
    strips.missing(Box(0, 1, 0, 1))
    with pytest.raises(LayoutChanged):
        strips.learn(_map((3600, 3600), (1, 3600), pixel_bytes=4))
    assert not strips.is_tiled


# ---- plan --------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 20), st.integers(20, 30))
def test_jobs_cover_everything_and_split_only_large_groups(sizes, least, most):
    bounds = job_bounds(sizes, least, most)
    jobs = np.diff(bounds)
    assert bounds[0] == 0
    assert bounds[-1] == sum(sizes)
    assert (jobs > 0).all()
    assert all(job <= max(most, least + most) for job in jobs)
    edges = np.cumsum([0, *sizes])
    inside = set(bounds) - set(edges.tolist())
    for bound in inside:
        group = np.searchsorted(edges, bound, side="right") - 1
        assert sizes[group] > most


def _plan(ra, dec, footprint, **kwargs):
    ra, dec = np.asarray(ra, float), np.asarray(dec, float)
    ny, nx = kwargs.pop("shape", (256, 256))
    partial = kwargs.pop("partial", False)
    region = kwargs.pop("region", "auto")
    request = cutout_request((0.0, 0.0), (ny, nx), release="dr10", region=region)
    rows = np.arange(len(ra))
    whole = CutoutJob(rows, rows, ra, dec, (request,), np.zeros(len(ra), int))
    kwargs["on_missing"] = "warn" if partial else "raise"
    by_tree = {("dr10", name): ids for name, ids in footprint.items()}
    return plan_cutouts(whole, rows, by_tree, **kwargs)


def test_targets_are_grouped_by_brick_in_order_of_declination():
    rng = np.random.default_rng(3)
    ra, dec = rng.uniform(358, 362, 3000) % 360, rng.uniform(-1, 1, 3000)
    plan = _plan(ra, dec, {})
    assert len(plan.no_data) == 0
    jobs = list(plan.jobs())
    assert sorted(np.concatenate([job.rows for job in jobs])) == list(range(3000))
    owners = [np.unique(bricks.brick_id(job.ra_deg, job.dec_deg)) for job in jobs]
    assert all(len(owner) == 1 for owner in owners)
    assert len(np.unique(np.concatenate(owners))) == len(jobs)
    for job in jobs:
        assert (np.diff(job.dec_deg) >= 0).all()
        assert np.array_equal(ra[job.rows], job.ra_deg)
        assert np.array_equal(job.ids, job.rows)


def test_the_footprint_decides_by_the_official_region():
    there = SkyCoord([45.1, 180.15, 180.15, 200.0], [0.0, 32.3, 32.6, 60.0], unit="deg")
    ids = bricks.brick_id(there.ra.deg, there.dec.deg)
    footprint = {"south": np.sort(ids[:3]), "north": np.sort(ids[3:])}
    plan = _plan(there.ra.deg, there.dec.deg, footprint)
    # The third is north of the split, where only the north counts.
    assert list(plan.no_data) == [2]
    assert list(_plan(there.ra.deg, there.dec.deg, footprint, region="south").no_data) == [3]
    assert list(_plan(there.ra.deg, there.dec.deg, {"north": footprint["north"]}).no_data) == [2]


@pytest.mark.parametrize("dec0", [0.0, 60.0, -78.0])
def test_a_partly_covered_box_counts_where_parts_do(dec0):
    brick = int(bricks.brick_id(45.1, dec0))
    rng = np.random.default_rng(5)
    ra1, ra2, dec1, dec2 = (float(v) for v in bricks.brick_edges(brick))
    width = 0.4 / np.cos(np.radians(dec0))
    ra = rng.uniform(ra1 - width, ra2 + width, 400)
    dec = rng.uniform(dec1 - 0.4, dec2 + 0.4, 400)
    options = {"partial": True, "shape": (1500, 1500), "region": "south"}
    plan = _plan(ra, dec, {"south": np.array([brick])}, **options)
    lost = np.zeros(400, bool)
    lost[plan.no_data] = True
    half = 0.5 * 1500 * 0.262 / 3600
    shrink = np.cos(np.radians(dec0))
    dx = np.maximum(np.maximum(ra1 - ra, ra - ra2), 0) * shrink
    dy = np.maximum(np.maximum(dec1 - dec, dec - dec2), 0)
    assert not lost[(dx < half - 0.01) & (dy < half - 0.01)].any()
    assert lost[(dx > half + 0.01) | (dy > half + 0.01)].all()
    assert 0 < lost.sum() < 400


# ---- reading -----------------------------------------------------------------------------------


def _spec(on_missing="warn"):
    return BulkSpec(("bricks",), on_missing)


def _job(ra, dec, size=64, products=("image", "invvar"), bands=("g", "r")):
    rows = np.argsort(dec)
    request = cutout_request((0.0, 0.0), size, products=products, bands=bands, release="dr10")
    kinds = np.zeros(len(rows), int)
    return CutoutJob(rows, rows, np.asarray(ra)[rows], np.asarray(dec)[rows], (request,), kinds)


def _access(mirror, location):
    return Access(resolve_mirrors(mirror), location and str(location), OPTIONS)


@pytest.fixture
def decoded(monkeypatch):
    """Count how often each tile is decoded: by image and tile."""
    count = Counter()
    plain = KnownImage.read

    def counted(known, box, source, shared):
        # An image that is not compressed has no tiles to decode; later HDUs are read whole.
        is_tiled = known.map is not None and not known.map.pixel_bytes
        rows, columns = tiles_under(known.map, box) if is_tiled else (slice(0, 0), slice(0, 0))
        for row in range(rows.start, rows.stop):
            for column in range(columns.start, columns.stop):
                # The image itself is in the key, so that no other can get its address.
                count[known.image, row, column] += 1
        return plain(known, box, source, shared)

    monkeypatch.setattr(KnownImage, "read", counted)
    return count


def _near(position, n, width_deg, seed=0):
    rng = np.random.default_rng(seed)
    offset = rng.uniform(-width_deg / 2, width_deg / 2, (2, n))
    return (position.ra.deg + offset[0]) % 360, position.dec.deg + offset[1]


PLACES = {"field": 0.1, "corner": 0.02, "ra0": 0.02, "split": 0.02}


@pytest.mark.parametrize("place", PLACES)
def test_pixels_are_those_of_single_cutouts_and_tiles_are_decoded_once(
    sky, tmp_path, decoded, place
):
    products = ("image", "invvar", "nexp", "maskbits", "wisem1", "blobmodel", "psfsize")
    job = _job(*_near(sky.positions[place], 12, PLACES[place]), (50, 80), products)
    found = list(each_cutout(_spec(), _access(sky.mirror_url, tmp_path / "a"), job))
    assert max(decoded.values()) == 1
    assert len(decoded) > 20
    options = (("max_connections", 8),)
    mirrors = resolve_mirrors(sky.mirror_url)
    for (index, request, hdul, _), ra in zip(found, job.ra_deg, strict=True):
        assert request.ra_deg == ra == job.request(index).ra_deg
        with (
            warnings.catch_warnings(action="ignore", category=CoverageWarning),
            SectionReader(options, mirrors, tmp_path / "b", OpenImages()) as reader,
        ):
            single = coadd_cutout(request, reader, on_missing="warn")
        assert repr(hdul[0].header) == repr(single[0].header)
        for hdu, other in zip(hdul[1:], single[1:], strict=True):
            assert repr(hdu.header) == repr(other.header)
            assert hdu.data.dtype == other.data.dtype
            assert hdu.data.tobytes() == other.data.tobytes()


@pytest.mark.parametrize("source", ["url", "tree", "no cache"])
def test_wherever_the_files_are(sky, tmp_path, decoded, source):
    mirror = str(sky.root) if source == "tree" else sky.mirror_url
    location = None if source == "no cache" else tmp_path
    job = _job(*_near(sky.positions["field"], 10, 0.05))
    found = [hdul for _, _, hdul, _ in each_cutout(_spec(), _access(mirror, location), job)]
    assert max(decoded.values()) == 1
    with fits.open(
        sky.root / file_path("image", "dr10", "south", brick="0451p000", band="g")
    ) as whole:
        data, wcs = whole[1].data, bricks.brick_wcs("0451p000")
    for hdul, ra, dec in zip(found, job.ra_deg, job.dec_deg, strict=True):
        x, y = (int(np.ceil(np.round(v, 6) - 32)) for v in wcs.world_to_pixel_values(ra, dec))
        assert np.array_equal(hdul["IMAGE_G"].data, data[y : y + 64, x : x + 64])


def _tiles_needed(job, size):
    """Return which tiles of 100 pixels the boxes touch in the brick 0451p000."""
    needed = np.zeros((36, 36), bool)
    x, y = bricks.brick_wcs("0451p000").world_to_pixel_values(job.ra_deg, job.dec_deg)
    for cx, cy in zip(np.round(x, 6), np.round(y, 6), strict=True):
        x0, y0 = int(np.ceil(cx - size / 2)), int(np.ceil(cy - size / 2))
        needed[y0 // 100 : (y0 + size - 1) // 100 + 1, x0 // 100 : (x0 + size - 1) // 100 + 1] = 1
    return needed


@pytest.mark.parametrize(
    ("width_deg", "n", "size"), [(0.09, 30, 128), (0.14, 60, 128), (0.22, 130, 256)]
)
def test_bytes_are_those_of_the_needed_tiles_or_of_the_whole_file(
    sky, tmp_path, width_deg, n, size
):
    centre = SkyCoord(45.125, 0.0, unit="deg")
    job = _job(*_near(centre, n, width_deg), size)
    needed = _tiles_needed(job, size)
    list(each_cutout(_spec(), _access(sky.mirror_url, tmp_path), job))
    sent, due = Counter(), Counter()
    for record in sky.requests:
        sent[record.path] += record.bytes_sent
    for product in ("image", "invvar"):
        for band in "gr":
            path = file_path(product, "dr10", "south", brick="0451p000", band=band)
            raw = (sky.root / path).read_bytes()
            whole = needed.mean() > WHOLE_FILE_SHARE
            image_map = ImageMap.parse(raw)
            stops, starts = image_map.stops[needed], image_map.starts[needed]
            later = np.maximum(stops - np.maximum(starts, FIRST_RANGE_BYTES), 0)
            url = f"/legacysurvey/{path}"
            due[url] = len(raw) if whole else FIRST_RANGE_BYTES + int(later.sum())
            assert sent[url] <= 1.05 * due[url]
            statuses = {r.status for r in sky.requests if r.path == url}
            assert statuses == ({200} if whole else {206})
    assert set(sent) == set(due)
    assert (needed.mean() > WHOLE_FILE_SHARE) == (size == 256)


def test_what_is_cached_is_not_fetched_again(sky, tmp_path):
    job = _job(*_near(sky.positions["field"], 8, 0.05))
    access = _access(sky.mirror_url, tmp_path)
    first = [hdul for _, _, hdul, _ in each_cutout(_spec(), access, job)]
    sky.requests.clear()
    again = [hdul for _, _, hdul, _ in each_cutout(_spec(), access, job)]
    assert len(sky.requests) == 0
    assert _bytes(first) == _bytes(again)


def _bytes(cutouts):
    streams = [io.BytesIO() for _ in cutouts]
    for hdul, stream in zip(cutouts, streams, strict=True):
        hdul.writeto(stream)
    return [stream.getvalue() for stream in streams]


def test_two_threads_on_one_cache(sky, tmp_path):
    job = _job(*_near(sky.positions["field"], 20, 0.1))
    parts = [job.part(range(i, 20, 2)) for i in (0, 1)]

    def cut(part, location):
        access = _access(sky.mirror_url, location)
        return [hdul for _, _, hdul, _ in each_cutout(_spec(), access, part)]

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(cut, parts, [tmp_path / "shared"] * 2))
    alone = [cut(part, tmp_path / f"own{i}") for i, part in enumerate(parts)]
    assert [_bytes(cutouts) for cutouts in both] == [_bytes(cutouts) for cutouts in alone]


def test_the_other_mirror_takes_over_and_the_cutouts_say_so(sky, tmp_path):
    sky.faults.add("status", match="*-image-*", code=503, times=None)
    job = _job(*_near(sky.positions["field"], 5, 0.03))
    access = _access([sky.mirror_url, str(sky.root)], tmp_path)
    for _, _, hdul, notes in each_cutout(_spec(), access, job):
        assert "answered instead" in notes[0]
        assert hdul["IMAGE_G"].header["URL1"].startswith(f"{sky.root.name}/dr10/")
        assert sky.root.name in hdul[0].header["MIRROR"]
        assert str(sky.root) not in repr(hdul[0].header) + repr(hdul["IMAGE_G"].header)
        assert hdul["INVVAR_G"].header["URL1"].startswith(sky.mirror_url)


def test_a_file_that_is_missing_is_asked_for_once(sky, tmp_path):
    sky.faults.add("status", match="*-image-r.*", code=404, times=None)
    near = _near(sky.positions["field"], 6, 0.03)
    job = _job(*near, products=("invvar",), bands=None)
    cutouts = list(each_cutout(_spec("raise"), _access(sky.mirror_url, tmp_path), job))
    assert all(not isinstance(hdul, Exception) for _, _, hdul, _ in cutouts)
    sky.requests.clear()
    job = _job(*near, products=("image",), bands=None)
    for _, _, hdul, notes in each_cutout(_spec(), _access(sky.mirror_url, tmp_path), job):
        assert [hdu.name for hdu in hdul[1:]] == ["IMAGE_G", "IMAGE_I", "IMAGE_Z"]
        assert any("No r in brick 0451p000" in note for note in notes)
    assert sum("-image-r." in record.path for record in sky.requests) == 1


def test_a_file_that_was_replaced_is_begun_again(sky, tmp_path):
    job = _job(*_near(sky.positions["field"], 6, 0.05))
    access = _access(sky.mirror_url, tmp_path)
    whole = _bytes([hdul for _, _, hdul, _ in each_cutout(_spec(), access, job)])
    fault = sky.faults.add("etag", match="*-image-g.*", times=1)
    moved = replace(job, dec_deg=job.dec_deg - 0.05)
    cutouts = [hdul for _, _, hdul, _ in each_cutout(_spec(), access, moved)]
    assert not [hdul for hdul in cutouts if isinstance(hdul, Exception)]
    assert fault.hits == 1
    again = _bytes([hdul for _, _, hdul, _ in each_cutout(_spec(), access, job)])
    assert again == whole
    sky.faults.add("etag", match="*-image-g.*", times=None)
    further = replace(job, dec_deg=job.dec_deg - 0.1)
    cutouts = [hdul for _, _, hdul, _ in each_cutout(_spec(), access, further)]
    assert {type(hdul) for hdul in cutouts} == {ContentChangedError}


# ---- files -------------------------------------------------------------------------------------


def test_names_are_safe():
    assert safe_name("../../etc/passwd") == "_.._etc_passwd"
    assert safe_name("..") == "_"
    assert safe_name("NGC 1300/α") == "NGC_1300__"
    assert len(safe_name("x" * 500)) == 200
    spec = _spec()
    assert file_name(spec, 7, 12) == "12_7.fits"
