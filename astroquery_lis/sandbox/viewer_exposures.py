"""Single CCDs of the simulated exposures, as the viewer sends them: gzip files of one image.

The counts are those of a calibrated but not sky-subtracted exposure: the scene at the CCD's zero
point and exposure time, on its sky level, with noise of the ``sig1`` of its row.
"""

import gzip
import io
import re
from functools import lru_cache

import numpy as np
from astropy.io import fits
from astropy.time import Time

from ..survey.pixel_grids import TangentGrid
from . import render, sky
from .ccds import ccd_rows

__all__ = ["KINDS", "exposure_file", "layer_ccds"]

KINDS = {"image-data": "image", "iv-data": "iv", "dq-data": "dq"}
"""What the first part of a path asks for, and what the name of the file begins with."""

BAD, SATURATED = 1, 2
"""Values of the data quality plane: a dead column, a saturated pixel."""

_NAME = re.compile(r"([^/-]+)-(\d+)-([^/-]+)(-[^/]*)?/?$")
_BAD_COLUMN_PIX = 700
_SATURATION_COUNTS = 6e4
_KEPT_FILES = 6
_NOISE_PIX = 1 << 20


class _CcdGrid:
    """Where positions are on a CCD, by the WCS of its row."""

    def __init__(self, row):
        names = (("cd1_1", "cd1_2"), ("cd2_1", "cd2_2"))
        matrix = np.array([[float(row[name]) for name in pair] for pair in names])
        self.scale_deg = float(np.sqrt(abs(np.linalg.det(matrix))))
        self._inverse = np.linalg.inv(matrix)
        self._first = float(row["crpix1"]) - 1, float(row["crpix2"]) - 1
        # A degree per pixel: the pixels are offsets in the tangent plane, x to the west.
        self._plane = TangentGrid(float(row["crval1"]), float(row["crval2"]), 0.0, 0.0, 1.0)

    def to_pixel(self, ra_deg, dec_deg):
        """Return pixels counted from 0; NaN on the far side of the sky."""
        west, north = self._plane.to_pixel(ra_deg, dec_deg)
        x, y = np.tensordot(self._inverse, np.stack([-west, north]), axes=1)
        return x + self._first[0], y + self._first[1]


def layer_ccds(tree, bricks, bands):
    """Return the CCDs behind some bricks of a tree, each once.

    Parameters
    ----------
    tree : tuple of str
        Release and region.
    bricks : iterable of str
        Names of bricks.
    bands : iterable of str
        Bands of the layer.

    Returns
    -------
    dict
        Rows of `~.ccds.ccd_rows` by camera, exposure number and name of the CCD.
    """
    return {
        (row["camera"].decode(), int(row["expnum"]), row["ccdname"].decode()): row
        for brick in bricks
        for row in ccd_rows(*tree, brick)
        if row["filter"].decode() in bands
    }


def exposure_file(kind, layer, name):
    """Return the file of a CCD.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    layer : `~.viewer_layers.ViewerLayer`
        Of one tree.
    name : str
        For example ``'decam-410003-N4'``; a band may follow.

    Returns
    -------
    content : bytes
        A gzip file.
    filename : str
        What the viewer calls it.

    Raises
    ------
    KeyError
        If the layer has no such CCD.
    """
    match = _NAME.match(name)
    if match is None:
        raise KeyError(name)
    (tree,) = layer.trees
    key = match[1], int(match[2]), match[3]
    if key not in layer_ccds(tree, sky.BRICKS[tree], layer.available):
        raise KeyError(name)
    prefix = KINDS[kind]
    return _content(prefix, tree, key), f"{prefix}-{key[0]}-{key[1]}-{key[2]}.fits.gz"


@lru_cache(_KEPT_FILES)
def _content(prefix, tree, key):
    row = layer_ccds(tree, sky.BRICKS[tree], "griz")[key]
    counts = _counts(row)
    if prefix == "image":
        data = _with_noise(row, counts)
    elif prefix == "iv":
        data = np.full(counts.shape, 1 / (float(row["sig1"]) * _per_nanomaggy(row)) ** 2)
        data[_quality(counts) > 0] = 0
    else:
        data = _quality(counts)
    if prefix != "dq":
        data = data.astype(np.float32)
    stream = io.BytesIO()
    fits.PrimaryHDU(data, _header(row)).writeto(stream)
    return gzip.compress(stream.getvalue(), compresslevel=1, mtime=0)


def _per_nanomaggy(row):
    """Return how many counts the exposure has for a nanomaggy."""
    return 10 ** ((float(row["ccdzpt"]) - 22.5) / 2.5) * float(row["exptime"])


def _counts(row):
    """Return the counts of a CCD without noise."""
    shape = int(row["height"]), int(row["width"])
    band = row["filter"].decode()
    scene = render.render(sky.truth(), band, _CcdGrid(row), shape=shape)
    scene *= _per_nanomaggy(row)
    scene += float(row["ccdskycounts"]) * float(row["exptime"])
    return scene


def _quality(counts):
    flags = np.where(counts > _SATURATION_COUNTS, SATURATED, 0).astype(np.int16)
    flags[:, _BAD_COLUMN_PIX] |= BAD
    return flags


def _with_noise(row, counts):
    rng = np.random.default_rng([11, int(row["expnum"]), int(row["image_hdu"])])
    # A stretch of noise serves again and again, from another place: it is drawn in no time.
    noise = rng.standard_normal(_NOISE_PIX, dtype=np.float32)
    noise *= float(row["sig1"]) * _per_nanomaggy(row)
    width = counts.shape[1]
    for line, start in zip(counts, rng.integers(0, _NOISE_PIX - width, len(counts)), strict=True):
        line += noise[start : start + width]
    return np.round(np.minimum(counts, _SATURATION_COUNTS))


def _header(row):
    cards = [
        ("EXPNUM", int(row["expnum"])),
        ("CCDNAME", row["ccdname"].decode()),
        ("FILTER", row["filter"].decode()),
        ("EXPTIME", float(row["exptime"])),
        ("MJD-OBS", float(row["mjd_obs"])),
        ("DATE-OBS", Time(float(row["mjd_obs"]), format="mjd").isot),
        ("BUNIT", "electron"),
        ("CTYPE1", "RA---TAN"),
        ("CTYPE2", "DEC--TAN"),
        ("CUNIT1", "deg"),
        ("CUNIT2", "deg"),
    ]
    cards += [
        (name.upper(), float(row[name]))
        for name in ("crval1", "crval2", "crpix1", "crpix2", "cd1_1", "cd1_2", "cd2_1", "cd2_2")
    ]
    return fits.Header(cards)
