"""Single CCDs of the simulated exposures, as the viewer sends them: gzip files of one image.

The counts are those of a calibrated but not sky-subtracted exposure: the scene at the CCD's zero
point and exposure time, on its sky level, with noise of the ``sig1`` of its row.
"""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from astropy.io import fits
from astropy.time import Time

from ..survey import bricks
from ..survey.bricks import Brick
from ..survey.pixel_grids import TangentGrid
from . import catalog, sky
from .cameras import CcdGrid, ccd_rows, corners
from .measurements import tractor_dtype
from .viewer_pictures import UncaughtError, find_layer, shown_layer
from .web import Response, json_answer, page

# What the first part of a path asks for, and what the name of the file begins with.
KINDS = {"image-data": "image", "iv-data": "iv", "dq-data": "dq"}

# Values of the data quality plane: a dead column, a saturated pixel.
BAD, SATURATED = 1, 2

_NAME = re.compile(r"([^/-]+)-(\d+)-([^/-]+)(-[^/]*)?/?$")
_BAD_COLUMN_PIX = 700
_SATURATION_COUNTS = 6e4
_KEPT_FILES = 6
_NOISE_PIX = 1 << 20


def _grid(row: np.void) -> CcdGrid:
    """Return where positions are on a CCD, by the WCS of its row."""
    cd = np.array([[float(row[f"cd{i}_{j}"]) for j in (1, 2)] for i in (1, 2)])
    first = float(row["crpix1"]) - 1, float(row["crpix2"]) - 1
    return CcdGrid(float(row["crval1"]), float(row["crval2"]), first, cd)


def layer_ccds(
    tree: tuple[str, str], bricks: Iterable[str], bands: Iterable[str]
) -> dict[tuple[str, int, str], np.void]:
    """Return the CCDs behind some bricks of a tree, each once."""
    return {
        (row["camera"].decode(), int(row["expnum"]), row["ccdname"].decode()): row
        for brick in bricks
        for row in ccd_rows(*tree, brick)
        if row["filter"].decode() in bands
    }


def exposure_file(kind: str, path: str) -> tuple[bytes, str]:
    """Return the file of a CCD, and its name; a layer put together from two has none."""
    name, _, ccd = path.partition("/")
    layer, match = shown_layer(name), _NAME.match(ccd)
    if layer.is_split or match is None:
        raise UncaughtError
    (tree,) = layer.trees
    key = match[1], int(match[2]), match[3]
    if key not in layer_ccds(tree, sky.BRICKS[tree], layer.bands):
        raise UncaughtError
    prefix = KINDS[kind]
    return _content(prefix, tree, key), f"{prefix}-{key[0]}-{key[1]}-{key[2]}.fits.gz"


@lru_cache(_KEPT_FILES)
def _content(prefix: str, tree: tuple[str, str], key: tuple[str, int, str]) -> bytes:
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


def _per_nanomaggy(row: np.void) -> float:
    """Return how many counts the exposure has for a nanomaggy."""
    return 10 ** ((float(row["ccdzpt"]) - sky.ZERO_POINT) / 2.5) * float(row["exptime"])


def _counts(row: np.void) -> np.ndarray:
    """Return the counts of a CCD without noise."""
    shape = int(row["height"]), int(row["width"])
    band = row["filter"].decode()
    scene = sky.render(sky.truth(), band, _grid(row), shape=shape)
    scene *= _per_nanomaggy(row)
    scene += float(row["ccdskycounts"]) * float(row["exptime"])
    return scene


def _quality(counts: np.ndarray) -> np.ndarray:
    flags = np.where(counts > _SATURATION_COUNTS, SATURATED, 0).astype(np.int16)
    flags[:, _BAD_COLUMN_PIX] |= BAD
    return flags


def _with_noise(row: np.void, counts: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng([11, int(row["expnum"]), int(row["image_hdu"])])
    # A stretch of noise serves again and again, from another place: it is drawn in no time.
    noise = rng.standard_normal(_NOISE_PIX, dtype=np.float32)
    noise *= float(row["sig1"]) * _per_nanomaggy(row)
    width = counts.shape[1]
    for line, start in zip(counts, rng.integers(0, _NOISE_PIX - width, len(counts)), strict=True):
        line += noise[start : start + width]
    return np.round(np.minimum(counts, _SATURATION_COUNTS))


def _header(row: np.void) -> fits.Header:
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
    cards += [(name.upper(), float(row[name])) for name in _WCS]
    return fits.Header(cards)


_COLORS = {"g": "#00ff00", "r": "#ff0000", "i": "#cc0099", "z": "#cc00cc"}
_WCS = ("crval1", "crval2", "crpix1", "crpix2", "cd1_1", "cd1_2", "cd2_1", "cd2_2")
_MARGIN_DEG = 0.05


def ccd_list(trees: Iterable[tuple[str, str]], bands: Iterable[str], box: list[float]) -> Response:
    """Return the JSON answer with the CCDs that touch a box: west, east, south, north, degrees."""
    polygons = []
    for tree in trees:
        near = [name for name in sky.BRICKS[tree] if _near(bricks.get_brick(name), box)]
        for (camera, number, name), row in layer_ccds(tree, near, bands).items():
            outline = _corners(row)
            if _touches(outline[:, 0], outline[:, 1], box):
                band = row["filter"].decode()
                polygons.append(
                    {
                        "name": f"{camera} {number}-{name}-{band}",
                        "radecs": outline.tolist(),
                        "color": _COLORS[band],
                    }
                )
    return json_answer({"polys": polygons})


def _near(brick: Brick, box: list[float]) -> bool:
    """Return True if a brick, with what its image has around it, touches a box."""
    aside = _MARGIN_DEG / np.cos(np.radians(brick.dec_deg))
    ra = np.array([brick.ra1_deg - aside, brick.ra2_deg + aside])
    dec = np.array([brick.dec1_deg - _MARGIN_DEG, brick.dec2_deg + _MARGIN_DEG])
    return _touches(ra, dec, box)


def _touches(ra_deg: np.ndarray, dec_deg: np.ndarray, box: list[float]) -> bool:
    """Return True if what has these corners touches a box; RA may go round."""
    west, east, south, north = box
    middle = west + ((east - west) % 360) / 2
    aside = (np.asarray(ra_deg) - middle + 180) % 360 - 180
    half = ((east - west) % 360) / 2
    inside_ra = aside.min() <= half and aside.max() >= -half
    return bool(inside_ra and min(dec_deg) <= north and max(dec_deg) >= south)


def _corners(row: np.void) -> np.ndarray:
    """Return the corners of a CCD: pixels (1, 1), (1, H), (W, H), (W, 1)."""
    x, y = corners(int(row["width"]), int(row["height"]))
    return np.stack(_grid(row).to_sky(x, y), axis=1)


_LAYER = re.compile(r"ls-dr(8|9|10|11)(-north|-south)?(-.*)?")
CORNERS = ("ralo", "rahi", "declo", "dechi")


def floats(query: dict[str, str], *names: str) -> list[float]:
    """Return numbers of a query; the viewer breaks where they are none."""
    try:
        return [float(query[name]) for name in names]
    except (KeyError, ValueError):
        raise UncaughtError from None


def catalog_box(name: str, query: dict[str, str]) -> Response:
    """Return the answer to a request for the rows in a box."""
    if find_layer(name) is None:
        return page("no such layer")
    if not all(key in query for key in CORNERS):
        return page("no ra,dec bbox")
    limits, layer = floats(query, *CORNERS), shown_layer(name)
    if not np.isfinite(limits).all():
        raise UncaughtError
    rows = _rows(name, layer.is_split, limits)
    if len(rows) == 0 and layer.is_split:
        return page("No catalog sources in layer and RA,Dec box")
    if len(rows) == 0:
        raise UncaughtError
    # Through the viewer's own tables the units get lost.
    file = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU(rows)]).writeto(file)
    headers = {
        "Content-Type": "image/fits",
        "Content-Disposition": f'attachment; filename="cat-{name}.fits"',
    }
    return Response(200, headers, file.getvalue())


def _rows(name: str, is_split: bool, limits: list[float]) -> np.ndarray:
    """Return the primary rows in a box that are in a layer, in the columns of its south."""
    match = _LAYER.fullmatch(name)
    if match is None:
        # Of the other releases only images are simulated.
        return np.zeros(0, tractor_dtype("dr10", "south"))
    release, part = f"dr{match[1]}", (match[2] or "")[1:]
    regions = ("south", "north") if is_split else (part or "south",)
    kind = tractor_dtype(release, regions[0])
    parts = []
    for region in regions:
        rows, _ = catalog.primary_rows(release, region)
        rows = rows[_is_inside(rows["ra"], rows["dec"], *limits)]
        if is_split:
            rows = rows[bricks.is_north(rows["ra"], rows["dec"]) == (region == "north")]
        parts.append(_in_columns(rows, kind))
    return np.concatenate(parts)


def _is_inside(
    ra_deg: np.ndarray, dec_deg: np.ndarray, west: float, east: float, south: float, north: float
) -> np.ndarray:
    """Return which places are in the rectangle of the tangent plane that has the box's size."""
    if east < west:
        west -= 360.0
    middle = (south + north) / 2
    grid = TangentGrid(((west + east) / 2) % 360.0, middle, 0.0, 0.0, 1.0)
    # Off the plane there are no coordinates; comparisons with NaN are false.
    x, y = grid.to_pixel(ra_deg, dec_deg)
    half_width = (east - west) / 2 * np.cos(np.radians(middle))
    return (np.abs(x) <= half_width) & (np.abs(y) <= (north - south) / 2)


def _in_columns(rows: np.ndarray, kind: np.dtype) -> np.ndarray:
    """Return rows with other columns: 0 for what they lack, in light curves too."""
    converted = np.zeros(len(rows), kind)
    for name in set(kind.names or ()) & set(rows.dtype.names or ()):
        if rows.dtype[name].shape == kind[name].shape:
            converted[name] = rows[name]
        else:
            converted[name][:, : rows.dtype[name].shape[0]] = rows[name]
    return converted
