"""Whatever one cutout can be asked for, many can: the same planes, by the same options, by row."""

import io
import warnings
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import MaskedColumn, QTable, Table
from astropy.wcs import WCS

from astroquery_lis.exceptions import InvalidRequestError, NoCoverageError

ARCSEC = u.arcsec


pytestmark = pytest.mark.usefixtures("viewer")


def _table(sky, *names):
    places = SkyCoord([sky.positions[name] for name in names])
    return Table({"id": list(names), "ra": places.ra.deg, "dec": places.dec.deg})


def _wcs(position):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval = position.ra.deg, position.dec.deg
    wcs.wcs.crpix = 10.5, 12.5
    wcs.wcs.cdelt = -0.3 / 3600, 0.3 / 3600
    wcs.array_shape = (24, 20)
    return wcs


def _bytes(hdul):
    stream = io.BytesIO()
    hdul.writeto(stream)
    return stream.getvalue()


def _is_same(path, single):
    """The file is, byte for byte, what astropy would write of the cutout."""
    with fits.open(path) as hdul:
        hdul.verify("exception")
        difference = fits.FITSDiff(hdul, fits.open(io.BytesIO(_bytes(single))))
        assert difference.identical, difference.report()
    return Path(path).read_bytes() == _bytes(single)


OPTIONS = {
    "wise": {"bands": "rW1", "size": 40 * ARCSEC},
    "wise on the optical grid": {"bands": "rW1W2", "size": 30, "wise_grid": "optical"},
    "wise alone": {"bands": "W1", "size": 120},
    "psf": {"bands": "gr", "size": 32, "products": ("image", "psf")},
    "derived": {"bands": "gz", "size": 24, "products": ("snr", "image", "resid", "sigma")},
    "pixel_scale": {"bands": "r", "size": 30, "pixel_scale": 0.5 * ARCSEC},
    "pixel_scale of bricks": {
        "bands": "r",
        "size": 30,
        "pixel_scale": "0.5 arcsec",
        "source": "bricks",
        "products": ("image", "invvar", "maskbits"),
    },
    "rotation": {"bands": "r", "size": 30, "rotation": 30 * u.deg},
    "layer": {"bands": "grz", "size": 25, "layer": "ls-dr10"},
    "layer of the viewer": {"bands": "g", "size": 20, "layer": "ls-dr10-model", "source": "viewer"},
    "layer of bricks": {"bands": "g", "size": 25, "layer": "ls-dr10-south", "source": "bricks"},
    "viewer": {"bands": "gr", "size": 20, "source": "viewer", "products": ("image", "invvar")},
    "release and region": {
        "bands": "g",
        "size": 16,
        "release": "dr9",
        "region": "north",
        "places": ("split", "split"),
    },
    "flux": {
        "bands": "g",
        "size": 16,
        "layer": "ls-dr10",
        "pixel_scale": 1 * ARCSEC,
        "convert_flux": False,
    },
}


@pytest.mark.parametrize("name", OPTIONS)
def test_what_one_can_many_can(sky, survey, tmp_path, name):
    options = dict(OPTIONS[name])
    size = options.pop("size")
    table = _table(sky, *options.pop("places", ("star", "corner")))
    manifest = survey.download_cutouts(
        table, size, download_dir=tmp_path / "a", show_progress=False, **options
    )
    assert list(manifest["Status"]) == ["COMPLETE"] * 2, list(manifest["Message"])
    yielded = dict(survey.iter_cutouts(table, size, **options))
    for row, entry in enumerate(manifest):
        with warnings.catch_warnings(action="ignore"):
            single = survey.get_cutout(sky.positions[table["id"][row]], size, **options)
        assert _is_same(entry["Local Path"], single)
        assert _bytes(yielded[row]) == _bytes(single)
        assert entry["layer"] == single[0].header.get("LAYER", "")
        assert options.get("layer", entry["layer"]) == entry["layer"]


def test_a_grid_for_all_and_a_grid_for_each(sky, survey, tmp_path):
    table = _table(sky, "star", "field")
    star = _wcs(sky.positions["star"])
    options = {"bands": "r", "source": "bricks", "show_progress": False}
    one = survey.download_cutouts(table[:1], wcs=star, download_dir=tmp_path / "a", **options)
    each = survey.download_cutouts(
        table,
        wcs=lambda row: _wcs(SkyCoord(row["ra"], row["dec"], unit="deg")),
        download_dir=tmp_path / "b",
        **options,
    )
    single = survey.get_cutout(sky.positions["star"], wcs=star, bands="r", source="bricks")
    for path in (one["Local Path"][0], each["Local Path"][0]):
        assert _is_same(path, single)
    with fits.open(each["Local Path"][1]) as hdul:
        assert hdul[1].header["CRVAL1"] == pytest.approx(table["ra"][1])


def test_layers_in_order_of_preference(sky, survey, tmp_path):
    layers = ("ls-dr9-north", "ls-dr10-south")
    table = _table(sky, "star", "split")
    options = {"layer": layers, "bands": "r", "source": "viewer"}
    manifest = survey.download_cutouts(table, 16, download_dir=tmp_path, **options)
    assert manifest["layer"][0] == "ls-dr10-south"
    assert set(manifest["Status"]) == {"COMPLETE"}
    single = survey.get_cutout(sky.positions["star"], 16, **options)
    assert single[0].header["LAYER"] == "ls-dr10-south"
    assert _is_same(manifest["Local Path"][0], single)
    again = survey.download_cutouts(table, 16, download_dir=tmp_path, **options)
    assert list(again["layer"]) == list(manifest["layer"])
    with pytest.raises(NoCoverageError):
        survey.get_cutout(SkyCoord(95, 10, unit="deg"), 16, **options)
    for wrong in ((), 3, ("ls-dr10", "no-such")):
        with pytest.raises(InvalidRequestError, match="layer"):
            survey.iter_cutouts(table, 16, layer=wrong)


# ---- by row ------------------------------------------------------------------------------------


def _shapes(manifest):
    return [fits.getdata(path).shape for path in manifest["Local Path"]]


def test_a_size_for_each_row(sky, survey, tmp_path):
    table = _table(sky, "star", "field", "corner")
    table["npix"] = [16, 24, 32]
    table["radius"] = [4.0, 6.0, 8.0] * ARCSEC
    table["box"] = [[8, 12], [10, 14], [8, 12]]
    square = [(16, 16), (24, 24), (32, 32)]
    ways = {
        "column": ("npix", square),
        "column itself": (table["npix"], square),
        "list": ([16, 24, 32], square),
        "array": (np.array([16, 24, 32]), square),
        "angles": ("radius", [(15, 15), (23, 23), (31, 31)]),
        "quantity": ([4, 6, 8] * ARCSEC, [(15, 15), (23, 23), (31, 31)]),
        "function": (lambda row: 2 * row["npix"], [(32, 32), (48, 48), (64, 64)]),
        "pairs": ("box", [(8, 12), (10, 14), (8, 12)]),
        "one pair": ((8, 12), [(8, 12)] * 3),
    }
    for name, (size, shapes) in ways.items():
        folder = tmp_path / name
        manifest = survey.download_cutouts(table, size, download_dir=folder, bands="r")
        assert _shapes(manifest) == shapes, name
        with pytest.raises(InvalidRequestError, match="size was"):
            survey.download_cutouts(table, 11, download_dir=folder, bands="r")


def test_a_list_of_sizes_is_never_taken_for_height_and_width(sky, survey, tmp_path):
    two = _table(sky, "star", "field")
    two["npix"] = [16, 24]
    for size in ([16, 24], np.array([16, 24]), [4, 6] * ARCSEC):
        with pytest.raises(
            InvalidRequestError, match="a size for each of the two targets"
        ) as caught:
            survey.download_cutouts(two, size, download_dir=tmp_path, bands="r")
        assert caught.value.parameter == "size"
    manifest = survey.download_cutouts(two, two["npix"], download_dir=tmp_path, bands="r")
    assert _shapes(manifest) == [(16, 16), (24, 24)]
    with pytest.raises(InvalidRequestError, match="3 values; there are 2 targets"):
        survey.iter_cutouts(two, [16, 24, 32])


def test_other_options_by_row(sky, survey, tmp_path):
    table = _table(sky, "star", "split", "field")
    table["scale"] = [0.3, 0.4, 0.5] * ARCSEC
    table["survey"] = ["dr10", "dr9", "dr10"]
    table["half"] = ["south", "north", "auto"]
    found = survey.download_cutouts(
        QTable(table),
        20,
        download_dir=tmp_path,
        bands="r",
        source="bricks",
        pixel_scale="scale",
        release="survey",
        region="half",
        id_column="id",
    )
    assert list(found["Status"]) == ["COMPLETE"] * 3, list(found["Message"])
    assert list(found["release"]) == ["dr10", "dr9", "dr10"]
    assert list(found["region"]) == ["south", "north", "south"]
    assert [Path(path).stem for path in found["Local Path"]] == list(table["id"])
    for row, path in zip(table, found["Local Path"], strict=True):
        with warnings.catch_warnings(action="ignore"):
            single = survey.get_cutout(
                sky.positions[row["id"]],
                20,
                bands="r",
                source="bricks",
                pixel_scale=row["scale"] * ARCSEC,
                release=row["survey"],
                region=row["half"],
            )
        assert _is_same(path, single)


def test_values_by_row_are_checked_before_any_request(sky, survey, tmp_path):
    table = _table(sky, "star", "field")
    table["npix"] = MaskedColumn([16, 24], mask=[False, True])
    table["bare"] = [4.5, 6.5]
    table["zero"] = [16, 0]
    table["half"] = ["south", "east"]
    sky.requests.clear()
    for options, parameter, message in (
        ({"size": "npix"}, "size", "row 1 has no value"),
        ({"size": "bare"}, "size", "Row 0: .*never an angle"),
        ({"size": "zero"}, "size", "Row 1: "),
        ({"region": "half"}, "region", "Row 1: "),
        ({"size": "no_such_column"}, "size", "is no column of the table, which has: id,"),
        ({"size": lambda row: row["npix"]}, "size", "row 1 has no value"),
    ):
        with pytest.raises(InvalidRequestError, match=message) as caught:
            survey.download_cutouts(table, download_dir=tmp_path, **options)
        assert caught.value.parameter == parameter
    assert len(sky.requests) == 0
    table["ra"][1] = np.nan
    manifest = survey.download_cutouts(table, "npix", download_dir=tmp_path, bands="r")
    assert list(manifest["Status"]) == ["COMPLETE", "SKIPPED"]


def test_arrays_take_scales_by_row_but_one_size(sky, survey, tmp_path):
    h5py = pytest.importorskip("h5py")
    table = _table(sky, "star", "field")
    table["scale"] = [0.3, 0.5] * ARCSEC
    table["npix"] = [16, 24]
    options = {"bands": "rW1", "source": "bricks", "output": "hdf5", "show_progress": False}
    with pytest.raises(InvalidRequestError, match="cutouts of one size"):
        survey.download_cutouts(table, "npix", download_dir=tmp_path / "a", **options)
    manifest = survey.download_cutouts(
        table,
        20,
        download_dir=tmp_path / "b",
        pixel_scale="scale",
        wise_grid="optical",
        products=("image", "snr", "psf"),
        **options,
    )
    assert list(manifest["Status"]) == ["COMPLETE"] * 2, list(manifest["Message"])
    with h5py.File(manifest["Local Path"][0]) as file:
        assert file["image"].shape == file["snr"].shape == (2, 2, 20, 20)
        assert file["psf"].shape == (2, 1, 63, 63)
        assert list(file["image"].attrs["bands"]) == ["r", "W1"]
        for place, row in enumerate(file["index"]["row"]):
            single = survey.get_cutout(
                sky.positions[table["id"][row]],
                20,
                bands="rW1",
                source="bricks",
                pixel_scale=table["scale"][row] * ARCSEC,
                wise_grid="optical",
                products=("image", "snr", "psf"),
            )
            assert np.array_equal(file["image"][place, 1], single["IMAGE_W1"].data)
            assert np.array_equal(file["snr"][place, 0], single["SNR_R"].data, equal_nan=True)
            assert np.array_equal(file["psf"][place, 0], single["PSF_R"].data)


# ---- the viewer --------------------------------------------------------------------------------


def test_a_job_for_the_viewer_says_what_it_costs(sky, survey, tmp_path, caplog):
    table = _table(sky, "star", "field")
    sky.faults.add("status", match="*cutout.fits*", code=429, times=1)
    manifest = survey.download_cutouts(
        table, 16, download_dir=tmp_path, bands="gr", source="viewer", show_progress=False
    )
    assert list(manifest["Status"]) == ["COMPLETE"] * 2
    asked = [record for record in sky.requests if "cutout.fits" in record.path]
    assert len([record for record in asked if record.status == 200]) == 2
    assert "2 cutouts are asked of the viewer: about 2 requests and 0.0 MB" in caplog.text


def test_psf_alone_is_a_product_of_a_batch(sky, survey, tmp_path):
    manifest = survey.download_cutouts(
        _table(sky, "star"), download_dir=tmp_path, bands="r", products=("psf",)
    )
    single = survey.get_cutout(sky.positions["star"], bands="r", products=("psf",))
    with fits.open(manifest["Local Path"][0]) as hdul:
        assert [hdu.name for hdu in hdul] == [hdu.name for hdu in single]
        assert np.array_equal(hdul[1].data, single[1].data)


def test_a_header_is_one_grid_and_a_series_has_a_value_for_each(sky, survey, tmp_path):
    table, options = _table(sky, "star", "field"), {"bands": "r", "show_progress": False}
    header = _wcs(sky.positions["star"]).to_header()
    header["NAXIS1"], header["NAXIS2"] = 20, 24
    one = survey.download_cutouts(
        table[:1], wcs=header, source="bricks", download_dir=tmp_path / "a", **options
    )
    assert fits.getdata(one["Local Path"][0], 1).shape == (24, 20)
    pandas = pytest.importorskip("pandas")
    series = pandas.Series([16, 24, 24], index=[7, 3, 5])
    table = _table(sky, "star", "field", "corner")
    for name, sizes in {"b": series, "c": series.astype(object).to_numpy()}.items():
        each = survey.download_cutouts(table, sizes, download_dir=tmp_path / name, **options)
        shapes = [fits.getdata(path, 1).shape for path in each["Local Path"]]
        assert shapes == [(16, 16), (24, 24), (24, 24)]
