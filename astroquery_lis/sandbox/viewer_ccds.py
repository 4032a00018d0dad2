"""Which CCDs cover a place: the viewer's ``ccds/`` list, of the CCDs behind the bricks."""

import json

import numpy as np
from astropy.io.fits import Header
from astropy.wcs import WCS

from ..survey import bricks
from . import sky
from .files import Response
from .viewer_exposures import layer_ccds

__all__ = ["ccd_list"]

_COLORS = {"g": "#00ff00", "r": "#ff0000", "i": "#cc0099", "z": "#cc00cc"}
_WCS = ("crval1", "crval2", "crpix1", "crpix2", "cd1_1", "cd1_2", "cd2_1", "cd2_2")
_MARGIN_DEG = 0.05


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
    polygons = []
    for tree in trees:
        near = [name for name in sky.BRICKS[tree] if _near(bricks.get_brick(name), box)]
        for (camera, number, name), row in layer_ccds(tree, near, bands).items():
            corners = _corners(row)
            if _touches(*corners.T, box):
                band = row["filter"].decode()
                polygons.append(
                    {
                        "name": f"{camera} {number}-{name}-{band}",
                        "radecs": corners.tolist(),
                        "color": _COLORS[band],
                    }
                )
    body = json.dumps({"polys": polygons}).encode()
    return Response(200, {"Content-Type": "application/json"}, body)


def _near(brick, box):
    """Tell whether a brick, with what its image has around it, touches a box."""
    aside = _MARGIN_DEG / np.cos(np.radians(brick.dec_deg))
    ra = np.array([brick.ra1_deg - aside, brick.ra2_deg + aside])
    dec = np.array([brick.dec1_deg - _MARGIN_DEG, brick.dec2_deg + _MARGIN_DEG])
    return _touches(ra, dec, box)


def _touches(ra_deg, dec_deg, box):
    """Tell whether what has these corners touches a box; RA may go round."""
    west, east, south, north = box
    middle = west + ((east - west) % 360) / 2
    aside = (np.asarray(ra_deg) - middle + 180) % 360 - 180
    half = ((east - west) % 360) / 2
    inside_ra = aside.min() <= half and aside.max() >= -half
    return bool(inside_ra and min(dec_deg) <= north and max(dec_deg) >= south)


def _corners(row):
    """Return the corners of a CCD: pixels (1, 1), (1, H), (W, H), (W, 1)."""
    cards = [("CTYPE1", "RA---TAN"), ("CTYPE2", "DEC--TAN")]
    wcs = WCS(Header(cards + [(name.upper(), float(row[name])) for name in _WCS]))
    width, height = int(row["width"]), int(row["height"])
    return wcs.all_pix2world([[1, 1], [1, height], [width, height], [width, 1]], 1)
