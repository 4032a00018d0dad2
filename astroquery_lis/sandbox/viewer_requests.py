"""The survey's viewer, simulated: the same answers, right and wrong, as the real one's code gives.

What it does was recorded from that code, run on other bricks: an unknown layer is a page with
status 200, no coverage is status 500, sizes are cut to 3000 pixels, bands it does not like are
replaced, and more.  Where the real one depends on its disks, this is assumed: binned images are
there up to a factor of four, and no data of other surveys.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from email.utils import formatdate
from functools import partial
from itertools import product
from pathlib import Path
from urllib.parse import parse_qsl

import numpy as np
from astropy.io import fits

from .._packages import how_to_install
from ..survey import bricks, sphere
from ..survey.bricks import Brick
from ..survey.pixel_grids import Box, TangentGrid
from . import catalog, sky
from .cameras import ccd_file, ccd_grid, ccd_psf, corners, layer_ccds
from .measurements import names_of, tractor_dtype
from .viewer_pictures import (
    LIMITED,
    NATIVE_ARCSEC,
    NO_LAYER,
    SIZE_PIX,
    CutoutGrid,
    NoOverlapError,
    Renderer,
    Tree,
    UncaughtError,
    View,
    ViewerLayer,
    bricks_of,
    clean_name,
    find_layer,
    rgb_picture,
    shown_layer,
    to_jpeg,
)
from .web import Request, Response, json_answer, page

_MAX_SIZE_PIX = 3000
_MAX_BRICKS = 400
# The level of a picture where there is nothing.
_GREY = 32
_NATIVE_ZOOM = 14
_DEFAULT_LAYER = "ls-dr9"
_PSF_BOX_PIX = 64
_INDEX_BYTES = 265_000
_BROKEN = (
    '\n<!doctype html>\n<html lang="en">\n<head>\n  <title>Server Error (500)</title>\n</head>\n'
    "<body>\n  <h1>Server Error (500)</h1><p></p>\n</body>\n</html>\n"
)
Query = dict[str, str]
# Pixels and the header of an HDU.
_Plane = tuple[np.ndarray | None, fits.Header]


def _index() -> str:
    # The page of the map is large, which is how a client notices that it asked for nothing.
    head = '\n\n<html xmlns="https://www.w3.org/1999/xhtml" xml:lang="en">\n\n<head>\n'
    head += "<title>Simulated viewer</title>\n</head><body>\n"
    filler = "<!-- the map of the real viewer would be here -->\n"
    return head + filler * (_INDEX_BYTES // len(filler)) + "</body></html>\n"


class Viewer:
    """Answers the requests below ``/viewer/``."""

    def __init__(self, find: Callable[[str], Path], prefix: str) -> None:
        self._prefix = prefix
        self._renderer = Renderer(find)
        # As in the real one: what a path begins with decides, and a dot is any character.
        self._routes = [
            (re.compile(pattern), answer)
            for pattern, answer in (
                ("cutout.fits|fits-cutout", partial(self._cutout, jpeg=False)),
                ("cutout.jpg|jpeg-cutout", partial(self._cutout, jpeg=True)),
                ("coadd-psf/", self._coadd_psf),
                ("bricks/", self._bricks),
                ("ccds/", self._ccds),
                ("alive", lambda query: page("yes")),
                ("checkflavour/viewer", lambda query: page("yes flavour viewer")),
            )
        ]

    def __call__(self, request: Request) -> Response:
        """Return the `Response` to a `Request`."""
        if request.method == "POST":
            return page("<h1>Forbidden</h1><p>CSRF verification failed.</p>", 403)
        path = request.path.removeprefix(self._prefix)
        query = dict(parse_qsl(request.query, keep_blank_values=True))
        try:
            return self._answer(path, query)
        except UncaughtError:
            return page(_BROKEN, 500)

    def _answer(self, path: str, query: Query) -> Response:
        layer, _, rest = path.partition("/")
        if rest.startswith("cat.fits"):
            return catalog_box(layer, query)
        if layer in KINDS:
            body, filename = exposure_file(layer, rest)
            # The bytes of a gzip file under the name of what is in it; no Content-Encoding.
            return _file(body, "image/fits", filename)
        for pattern, answer in self._routes:
            if pattern.match(path):
                return answer(query)
        return page(_index())

    def _cutout(self, query: Query, *, jpeg: bool) -> Response:
        layer = find_layer(query.get("layer", _DEFAULT_LAYER))
        if layer is NO_LAYER:
            return page("no such layer")
        try:
            place = floats(query, "ra", "dec")
        except UncaughtError:
            return page("Need ra,dec keywords", 400)
        return (self._jpeg if jpeg else self._fits)(query, layer, *place)

    def _jpeg(self, query: Query, layer: ViewerLayer, ra_deg: float, dec_deg: float) -> Response:
        if layer.name in LIMITED:
            grid = _parse_grid(query, ra_deg, dec_deg)
            return _picture_of(np.full((grid.height, grid.width, 3), _GREY, np.uint8))
        view = _parse_view(query, layer, ra_deg, dec_deg)
        if "subimage" in query:
            # The picture's label on a FITS file.
            return _file(self._subimage(view), "image/jpeg")
        return self._picture(view)

    def _fits(self, query: Query, layer: ViewerLayer, ra_deg: float, dec_deg: float) -> Response:
        view = _parse_view(query, layer, ra_deg, dec_deg)
        planes = self._subimage(view) if "subimage" in query else self._planes(query, view)
        return _file(planes, "image/fits", f"cutout_{ra_deg:.4f}_{dec_deg:.4f}.fits")

    def _planes(self, query: Query, view: View) -> list[_Plane]:
        """Return what is in the FITS file of a cutout."""
        # A residual layer has one kind of file: its inverse variance is its image again.
        extra = [kind for kind in ("invvar", "maskbits") if kind in query and view.grid.scale == 0]
        planes: list[_Plane] = []
        for kind in ("image", *extra):
            data = self._renderer.draw(view._replace(kind=kind))
            cards = [*_first_cards(view.layer, kind.upper(), "None"), *_band_cards(view.bands)]
            shown = data[0] if len(data) == 1 else data
            planes.append((shown, fits.Header(cards + view.grid.cards())))
        return planes

    def _subimage(self, view: View) -> list[_Plane]:
        """Return the pixels of each brick near the target, as they are."""
        layer, grid = view.layer, view.grid
        size_deg = max(grid.width, grid.height) * NATIVE_ARCSEC / 3600
        planes: list[_Plane] = [(None, fits.Header(_first_cards(layer, "image")))]
        is_near = not layer.trees
        for tree, brick in layer.bricks:
            place = brick.ra_deg, brick.dec_deg
            apart_deg = sphere.separation_deg(grid.ra_deg, grid.dec_deg, *place)
            if layer.tree_at(*place) == tree and apart_deg <= 0.2 + size_deg:
                is_near = True
                planes += self._brick_planes(view, tree, brick)
        if not is_near:
            raise NoOverlapError
        return planes

    def _brick_planes(self, view: View, tree: Tree, brick: Brick) -> Iterator[_Plane]:
        layer, grid, frame = view.layer, view.grid, bricks.brick_grid(brick.id)
        x, y = frame.to_pixel(grid.ra_deg, grid.dec_deg)
        x0, y0 = round(float(x) - (grid.width - 1) / 2), round(float(y) - (grid.height - 1) / 2)
        box = Box(y0, y0 + grid.height, x0, x0 + grid.width).clipped(SIZE_PIX, SIZE_PIX)
        if 0 in box.shape:
            return
        # The joined layer looks for the residuals among the images.
        joined_resid = layer.is_split and layer.product == "resid"
        shown = replace(layer, product="image") if joined_resid else layer
        wcs = frame.cards(x0=box.x0, y0=box.y0)
        for band, kind in product(view.bands, ("image", "invvar")):
            data = self._renderer.native(shown, tree, brick.name, band, kind, box)
            if data is None:
                continue
            cards: list[tuple] = [("IMAGETYP", kind), ("BRICK", brick.name)]
            cards += [("BRICK_X0", box.x0), ("BRICK_Y0", box.y0), ("BAND", band)]
            cards += [card for card in wcs if card[0].startswith(("CTYPE", "CRVAL", "CRPIX", "CD"))]
            cards += [("IMAGEW", float(box.shape[1])), ("IMAGEH", float(box.shape[0]))]
            yield data.astype(np.float32), fits.Header(cards)

    def _picture(self, view: View) -> Response:
        layer, grid, bands = view.layer, view.grid, view.bands
        try:
            planes = self._renderer.draw(view)
        except NoOverlapError:
            planes = np.zeros((len(bands), grid.height, grid.width), np.float32)
        four_bands = layer.bands == "griz"
        if layer.is_split and layer.tree_at(grid.ra_deg, grid.dec_deg) == layer.trees[0]:
            # The northern layer paints what it has in the colours of three bands.
            shown = [number for number, band in enumerate(bands) if band in "grz"]
            planes, bands = planes[shown], "".join(bands[number] for number in shown)
            four_bands = False
        return _picture_of(rgb_picture(planes, bands, four_bands=four_bands))

    def _coadd_psf(self, query: Query) -> Response:
        name = clean_name(query.get("layer", _DEFAULT_LAYER))
        name = re.sub("-model|-resid|-grz", "", name)
        if name in ("des-dr1", "ps1"):
            return page(f"No cutouts for layer {name}")
        layer, (ra, dec) = shown_layer(name), floats(query, "ra", "dec")
        _check_place(ra, dec)
        tree = layer.tree_at(ra % 360, dec)
        exposed = {band for band in layer.bands if self._is_exposed(tree, band, ra, dec)}
        if not exposed:
            # A brick, and not one CCD that touches the place: the real viewer measures nothing.
            raise UncaughtError
        drawn = "".join(band for band in query.get("bands", layer.bands) if band in exposed)
        if not drawn:
            return page("no CCDs overlapping")
        planes: list[_Plane] = [
            (ccd_psf(ra, dec, tree[1], band), fits.Header([("BAND", band)])) for band in drawn
        ]
        planes[0][1].extend(_band_cards(drawn))
        return _file(planes, "image/fits", f"copsf_{ra:.4f}_{dec:.4f}.fits")

    def _is_exposed(self, tree: Tree, band: str, ra_deg: float, dec_deg: float) -> bool:
        """Return True if a good exposure in a band touches a small box at a place."""
        boxes = {
            brick.name: _box_about(bricks.brick_grid(brick.id), ra_deg, dec_deg)
            for brick in bricks_of(tree)
        }
        planes = (
            self._renderer.read(tree, "nexp", brick, band, box)
            for brick, box in boxes.items()
            if 0 not in box.shape
        )
        return any(plane is not None and (plane > 0).any() for plane in planes)

    def _bricks(self, query: Query) -> Response:
        west, east, south, north = _box_of(query)
        if west < 0:
            west, east = west + 360, 360.0
        # Bricks that the box touches with an edge belong to it, but not across RA 0.
        edge = 1e-9
        limits = (max(west - edge, 0.0), min(east + edge, 360 - edge))
        box = (*limits, max(south - edge, -90), min(north + edge, 90))
        touched = list(sphere.bricks_in_box(*box))
        layer = find_layer(query.get("layer", ""))
        if layer.trees:
            touched = [brick.id for _, brick in layer.bricks if brick.id in touched]
        if layer.name.startswith("decaps2"):
            touched = []
        return json_answer({"polys": [_outline(number) for number in touched[:_MAX_BRICKS]]})

    def _ccds(self, query: Query) -> Response:
        return ccd_list(find_layer(query.get("layer", "")), _box_of(query))


def _box_about(grid: TangentGrid, ra_deg: float, dec_deg: float) -> Box:
    """Return the pixels of a brick's image where exposures count for a PSF; they may be none."""
    # On the far side of the sky there is no pixel, nor beside an image.
    x, y = np.nan_to_num(grid.to_pixel(ra_deg, dec_deg), nan=-1e9)
    return sky.box_about(float(x), float(y), _PSF_BOX_PIX // 2)


def _outline(number: int) -> dict:
    """Return a brick as the lists have it."""
    brick = bricks.get_brick(number)
    ra, dec = (brick.ra1_deg, brick.ra2_deg), (brick.dec1_deg, brick.dec2_deg)
    order = ((0, 0), (0, 1), (1, 1), (1, 0))
    return {"name": brick.name, "radecs": [[ra[i], dec[j]] for i, j in order]}


def _first_cards(layer: ViewerLayer, *kind: str) -> list[tuple]:
    return [("SURVEY", layer.survey), ("VERSION", layer.version), ("IMAGETYP", *kind)]


def _band_cards(bands: str) -> list[tuple]:
    return [("BANDS", bands), *((f"BAND{number}", band) for number, band in enumerate(bands))]


def _check_place(ra_deg: float, dec_deg: float) -> None:
    """Break, as the viewer does, where there is no such place."""
    if not (np.isfinite(ra_deg) and abs(dec_deg) <= 90):
        raise UncaughtError


def _parse_view(query: Query, layer: ViewerLayer, ra_deg: float, dec_deg: float) -> View:
    _check_place(ra_deg, dec_deg)
    grid = _parse_grid(query, ra_deg, dec_deg)
    bands = query.get("bands", layer.bands)
    is_turned = layer.is_split and grid.rotation_deg != 0 and "subimage" not in query
    # Of a layer without data there are no bands either.
    if not layer.product or not bands or is_turned:
        raise UncaughtError
    # One character too many and all of them are replaced.
    return View(layer, grid, bands if set(bands) <= set(layer.bands) else layer.bands)


def _parse_grid(query: Query, ra_deg: float, dec_deg: float) -> CutoutGrid:
    try:
        if "pixscale" in query:
            scale = float(query["pixscale"])
        else:
            zoom = int(query.get("zoom", _NATIVE_ZOOM))
            scale = NATIVE_ARCSEC * 2.0 ** (_NATIVE_ZOOM - zoom)
        size = min(int(query.get("size", 256)), _MAX_SIZE_PIX)
        width = min(int(query.get("width", size)), _MAX_SIZE_PIX)
        height = min(int(query.get("height", size)), _MAX_SIZE_PIX)
        rotation = float(query.get("rotate", 0))
    except (ValueError, OverflowError):
        raise UncaughtError from None
    if not all((0 < scale < np.inf, width > 0, height > 0, np.isfinite(rotation))):
        raise UncaughtError
    return CutoutGrid(ra_deg, dec_deg, width, height, scale, rotation)


def _picture_of(pixels: np.ndarray) -> Response:
    try:
        return _file(to_jpeg(pixels), "image/jpeg")
    except ImportError:
        return page(f"Pictures need Pillow: {how_to_install('plot')}", 500)


def _file(body: bytes | list[_Plane], content_type: str, filename: str | None = None) -> Response:
    """Return an answer with a file: bytes, or the planes of one."""
    if not isinstance(body, bytes):
        hdus = [fits.PrimaryHDU(*body[0]), *(fits.ImageHDU(*plane) for plane in body[1:])]
        stream = io.BytesIO()
        fits.HDUList(hdus).writeto(stream)
        body = stream.getvalue()
    now = time.time()
    headers = {
        "Content-Type": content_type,
        "Last-Modified": formatdate(now, usegmt=True),
        "Expires": formatdate(now + 3600, usegmt=True),
    }
    if filename:
        headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    return Response(200, headers, body)


# ---- exposures, and rows of catalogues ----------------------------------------------------------

# What the first part of a path asks for, and what the name of the file begins with.
KINDS = {"image-data": "image", "iv-data": "iv", "dq-data": "dq"}
_NAME = re.compile(r"([^/-]+)-(\d+)-([^/-]+)(-[^/]*)?/?$")


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
    return ccd_file(prefix, tree, key), f"{prefix}-{key[0]}-{key[1]}-{key[2]}.fits.gz"


_COLORS = {"g": "#00ff00", "r": "#ff0000", "i": "#cc0099", "z": "#cc00cc"}
_MARGIN_DEG = 0.05


def ccd_list(layer: ViewerLayer, box: list[float]) -> Response:
    """Return the JSON answer with the CCDs that touch a box: west, east, south, north, degrees."""
    polygons = []
    for tree in layer.trees:
        near = [name for name in sky.BRICKS[tree] if _near(bricks.get_brick(name), box)]
        for (camera, number, name), row in layer_ccds(tree, near, layer.bands).items():
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
    return np.stack(ccd_grid(row).to_sky(x, y), axis=1)


_LAYER = re.compile(r"ls-(dr8|dr9|dr10|dr11)(-.*)?")
CORNERS = ("ralo", "rahi", "declo", "dechi")


def floats(query: Query, *names: str) -> list[float]:
    """Return numbers of a query; the viewer breaks where they are none."""
    try:
        return [float(query[name]) for name in names]
    except (KeyError, ValueError):
        raise UncaughtError from None


def _box_of(query: Query) -> list[float]:
    """Return the corners of a box, degrees."""
    limits = floats(query, *CORNERS)
    if not np.isfinite(limits).all():
        raise UncaughtError
    return limits


def catalog_box(name: str, query: Query) -> Response:
    """Return the answer to a request for the rows in a box."""
    if find_layer(name) is NO_LAYER:
        return page("no such layer")
    if set(CORNERS) - set(query):
        return page("no ra,dec bbox")
    limits, layer = _box_of(query), shown_layer(name)
    rows = _rows(name, layer, limits)
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


def _rows(name: str, layer: ViewerLayer, limits: list[float]) -> np.ndarray:
    """Return the primary rows in a box that are in a layer, in the columns of its south."""
    match = _LAYER.fullmatch(name)
    if match is None:
        # Of the other releases only images are simulated.
        return np.zeros(0, tractor_dtype("dr10", "south"))
    release, regions = match[1], [region for _, region in reversed(layer.trees)]
    kind = tractor_dtype(release, regions[0])
    parts = []
    for region in regions:
        rows, _ = catalog.primary_rows(release, region)
        rows = rows[_is_inside(rows["ra"], rows["dec"], *limits)]
        if layer.is_split:
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
    for name in set(kind.names or ()) & set(names_of(rows)):
        if rows.dtype[name].shape == kind[name].shape:
            converted[name] = rows[name]
        else:
            converted[name][:, : rows.dtype[name].shape[0]] = rows[name]
    return converted
