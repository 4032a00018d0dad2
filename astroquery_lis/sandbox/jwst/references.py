"""The reference files of the simulated detectors, as `stdatamodels` writes them."""

import numpy as np

from .detector import ELECTRONICS, SATURATION_DN, detector_maps, first_pixel
from .geometry import DETECTORS
from .scene import FILTERS

__all__ = ["DARK_GROUPS", "KINDS", "PARAMETERS", "pixel_sr", "write_reference"]

DARK_GROUPS = 12
"""Groups of the dark of small frames; others have as many as the exposure."""

_USEAFTER = "2014-01-01T00:00:00"
# Bits of the files; in memory the bits are those of the pipeline.
_DQ = (
    (0, "DO_NOT_USE", "Bad pixel"),
    (1, "DEAD", "No response"),
    (2, "REFERENCE_PIXEL", "Sees no light"),
)
_FITS_KINDS = {
    "mask": "MaskModel",
    "saturation": "SaturationModel",
    "superbias": "SuperBiasModel",
    "linearity": "LinearityModel",
    "dark": "DarkModel",
    "gain": "GainModel",
    "readnoise": "ReadnoiseModel",
    "ipc": "IPCModel",
    "flat": "FlatModel",
    "photom": "NrcImgPhotomModel",
    "apcorr": "NrcImgApcorrModel",
}
_ASDF_KINDS = {
    "distortion": "DistortionModel",
    "filteroffset": "FilteroffsetModel",
    "abvegaoffset": "ABVegaOffsetModel",
}
PARAMETERS = {
    "pars-jumpstep": (
        "jwst.jump.jump_step.JumpStep",
        {"rejection_threshold": 5.0},
    ),
    "pars-tweakregstep": (
        "jwst.tweakreg.tweakreg_step.TweakRegStep",
        {
            "minobj": 4,
            "searchrad": 1.0,
            "separation": 0.5,
            "tolerance": 0.3,
            "use2dhist": False,
            "snr_threshold": 20.0,
            "roundhi": 0.5,
            "fitgeometry": "shift",
        },
    ),
    # The PSF is sampled so badly that the defaults take peaks of stars for outliers.
    "pars-outlierdetectionstep": (
        "jwst.outlier_detection.outlier_detection_step.OutlierDetectionStep",
        {"snr": "5.0 4.0", "scale": "2.5 1.5"},
    ),
    "pars-sourcecatalogstep": (
        "jwst.source_catalog.source_catalog_step.SourceCatalogStep",
        {"bkg_boxsize": 64, "kernel_fwhm": 2.2, "npixels": 6, "snr_threshold": 5.0},
    ),
}
"""Parameters that the pipeline finds in CRDS, by reference type: class of the step, values."""

KINDS = (*_FITS_KINDS, *_ASDF_KINDS, *PARAMETERS)
"""The reference types that have files."""


def pixel_sr(detector):
    """Return the solid angle of a pixel of a detector, sr."""
    return np.radians(DETECTORS[detector].scale_arcsec / 3600) ** 2


def write_reference(path, kind, detector, size, groups, timing, version=1):
    """Write one reference file.

    Parameters
    ----------
    path : `~pathlib.Path`
        Where to.
    kind : str
        One of `KINDS`.
    detector : str
        Key of `~.geometry.DETECTORS`.
    size : int
        Side of the frame, pixels.
    groups : int
        How many groups the dark has.
    timing : dict
        Keyword values: ``subarray``, ``readpatt``, ``group_time``.
    version : int, optional
        From 2 on, the content differs a little.
    """
    if kind in PARAMETERS:
        _write_parameters(path, kind, version)
        return
    from stdatamodels.jwst import datamodels

    name = _FITS_KINDS.get(kind) or _ASDF_KINDS[kind]
    model = getattr(datamodels, name)()
    _fill_header(model, kind, detector, size, timing, version)
    _FILLERS[kind](model, detector, size, groups, timing, 1 + 1e-3 * (version - 1))
    model.save(str(path))
    model.close()


def _fill_header(model, kind, detector, size, timing, version):
    meta, row = model.meta, DETECTORS[detector]
    meta.telescope, meta.reftype = "JWST", kind.upper()
    meta.author, meta.pedigree = "astroquery_lis.sandbox", "DUMMY"
    meta.useafter = _USEAFTER
    meta.description = f"Simulated {kind}, version {version}; not for real data"
    meta.instrument.name, meta.instrument.detector = "NIRCAM", detector
    meta.instrument.channel, meta.instrument.module = row.channel, row.module
    if kind in _IMAGES:
        first = first_pixel(size) + 1
        meta.subarray = {
            "name": timing["subarray"],
            "xstart": first,
            "ystart": first,
            "xsize": size,
            "ysize": size,
            "fastaxis": -1,
            "slowaxis": 2,
        }


def _dq_def():
    rows = [(bit, 1 << bit, name, text) for bit, name, text in _DQ]
    kinds = [("BIT", "<i4"), ("VALUE", "<u4"), ("NAME", "U40"), ("DESCRIPTION", "U80")]
    return np.array(rows, dtype=kinds)


def _fill_mask(model, detector, size, groups, timing, factor):
    from stdatamodels.jwst.datamodels import dqflags

    maps, bits = detector_maps(detector, size), dqflags.pixel
    bad = np.uint32(bits["DO_NOT_USE"] | bits["DEAD"])
    model.dq = maps.bad * bad + maps.reference * np.uint32(bits["REFERENCE_PIXEL"])
    if factor != 1:
        model.dq[size // 4, size // 4] = bad
    model.dq_def = _dq_def()


def _fill_saturation(model, detector, size, groups, timing, factor):
    model.data = np.full((size, size), SATURATION_DN * factor, np.float32)
    model.dq = np.zeros((size, size), np.uint32)
    model.dq_def = _dq_def()


def _fill_superbias(model, detector, size, groups, timing, factor):
    model.data = detector_maps(detector, size).bias_dn * np.float32(factor)
    model.err = np.ones((size, size), np.float32)
    model.dq = np.zeros((size, size), np.uint32)
    model.dq_def = _dq_def()
    model.meta.exposure.readpatt = timing["readpatt"]


def _fill_linearity(model, detector, size, groups, timing, factor):
    square = detector_maps(detector, size).linearity * np.float32(factor)
    model.coeffs = np.stack([np.zeros_like(square), np.ones_like(square), square])
    model.dq = np.zeros((size, size), np.uint32)
    model.dq_def = _dq_def()


def _fill_dark(model, detector, size, groups, timing, factor):
    times = timing["group_time"] * np.arange(1, groups + 1, dtype=np.float32)
    dark = detector_maps(detector, size).dark_dn_s * np.float32(factor)
    model.data = times[:, None, None] * dark
    model.dq = np.zeros((size, size), np.uint32)
    model.dq_def = _dq_def()
    exposure = model.meta.exposure
    exposure.readpatt = timing["readpatt"]
    exposure.nframes, exposure.groupgap, exposure.ngroups = 1, 0, groups
    exposure.noutputs = timing["noutputs"]


def _fill_gain(model, detector, size, groups, timing, factor):
    model.data = np.full((size, size), ELECTRONICS[detector].gain * factor, np.float32)


def _fill_readnoise(model, detector, size, groups, timing, factor):
    parts = ELECTRONICS[detector]
    # The noise of a difference of two reads.
    noise = np.sqrt(2) * parts.read_noise_e / parts.gain * factor
    model.data = np.full((size, size), noise, np.float32)
    model.meta.exposure.readpatt = timing["readpatt"]


def _fill_ipc(model, detector, size, groups, timing, factor):
    model.data = np.zeros((3, 3), np.float32)
    model.data[1, 1] = 1.0


def _fill_flat(model, detector, size, groups, timing, factor):
    maps = detector_maps(detector, size)
    model.data = np.where(maps.reference, 1, maps.flat * np.float32(factor)).astype(np.float32)
    model.err = np.full((size, size), 1e-3, np.float32)
    model.dq = np.zeros((size, size), np.uint32)
    model.dq_def = _dq_def()
    model.meta.instrument.pupil = "CLEAR"


def _filters(detector):
    return {name: row for name, row in FILTERS.items() if row.detector == detector}


def _fill_photom(model, detector, size, groups, timing, factor):
    rows = [
        (name, "CLEAR", row.photmjsr * factor, 0.01 * row.photmjsr)
        for name, row in _filters(detector).items()
    ]
    kinds = [("filter", "S12"), ("pupil", "S12"), ("photmjsr", "<f4"), ("uncertainty", "<f4")]
    model.phot_table = np.array(rows, dtype=kinds)
    model.meta.photometry.pixelarea_steradians = pixel_sr(detector)
    model.meta.photometry.pixelarea_arcsecsq = DETECTORS[detector].scale_arcsec ** 2
    model.meta.exposure.type = "NRC_IMAGE"


def _fill_apcorr(model, detector, size, groups, timing, factor):
    scale = DETECTORS[detector].scale_arcsec
    rows = []
    for name, row in _filters(detector).items():
        # The mosaic adds the widths of the pixel, of the drop, and of its own pixel.
        sigma = np.sqrt((row.sigma_arcsec / scale) ** 2 + 4 / 12)
        for fraction in np.arange(1, 10) / 10:
            radius = sigma * np.sqrt(-2 * np.log(1 - fraction))
            rows.append((name, "CLEAR", fraction, radius, factor / fraction, 12.0, 16.0))
    numbers = ("eefraction", "radius", "apcorr", "skyin", "skyout")
    kinds = [("filter", "S12"), ("pupil", "S15"), *((column, "<f4") for column in numbers)]
    model.apcorr_table = np.array(rows, dtype=kinds)
    model.meta.exposure.type = "NRC_IMAGE"


def _fill_distortion(model, detector, size, groups, timing, factor):
    import astropy.units as u

    # A later version lies 1 mas elsewhere.
    model.model = DETECTORS[detector].transform(shift_arcsec=factor - 1)
    model.meta.input_units, model.meta.output_units = u.pix, u.arcsec
    model.meta.exposure.type = "NRC_IMAGE"
    model.meta.exposure.p_exptype = "NRC_IMAGE|"
    model.meta.instrument.p_pupil = "CLEAR|"
    model.meta.title = "Simulated distortion"


def _fill_filteroffset(model, detector, size, groups, timing, factor):
    model.filters = [
        {"filter": name, "pupil": "CLEAR", "column_offset": 0.0, "row_offset": 0.0}
        for name in _filters(detector)
    ]
    model.meta.exposure.type = "NRC_IMAGE"


def _fill_abvegaoffset(model, detector, size, groups, timing, factor):
    from astropy.table import Table

    chosen = _filters(detector)
    model.abvega_offset = Table(
        {
            "filter": list(chosen),
            "pupil": ["CLEAR"] * len(chosen),
            "abvega_offset": [row.abvega * factor for row in chosen.values()],
        }
    )


_FILLERS = {
    "mask": _fill_mask,
    "saturation": _fill_saturation,
    "superbias": _fill_superbias,
    "linearity": _fill_linearity,
    "dark": _fill_dark,
    "gain": _fill_gain,
    "readnoise": _fill_readnoise,
    "ipc": _fill_ipc,
    "flat": _fill_flat,
    "photom": _fill_photom,
    "apcorr": _fill_apcorr,
    "distortion": _fill_distortion,
    "filteroffset": _fill_filteroffset,
    "abvegaoffset": _fill_abvegaoffset,
}
_IMAGES = (
    "mask",
    "saturation",
    "superbias",
    "linearity",
    "dark",
    "gain",
    "readnoise",
    "ipc",
    "flat",
)


def _write_parameters(path, kind, version):
    import asdf

    name, values = PARAMETERS[kind]
    short = name.rpartition(".")[2]
    values = dict(values)
    if version > 1:
        name_of = next((key for key, value in values.items() if isinstance(value, float)), None)
        if name_of is None:
            values["snr"] = f"{5 + 1e-3 * (version - 1):g} 4.0"
        else:
            values[name_of] *= 1 + 1e-3 * (version - 1)
    meta = {
        "author": "astroquery_lis.sandbox",
        "date": _USEAFTER,
        "description": f"Simulated parameters, version {version}",
        "instrument": {"name": "NIRCAM"},
        "origin": "astroquery_lis.sandbox",
        "pedigree": "DUMMY",
        "reftype": kind,
        "telescope": "JWST",
        "useafter": _USEAFTER,
    }
    tree = {"class": name, "name": short, "meta": meta, "parameters": values}
    asdf.AsdfFile(tree).write_to(str(path))
