"""Which CCDs cover a place: the viewer's ``ccds/`` list, on a lattice of simulated CCDs."""

import json

import numpy as np

from .files import Response
from .viewer_psf import CAMERAS

__all__ = ["ccd_list"]

_CCD_PIX = {"decam": (2046, 4094), "mosaic": (4079, 4054), "90prime": (4032, 4096)}
_FIRST_EXPOSURE = {"decam": 400001, "mosaic": 100001, "90prime": 75001}
_COLORS = {"g": "#00ff00", "r": "#ff0000", "i": "#cc0099", "z": "#cc00cc"}


def ccd_list(trees, bands, box):
    """Return the JSON answer with the CCDs that touch a box.

    Parameters
    ----------
    trees : iterable of tuple of str
        (release, region) of what the layer is put together from.
    bands : iterable of str
        Bands of the layer.
    box : tuple of float
        West, east, south and north, degrees.

    Returns
    -------
    Response
    """
    west, east, south, north = box
    ra, dec = (west + ((east - west) % 360) / 2) % 360, (south + north) / 2
    polygons = [
        _ccd(region, band, number, ra, dec)
        for _, region in trees
        for number, band in enumerate(bands)
        if (region, band) in CAMERAS
    ]
    body = json.dumps({"polys": polygons}).encode()
    return Response(200, {"Content-Type": "application/json"}, body)


def _ccd(region, band, number, ra_deg, dec_deg):
    """Return the CCD that holds a position; corners (1, 1), (1, H), (W, H), (W, 1)."""
    camera = CAMERAS[region, band]
    width, height = (n * camera.pixel_scale_arcsec / 3600 for n in _CCD_PIX[camera.name])
    axes = np.array(camera.axes, float)
    spans = np.abs(axes @ np.diag([width, height])).max(axis=1)
    stretch = np.cos(np.radians(dec_deg))
    middle_dec = (np.floor(dec_deg / spans[1]) + 0.5) * spans[1]
    middle_ra = (np.floor(ra_deg * stretch / spans[0]) + 0.5) * spans[0] / stretch
    corners = []
    for x, y in ((-1, -1), (-1, 1), (1, 1), (1, -1)):
        step_east, step_north = axes @ (x * width / 2, y * height / 2)
        corners.append([(middle_ra + step_east / stretch) % 360, middle_dec + step_north])
    exposure = _FIRST_EXPOSURE[camera.name] + number
    return {
        "name": f"{camera.name} {exposure}-N4-{band}",
        "radecs": corners,
        "color": _COLORS[band],
    }
