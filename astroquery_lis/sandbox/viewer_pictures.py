"""The layers of the simulated viewer, drawn from boxes of the pixels of the simulated bricks.

All releases are drawn from the same bricks: a layer differs by its bands, by the trees that it
looks into and by what it says in the header.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from scipy.ndimage import gaussian_filter

from .._locks import decoding
from ..survey import bricks, paths, releases, sphere
from ..survey.bricks import Brick
from ..survey.pixel_grids import Box
from . import sky
from .cameras import CcdGrid

_TREES = {"north": ("dr9", "north"), "south": ("dr10", "south")}

_ALIASES = {
    "hsc": "hsc-dr2",
    "hsc2": "hsc-dr2",
    "sdss2": "sdss",
    "sdssco": "sdss",
    "vlass": "vlass1.2",
}
with open(Path(__file__).parent / "data" / "viewer_layers.csv", newline="") as _file:
    _ROWS = list(csv.DictReader(_file))
# Layers that exist but whose data are not simulated: a request for one fails.
NO_DATA = frozenset(row["name"] for row in _ROWS if not row["product"])

# Those of them that are of a part of the sky, off which the simulated one lies.
_SURVEYS = ("act", "decaps", "des", "hsc", "ps1", "sdss", "vlass")
LIMITED = frozenset(name for name in NO_DATA if name.startswith(_SURVEYS))


@dataclass(frozen=True)
class ViewerLayer:
    """One layer."""

    name: str
    bands: str
    product: str
    # The (release, region) of what it shows, north first; none of a misspelt layer, which is zero.
    trees: tuple[Tree, ...]
    survey: str
    version: str

    @property
    def is_split(self) -> bool:
        """Whether north and south are joined."""
        return len(self.trees) == 2

    def tree_at(self, ra_deg: float, dec_deg: float) -> Tree:
        """Return the tree that a position is served from."""
        last = -1 if self.is_split and not bricks.is_north(ra_deg, dec_deg) else 0
        return self.trees[last]

    @property
    def bricks(self) -> list[tuple[Tree, Brick]]:
        """The bricks of all trees, tree by tree in the order of the survey's table."""
        return [(tree, brick) for tree in self.trees for brick in bricks_of(tree)]


def bricks_of(tree: Tree) -> list[Brick]:
    """Return the bricks of a tree, in the order of the survey's table."""
    ids = sorted(bricks.parse_brick_name(name) for name in sky.BRICKS[tree])
    return [bricks.get_brick(number) for number in ids]


def _layer(row: dict[str, str]) -> ViewerLayer:
    trees = tuple(_TREES[region] for region in row.pop("trees").split("+") if region)
    return ViewerLayer(**row, trees=trees)


_LAYERS = MappingProxyType({row["name"]: _layer(row) for row in _ROWS})
# The layers that are drawn, by name, with the misspelt ones that are answered all the same.
LAYERS = {name: layer for name, layer in _LAYERS.items() if layer.product}
NO_LAYER = ViewerLayer("", "", "", (), "", "")


def clean_name(name: str) -> str:
    """Return the name of a layer as the viewer understands it."""
    # A plus sign in an address is a space.
    name = name.replace(" ", "+")
    if name == "dr8" or name.startswith("dr8-"):
        name = f"ls-{name}"
    return _ALIASES.get(name, name)


def find_layer(name: str) -> ViewerLayer:
    """Return the layer called ``name``, `NO_LAYER` if there is none."""
    return _LAYERS.get(clean_name(name), NO_LAYER)


def shown_layer(name: str) -> ViewerLayer:
    """Return a layer that has something behind its name; others break the viewer."""
    layer = find_layer(name)
    if not layer.trees:
        raise UncaughtError
    return layer


SIZE_PIX = bricks.IMAGE_SIZE_PIX
_MIDDLE = (SIZE_PIX - 1) / 2
NATIVE_ARCSEC = releases.PIXEL_SCALE_ARCSEC
# Binned images are there up to this power of two; coarser ones are zeros.
LAST_SCALE = 2

# (release, region).
Tree = tuple[str, str]
_KERNEL_PIX = 3
_CHUNK_PIX = 1 << 18
_BIN_MARGIN_PIX = 8


class UncaughtError(Exception):
    """Something that the real viewer does not catch."""


class NoOverlapError(UncaughtError):
    """No brick is near the cutout."""


@dataclass(frozen=True)
class CutoutGrid:
    """The pixels of an answer."""

    ra_deg: float
    dec_deg: float
    width: int
    height: int
    pixel_scale_arcsec: float
    rotation_deg: float = 0.0

    @property
    def cd(self) -> np.ndarray:
        """The CD matrix, degrees."""
        scale = self.pixel_scale_arcsec / 3600
        cos, sin = np.cos(np.radians(self.rotation_deg)), np.sin(np.radians(self.rotation_deg))
        return scale * np.array([[-cos, -sin], [-sin, cos]])

    @property
    def scale(self) -> int:
        """Power of two of the binned images that this pixel size is drawn from."""
        # The viewer takes the pixel size from the CD matrix, where 0.524 comes out just too small.
        octaves = np.log2(self.pixel_scale_arcsec / NATIVE_ARCSEC) - 1e-9
        return int(np.clip(np.floor(octaves), 0, 7))

    def cards(self) -> list[tuple]:
        """Return the cards of the WCS."""
        cd = self.cd
        return [
            ("CTYPE1", "RA---TAN"),
            ("CTYPE2", "DEC--TAN"),
            ("CRVAL1", self.ra_deg),
            ("CRVAL2", self.dec_deg),
            ("CRPIX1", (self.width + 1) / 2),
            ("CRPIX2", (self.height + 1) / 2),
            *((f"CD{i + 1}_{j + 1}", float(cd[i, j])) for i in (0, 1) for j in (0, 1)),
            ("IMAGEW", self.width),
            ("IMAGEH", self.height),
        ]

    def sky(self, rows: slice, columns: slice | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return right ascension and declination, degrees, of the pixels of some rows."""
        y, x = np.mgrid[rows, columns or slice(0, self.width)]
        middle = (self.width - 1) / 2, (self.height - 1) / 2
        grid = CcdGrid(self.ra_deg, self.dec_deg, middle, self.cd)
        ra, dec = grid.to_sky(x.ravel(), y.ravel())
        return ra.reshape(x.shape), dec.reshape(x.shape)

    def is_near(self, brick: Brick) -> bool:
        """Return True if a brick may have pixels of the grid."""
        reach = 0.3 + np.hypot(self.width, self.height) / 2 * self.pixel_scale_arcsec / 3600
        apart = sphere.separation_deg(self.ra_deg, self.dec_deg, brick.ra_deg, brick.dec_deg)
        return bool(apart < min(reach, 90.0))


class View(NamedTuple):
    """What is drawn of a layer."""

    layer: ViewerLayer
    grid: CutoutGrid
    bands: str
    kind: str = "image"


def _lanczos(fraction: np.ndarray) -> np.ndarray:
    """Return the six weights of each place between two pixels; they add up to 1."""
    distance = fraction - np.arange(1 - _KERNEL_PIX, _KERNEL_PIX + 1)[:, None]
    weights = np.sinc(distance) * np.sinc(distance / _KERNEL_PIX)
    return (weights / weights.sum(axis=0)).astype(np.float32)


def interpolate(planes: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Interpolate planes of one shape at the same places."""
    padded = [np.pad(plane.astype(np.float32), _KERNEL_PIX, mode="edge") for plane in planes]
    width = padded[0].shape[1]
    results = [np.empty(len(x), np.float32) for _ in planes]
    for start in range(0, len(x), _CHUNK_PIX):
        chunk = slice(start, start + _CHUNK_PIX)
        first_x, first_y = (np.floor(values[chunk]).astype(np.int64) for values in (x, y))
        weights_x, weights_y = _lanczos(x[chunk] - first_x), _lanczos(y[chunk] - first_y)
        corner = (first_y + 1) * width + first_x + 1
        for plane, result in zip(padded, results, strict=True):
            flat, total = plane.ravel(), 0
            for row, weight_y in enumerate(weights_y):
                across = 0
                for column, weight_x in enumerate(weights_x):
                    across = across + weight_x * flat[corner + (row * width + column)]
                total = total + weight_y * across
            result[chunk] = total
    return results


def bin_down(plane: np.ndarray) -> np.ndarray:
    """Smooth a plane with a Gaussian of one pixel and average every two by two pixels."""
    smooth = gaussian_filter(plane.astype(np.float32), 1.0)
    ny, nx = (length - length % 2 for length in smooth.shape)
    return smooth[:ny, :nx].reshape(ny // 2, 2, nx // 2, 2).mean(axis=(1, 3))


class Renderer:
    """Draws layers; ``find`` gives a file by its path in the survey."""

    def __init__(self, find: Callable[[str], Path]) -> None:
        self._find = find

    def read(
        self, tree: Tree, product: str, brick: str, band: str | None, box: Box
    ) -> np.ndarray | None:
        """Return a box of the pixels of a product, `None` where there is none."""
        if band is not None and band not in releases.get_tree(*tree).bands:
            return None
        path = self._find(paths.file_path(product, *tree, brick=brick, band=band))
        if not path.is_file():
            return None
        with fits.open(path) as hdul, decoding(hdul[1]):
            return hdul[1].section[box.slices]

    def draw(self, view: View) -> np.ndarray:
        """Return the planes of a layer, or the one of its mask."""
        parts, is_mask = _parts(view.layer, view.grid), view.kind == "maskbits"
        # The two halves of a split layer are joined in an array of floats, whatever they are.
        dtype = np.int32 if is_mask and len(parts) < 2 else np.float32
        n_planes = 1 if is_mask else len(view.bands)
        result = np.zeros((n_planes, view.grid.height, view.grid.width), dtype)
        near = [self._draw_part(result[:, rows], view, tree, rows) for tree, rows in parts]
        if view.layer.trees and not any(near):
            raise NoOverlapError
        return result

    def _draw_part(self, planes: np.ndarray, view: View, tree: Tree, rows: slice) -> bool:
        """Draw some rows; return whether a brick is near."""
        count = np.zeros(planes.shape[1:], np.float32)
        ra, dec = view.grid.sky(rows)
        is_near = False
        for brick in filter(view.grid.is_near, bricks_of(tree)):
            x, y = bricks.brick_grid(brick.id).to_pixel(ra, dec)
            inside = (np.abs(x - _MIDDLE) < SIZE_PIX / 2) & (np.abs(y - _MIDDLE) < SIZE_PIX / 2)
            is_near |= bool(inside.any())
            if view.layer.product != "image":
                # Models and residuals come from the brick that owns the pixel.
                inside &= bricks.brick_id(ra, dec) == brick.id
            if inside.any() and view.grid.scale <= LAST_SCALE:
                count += inside
                add = self._mask if view.kind == "maskbits" else self._add
                add(planes, view, (tree, brick.name), inside, (x[inside], y[inside]))
        if view.kind == "image":
            np.divide(planes, np.maximum(count, 1), out=planes)
        return is_near

    def _add(
        self,
        planes: np.ndarray,
        view: View,
        source: tuple[Tree, str],
        inside: np.ndarray,
        places: tuple[np.ndarray, np.ndarray],
    ) -> None:
        """Add what one brick has of some bands."""
        box, x, y = _box_around(*places, view.grid.scale)
        binned = {}
        for number, band in enumerate(view.bands):
            plane = self.native(view.layer, *source, band, view.kind, box)
            if plane is not None:
                for _ in range(view.grid.scale):
                    plane = bin_down(plane)
                binned[number] = plane
        if binned:
            values = interpolate(list(binned.values()), x, y)
            for number, value in zip(binned, values, strict=True):
                planes[number][inside] += value

    def _mask(
        self,
        planes: np.ndarray,
        view: View,
        source: tuple[Tree, str],
        inside: np.ndarray,
        places: tuple[np.ndarray, np.ndarray],
    ) -> None:
        """Set the mask of the nearest pixels of one brick."""
        x, y = (np.rint(values).astype(int) for values in places)
        box = Box(int(y.min()), int(y.max()) + 1, int(x.min()), int(x.max()) + 1)
        if view.layer.product == "resid":
            # A residual layer has one kind of file, whatever is asked for.
            plane = self.native(view.layer, *source, view.bands[0], "image", box)
        else:
            tree, brick = source
            plane = self.read(tree, "maskbits", brick, None, box)
        values = 0 if plane is None else plane[y - box.y0, x - box.x0].astype(np.int32)
        planes[0][inside] = values

    def native(
        self, layer: ViewerLayer, tree: Tree, brick: str, band: str, kind: str, box: Box
    ) -> np.ndarray | None:
        """Return pixels of a brick as they are in its files."""
        if layer.product == "resid":
            image, model = (self.read(tree, name, brick, band, box) for name in ("image", "model"))
            return None if image is None or model is None else image - model
        return self.read(tree, layer.product if kind == "image" else kind, brick, band, box)


def _parts(layer: ViewerLayer, grid: CutoutGrid) -> list[tuple[Tree, slice]]:
    """Return which tree draws which rows."""
    everything = slice(0, grid.height)
    if not layer.is_split:
        return [(tree, everything) for tree in layer.trees]
    north, south = layer.trees
    # The middle column stands for its row.
    ra, dec = grid.sky(everything, slice(grid.width // 2, grid.width // 2 + 1))
    count = int(bricks.is_north(ra, dec).sum())
    if count in (0, grid.height):
        return [(north if count else south, everything)]
    border = grid.height - count
    return [(south, slice(0, border)), (north, slice(border, grid.height))]


def _box_around(x: np.ndarray, y: np.ndarray, scale: int) -> tuple[Box, np.ndarray, np.ndarray]:
    """Return the box of native pixels that places need, and the places in it once binned."""
    step = 2**scale
    margin = _KERNEL_PIX * step + (_BIN_MARGIN_PIX * step if scale else 0)
    edges = []
    for values in (y, x):
        low = max(int(np.floor(values.min())) - margin, 0) // step * step
        high = min(-(-(int(np.ceil(values.max())) + margin) // step) * step, SIZE_PIX)
        edges += [low, high]
    box = Box(*edges)
    return box, (x - box.x0 + 0.5) / step - 0.5, (y - box.y0 + 0.5) / step - 0.5


# Per band: how much brighter it is drawn, and its share of red, green and blue.
_CLASSIC = {
    "g": (6.0, (0, 0, 1)),
    "r": (3.4, (0, 1, 0)),
    "i": (3.0, (0, 1, 0)),
    "z": (2.2, (1, 0, 0)),
}
_GRIZ = {
    "g": (9.0, (0, 0, 0.75)),
    "r": (5.1, (0, 0.5, 0.25)),
    "i": (4.5, (0.25, 0.5, 0)),
    "z": (3.3, (0.75, 0, 0)),
}
_SOFTENING = 20.0
_OFFSET = 0.03
_QUALITY = 90


def rgb_picture(planes: np.ndarray, bands: str, *, four_bands: bool) -> np.ndarray:
    """Return a colour picture, north up."""
    colours = _GRIZ if four_bands else _CLASSIC
    scaled = [
        np.maximum(plane * colours[band][0] + _OFFSET, 0)
        for band, plane in zip(bands, planes, strict=True)
    ]
    brightness = sum(scaled) / len(scaled)
    stretched = np.arcsinh(_SOFTENING * brightness) / np.sqrt(_SOFTENING)
    gain = stretched / np.maximum(brightness, 1e-6)
    picture = np.zeros((*planes.shape[1:], 3), np.float32)
    for band, plane in zip(bands, scaled, strict=True):
        picture += (plane * gain)[..., None] * np.array(colours[band][1], np.float32)
    return (np.clip(picture, 0, 1)[::-1] * 255).astype(np.uint8)


def to_jpeg(picture: np.ndarray) -> bytes:
    """Return a picture as the bytes of a JPEG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=_QUALITY, subsampling="4:2:0")
    return file.getvalue()
